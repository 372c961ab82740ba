"""The engine on real photos with a real scorer: what it must show (research data only)."""

from __future__ import annotations

import glob
import io
import itertools
import tarfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from curator.core.stopping import StopRequest
from curator.engine.makers import scorer_maker
from curator.shards.scan import ScanOptions
from curator.steps.index import make_index
from curator.steps.score import score_all
from curator.steps.workspace import open_workspace

pytestmark = [pytest.mark.realdata, pytest.mark.slow, pytest.mark.timeout(900)]


def plain_loop_auroc(shared: Path) -> float:
    """What anybody would write: tarfile, PIL, open_clip, a cosine; and scikit-learn's formula."""
    import open_clip
    from torchmetrics.functional.classification import binary_auroc

    name = f"local-dir:{shared / 'models' / 'photo-clip'}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    tokenizer = open_clip.get_tokenizer(name)
    model.eval()
    labels = dict(
        pl.read_parquet(shared / "data" / "photos" / "captions.parquet")
        .select("key", "label")
        .iter_rows()
    )
    scores, targets = [], []
    for path in sorted(glob.glob(str(shared / "data" / "photos" / "*.tar"))):
        with tarfile.open(path) as archive:
            files = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]  # all are files
        keys = sorted({name.split(".")[0] for name in files})
        for start in range(0, len(keys), 50):
            batch = keys[start : start + 50]
            pixels = [Image.open(io.BytesIO(files[f"{key}.jpg"])).convert("RGB") for key in batch]
            with torch.inference_mode():
                images = model.encode_image(
                    torch.stack([preprocess(p) for p in pixels]), normalize=True
                )
                tokens = tokenizer([files[f"{key}.txt"].decode() for key in batch])
                texts = model.encode_text(tokens, normalize=True)
            scores += (images * texts).sum(-1).tolist()
            targets += [labels[key] == "match" for key in batch]
    return float(binary_auroc(torch.tensor(scores), torch.tensor(targets)))


def test_alignment_tells_right_from_wrong_as_well_as_a_plain_loop(
    shared: Path, tmp_path: Path
) -> None:
    from benchmarks.decisions import alt_auroc, alt_scores

    photos = shared / "data" / "photos"
    ws = open_workspace(str(photos), tmp_path / "store", create=True)
    make_index(ws, ScanOptions(), stop=StopRequest())
    maker = scorer_maker(str(shared / "models" / "photo-clip"))
    score_all(ws, [maker], stop=StopRequest())
    ours = alt_auroc(alt_scores(ws, maker.name), pl.read_parquet(photos / "captions.parquet"))
    assert ours == pytest.approx(plain_loop_auroc(shared), abs=5e-4)
    assert ours == pytest.approx(0.956, abs=2e-3)  # the model's own README


def test_a_concept_finds_dogs_and_not_what_its_model_never_saw(
    shared: Path, tmp_path: Path
) -> None:
    """The results page's figures for 500 of its photos: what is known is found, the rest is not."""
    from benchmarks.concepts import photos, scores, watermarked
    from curator.core.auroc import auroc
    from curator.scorers.concept import ConceptScorer
    from curator.scorers.concepts import PRESETS

    folder = shared / "data" / "photos"
    keys, images = zip(*itertools.islice(photos(folder), 500), strict=True)
    written = dict(
        pl.read_parquet(folder / "captions.parquet").select("key", "human_captions").iter_rows()
    )
    named = np.array([sum("dog" in text.lower() for text in written[key]) for key in keys])
    scorer = ConceptScorer(str(shared / "models" / "photo-clip"))
    dogs, *marks = scores(scorer, images, ["a photo of a dog", *PRESETS["watermark"]]).T
    assert auroc(dogs[named >= 2], dogs[named == 0]) > 0.8
    clean = np.maximum(*marks)
    planted = scores(scorer, [watermarked(data) for data in images[:100]], PRESETS["watermark"])
    assert auroc(planted.max(1), clean) < 0.6  # no better than chance: docs/results says so
