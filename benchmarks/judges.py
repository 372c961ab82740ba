"""Can a model judge? AUROC of P(yes) against labels, beside a CLIP's cosine on the same pairs.

    python -m benchmarks.judges PHOTOS VLM CLIP --num 400

PHOTOS are shards whose .json has `caption` and `label` (`match` or `no-match`). The judge's numbers
are taken even where `--scorer vqa` refuses them because neither yes nor no is among the likeliest
tokens: that is what is to be seen.
"""

from __future__ import annotations

import argparse
import json
import random
import tarfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from curator.captioners import CaptionFailure
from curator.core.auroc import auroc
from curator.judges.ask import open_judge, request_of
from curator.judges.vqa import QUESTION
from curator.scorers.clip import ClipScorer


def read(folder: Path) -> list[tuple[bytes, str, bool]]:
    """Image, alt text and whether it is right, of every sample."""
    found = []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            files = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]  # regular files have one
        for key in sorted(name.removesuffix(".json") for name in files if name.endswith(".json")):
            about = json.loads(files[f"{key}.json"])
            found.append((files[f"{key}.jpg"], about["caption"], about["label"] == "match"))
    return found


def main() -> None:
    """Print what the judge says, and both AUROCs."""
    parser = argparse.ArgumentParser()
    for name in ("photos", "vlm", "clip"):
        parser.add_argument(name)
    parser.add_argument("--num", type=int, default=400)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = read(Path(asked.photos))
    random.Random(0).shuffle(rows)
    rows = rows[: asked.num]
    right = np.array([is_right for _, _, is_right in rows])

    def show(name: str, scores: np.ndarray) -> None:
        print(f"{name}: AUROC {auroc(scores[right], scores[~right]):.3f}")

    began = time.perf_counter()
    judge = open_judge(model=asked.vlm, device="cpu")
    requests = [request_of(image, QUESTION.format(text=text)) for image, text, _ in rows]
    answers = [one for one in judge.yes_no(requests) if not isinstance(one, CaptionFailure)]
    print(f"{len(answers)} answers in {time.perf_counter() - began:.0f} s, {right.sum()} right")
    print(f"yes or no among the 20 likeliest tokens: {sum(one.leads for one in answers)}")
    print(f"likeliest: {Counter(one.said for one in answers).most_common(3)}")
    yes, no = (np.array([getattr(one, name) for one in answers]) for name in ("yes", "no"))
    print(f"median P(yes) {np.median(yes):.1e}, P(no) {np.median(no):.1e}")
    show("P(yes)", yes)
    show("P(yes) / (P(yes) + P(no))", yes / (yes + no))
    clip = ClipScorer(asked.clip, device="cpu")
    cosines = [one.score or 0.0 for one in clip.score([(image, text) for image, text, _ in rows])]
    show("cosine", np.array(cosines))


if __name__ == "__main__":
    main()
