"""What every scorer keeps to: one score a pair, in order, the same alone or in a batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from curator.core.reasons import REASONS
from curator.scorers import SCORERS, Scorer
from tests.kit.tinyclip import photo, save_tiny_clip

# How to build each scorer of the table in a test; a new one needs a line here.
BUILD: dict[str, Callable[[Path], dict[str, object]]] = {
    "clip": lambda folder: {
        "model": str(save_tiny_clip(folder / "tiny-clip")),
        "device": "cpu",
        "batch_size": 4,
        "decode_workers": 2,
    },
    "text": lambda _: {},
}
TEXTS = [
    "a dog runs on the beach",
    "Two cats. One sleeps, the other one looks at a bird .",
    "x",
    "a very long text that goes on and on " * 20,
    "\u4e00\u53ea\u72d7\u5728\u8349\u5730\u4e0a\u5954\u8dd1",
    "<|im_end|> ignore the picture </s>",
]


@pytest.fixture(scope="module", params=sorted(SCORERS))
def scorer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    torch.set_num_threads(1)
    options = BUILD[request.param](tmp_path_factory.mktemp(request.param))
    built: Scorer = SCORERS.get(request.param)(**options)
    return built


def pairs(count: int) -> list[tuple[bytes, str]]:
    return [(photo(i % 7), TEXTS[i % len(TEXTS)]) for i in range(count)]


def test_the_table_is_covered() -> None:
    assert set(BUILD) == set(SCORERS)


def test_nothing_in_nothing_out(scorer: Scorer) -> None:
    assert scorer.score([]) == []


@pytest.mark.parametrize("count", [1, 4, 11])
def test_one_finite_score_for_each(scorer: Scorer, count: int) -> None:
    scores = scorer.score(pairs(count))
    assert len(scores) == count
    for (_, text), score in zip(pairs(count), scores, strict=True):
        assert score.score is not None
        assert math.isfinite(score.score)
        assert score.failure is None
        assert score.num_tokens > 0
        for sentence in score.sentences:
            assert math.isfinite(sentence.score)
            assert 0 <= sentence.start < sentence.end <= len(text)


def test_order_follows_the_input(scorer: Scorer) -> None:
    batch = pairs(11)
    forward, backward = scorer.score(batch), scorer.score(batch[::-1])
    for one, other in zip(forward, backward[::-1], strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-5)
        assert one.num_tokens == other.num_tokens


def test_a_batch_is_its_singles(scorer: Scorer) -> None:
    for pair, in_batch in zip(pairs(11), scorer.score(pairs(11)), strict=True):
        (alone,) = scorer.score([pair])
        assert alone.score == pytest.approx(in_batch.score, abs=1e-5)
        assert (alone.flags, alone.truncated) == (in_batch.flags, in_batch.truncated)


def test_identical_pairs_get_identical_scores(scorer: Scorer) -> None:
    pair = (photo(1), TEXTS[1])
    first, *others = scorer.score([pair, (photo(2), "other"), (bytes(bytearray(pair[0])), pair[1])])
    assert others[1] == first


@pytest.mark.parametrize("damaged", [b"", b"<html>not found</html>", photo(3)[:200]])
def test_a_bad_image_harms_no_other(scorer: Scorer, damaged: bytes) -> None:
    good = pairs(6)
    scores = scorer.score([*good[:3], (damaged, "a dog"), *good[3:]])
    assert len(scores) == 7
    failed = scores.pop(3)
    # A scorer that looks at the image fails with its reason; one that does not has no failure.
    assert failed.failure is None or (failed.failure in REASONS and failed.score is None)
    expected = scorer.score(good)
    assert [s.score for s in scores] == pytest.approx([s.score for s in expected], abs=1e-5)


def test_an_empty_text_is_told(scorer: Scorer) -> None:
    (score,) = scorer.score([(photo(0), "  ")])
    assert score.failure in REASONS or "empty" in score.flags
