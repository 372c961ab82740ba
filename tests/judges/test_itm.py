"""BLIP's matching head: equal to a plain call, whole texts, sentences and windows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import BlipForImageTextRetrieval, BlipProcessor

from curator.core.errors import EngineError, UsageError
from curator.core.images import decode
from curator.judges.itm import ItmScorer
from tests.kit import tinymodels
from tests.kit.captions import tiny_folder
from tests.kit.tinyclip import photo


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tinymodels.blip_itm(tmp_path_factory.mktemp("itm") / "tiny")


def test_the_score_is_that_of_a_plain_call(folder: Path) -> None:
    pairs = [(photo(0), "a dog"), (photo(1), "two people. a red house."), (photo(1), "a dog")]
    scores = ItmScorer(model=str(folder), device="cpu").score(pairs)
    processor = BlipProcessor.from_pretrained(folder)
    model = BlipForImageTextRetrieval.from_pretrained(folder).eval()

    def plain(image: bytes, text: str) -> float:
        inputs = processor(images=decode(image).image, text=text, return_tensors="pt")
        with torch.inference_mode():
            return float(model(**inputs, use_itm_head=True).itm_score.softmax(-1)[0, 1])

    for (image, text), score in zip(pairs, scores, strict=True):
        assert score.score == pytest.approx(plain(image, text), abs=1e-5)
        for part in score.sentences:
            alone = plain(image, text[part.start : part.end])
            assert part.score == pytest.approx(alone, abs=1e-5)
    assert [len(score.sentences) for score in scores] == [0, 2, 0]
    assert len({score.score for score in scores}) == 3


def test_a_text_beyond_the_context_is_scored_in_windows(folder: Path) -> None:
    scorer = ItmScorer(model=str(folder), device="cpu")
    text = "a dog runs on the beach " * 300
    (score,) = scorer.score([(photo(0), text)])
    assert score.truncated
    assert score.num_tokens > 1500
    parts = [text[one.start : one.end] for one in score.sentences]
    assert " ".join(parts).split() == text.split()
    alone = scorer.score([(photo(0), part) for part in parts])
    mean = sum(one.score or 0.0 for one in alone) / len(alone)
    assert score.score == pytest.approx(mean, abs=1e-5)


def test_other_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'smolvlm'"):
        ItmScorer(model=tiny_folder(tmp_path, "smolvlm"), device="cpu")
    with pytest.raises(EngineError, match="weights are not in the checkpoint"):
        ItmScorer(model=tiny_folder(tmp_path, "blip"), device="cpu")  # a captioner has no head
