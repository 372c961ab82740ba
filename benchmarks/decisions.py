"""Does the decision help? Per policy: wrong alt texts gone, right ones kept, scores, chrF.

For a dataset whose samples carry a label (`match` / `no-match`: is the alt text this photo's?) and
human captions, like the research pack of 2,000 Flickr8k photos. Run `curator recaption` first:

    curator recaption PHOTOS --store STORE --scorer CLIP --captioner local --model VLM --policy best
    python benchmarks/decisions.py PHOTOS --store STORE --labels PHOTOS/captions.parquet

chrF (sentence level, mean) compares each chosen text with the photo's human captions other than
the alt text itself; it knows nothing of the scorer. The scorer's own mean is shown as well, but
where scorer and captioner share training data (as in the pack) it flatters the captions. Also
printed: the AUROC of the alt texts' scores against the labels (tests/steps/test_real_photos.py
compares it with a plain loop).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import polars as pl
from torchmetrics.functional.text import chrf_score

from curator.core.auroc import auroc
from curator.core.run_options import RunOptions
from curator.core.stopping import StopRequest
from curator.policy.decider import read_decision
from curator.policy.model import PRESETS, load_policy
from curator.steps.decide import MakerChoice, decide
from curator.steps.workspace import Workspace, open_workspace
from curator.store import index
from curator.store.facts import SCORES, Facts
from curator.store.versions import Version


def alt_scores(ws: Workspace, scorer: str) -> pl.DataFrame:
    """key, alt_text, score of every sample."""
    facts = Facts(ws.store, SCORES, scorer)
    parts = []
    for ref in ws.shards:
        samples = index.read(
            ws.store, ref.name, ["key", "image_sha256", "alt_text", "alt_sha256"]
        ).rename({"alt_sha256": "text_sha256"})
        scores = facts.read(samples, ["score"]).select("image_sha256", "text_sha256", "score")
        parts.append(samples.join(scores, on=["image_sha256", "text_sha256"], how="left"))
    return pl.concat(parts).select("key", "alt_text", "score")


def alt_auroc(scores: pl.DataFrame, labels: pl.DataFrame) -> float:
    """Probability that a right alt text scores above a wrong one."""
    joined = scores.join(labels, on="key").drop_nulls("score")
    right, wrong = (
        joined.filter((pl.col("label") == "match") == kind)["score"].to_numpy()
        for kind in (True, False)
    )
    return auroc(right, wrong)


class Chrf:
    """Mean sentence chrF (0 to 100) against the human captions; every pair is computed once."""

    def __init__(self, human: dict[str, list[str]]) -> None:
        self._human = human
        self._known: dict[tuple[str, str], float] = {}

    def __call__(self, texts: pl.DataFrame) -> float:
        """The mean over the rows of `texts` (key, text)."""
        pairs = list(texts.select("key", "text").iter_rows())
        if new := [pair for pair in dict.fromkeys(pairs) if pair not in self._known]:
            _, scores = chrf_score(
                [text for _, text in new],
                [self._human[key] for key, _ in new],
                n_word_order=0,
                return_sentence_level_score=True,
            )
            self._known |= dict(zip(new, (100 * scores).tolist(), strict=True))
        return sum(self._known[pair] for pair in pairs) / len(pairs)


def references(labels: pl.DataFrame, alt: pl.DataFrame) -> dict[str, list[str]]:
    """key -> human captions that are not the alt text."""
    joined = labels.join(alt.select("key", "alt_text"), on="key")
    return {
        key: [caption.strip() for caption in human if caption.strip() != alt_text]
        for key, human, alt_text in joined.select("key", "human_captions", "alt_text").iter_rows()
    }


def evaluate(
    ws: Workspace,
    version: Version,
    labels: pl.DataFrame,
    chrf: Chrf,
) -> dict[str, object]:
    """One row of the table."""
    chosen = pl.concat([read_decision(ws.store, entry) for entry in version.shards])
    by_sample = chosen.group_by("key").agg(
        alt_used=(pl.col("source") == "alt_text").any(), used=pl.col("text").is_not_null().any()
    )
    judged = by_sample.join(labels.select("key", "label"), on="key")
    wrong = judged.filter(pl.col("label") == "no-match")
    right = judged.filter(pl.col("label") == "match")
    texts = chosen.drop_nulls("text")
    return {
        "policy": version.policy["name"],
        "wrong gone": 1 - wrong["alt_used"].fill_null(False).mean(),
        "right kept": right["alt_used"].fill_null(False).mean(),
        "samples used": judged["used"].mean(),
        "mean score": texts["score"].mean(),
        "chrF": chrf(texts),
    }


def main() -> None:
    """Print the AUROC and the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    options = parser.parse_args()
    ws = open_workspace(options.dataset, options.store)
    labels = pl.read_parquet(options.labels)
    scorer = next(name for name in ws.store.makers(SCORES) if name.startswith("clip-"))
    alt = alt_scores(ws, scorer)
    chrf = Chrf(references(labels, alt))
    apart = alt_auroc(alt, labels)
    print(f"AUROC of right against wrong alt texts: {apart:.4f} (n={len(alt):,})\n")
    rows = []
    for name in PRESETS.names():
        choice, every = MakerChoice(scorer=scorer), RunOptions(max_quarantine=1.0)
        version, _ = decide(ws, load_policy(name), choice, every, stop=StopRequest())
        rows.append(evaluate(ws, version, labels, chrf))
    print("| policy | wrong alt texts gone | right ones kept | samples used | mean score | chrF |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['policy']} | {row['wrong gone']:.1%} | {row['right kept']:.1%} "
            f"| {row['samples used']:.1%} | {row['mean score']:.3f} | {row['chrF']:.1f} |"
        )


if __name__ == "__main__":
    main()
