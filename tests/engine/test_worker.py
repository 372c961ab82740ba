"""What worker processes do with a batch, as executors call it: the next one is prefetched first."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from curator.captioners.prompts import get_prompt
from curator.engine import worker
from curator.engine.worker import CaptionItem, CaptionWorker, ImageRef, ScoreItem, ScoreWorker
from curator.scorers import Score
from tests.kit import pictures

NUM_IMAGES = 5


class Lengths:
    """A scorer: how many bytes the image has."""

    def score(self, pairs: Sequence[tuple[bytes, str]]) -> list[Score]:
        return [Score(float(len(image))) for image, _ in pairs]


@pytest.fixture
def images(tmp_path: Path) -> list[ImageRef]:
    found = []
    for number in range(NUM_IMAGES):
        data = pictures.saved(Image.new("RGB", (40 + number, 40), "teal"), "JPEG")
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(data)
        found.append(ImageRef(path, 0, len(data), hashlib.sha256(data).hexdigest()))
    return found


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[Path]:
    """How often each file is read."""
    counts: Counter[Path] = Counter()
    read_many = worker.read_many

    def counting(path: Path, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        counts[path] += len(ranges)
        return read_many(path, ranges)

    monkeypatch.setattr(worker, "read_many", counting)
    return counts


def drive(job: CaptionWorker | ScoreWorker, items: Sequence[object]) -> list[object]:
    """As `curator.engine.executors.local` does, in batches of two."""
    batches = [list(items[start : start + 2]) for start in range(0, len(items), 2)]
    found: list[object] = []
    for batch, upcoming in zip(batches, [*batches[1:], []], strict=True):
        if upcoming:
            job.prefetch(upcoming)  # type: ignore[arg-type]  # items of the job's kind
        found += job(batch)  # type: ignore[arg-type]  # the same
    return found


def test_an_image_to_caption_is_read_once(images: list[ImageRef], reads: Counter[Path]) -> None:
    prompt = get_prompt("short")
    job = CaptionWorker("echo", {}, prompt="short", language="en")
    items = [CaptionItem("0", image, prompt.text, 0) for image in images]
    captions = drive(job, items)
    assert len(set(captions)) == NUM_IMAGES
    assert reads == Counter({image.path: 1 for image in images})


def test_an_image_to_score_is_read_once(
    images: list[ImageRef], reads: Counter[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.SCORERS, "get", lambda _: Lengths)
    items = [ScoreItem("0", image, ("one", "other")) for image in images]
    scores = drive(ScoreWorker("lengths", {}), items)
    assert scores == [[Score(float(image.length))] * 2 for image in images]
    assert reads == Counter({image.path: 1 for image in images})
