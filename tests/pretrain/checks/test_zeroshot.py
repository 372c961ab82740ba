"""Zero-shot recognition of words: which words are classes, and the area under the curve."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from pretrain.checks.zeroshot import classes, zero_shot
from pretrain.towers.tokens import Encoded

CUBE, CONE, SPHERE = torch.eye(3)


class Knows:
    """An objective that knows three words; each has a direction of its own."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def tokenizer(self) -> SimpleNamespace:
        return SimpleNamespace(encoded=self._encoded)

    def _encoded(self, texts: list[str]) -> Encoded:
        self.asked = texts
        # As long as they are wide, but for questions about cones.
        lengths = [1 + ("cone" in text) for text in texts]
        return Encoded(torch.arange(len(texts))[:, None], torch.tensor(lengths))

    def encode_texts(self, tokens: torch.Tensor) -> torch.Tensor:
        known = {"cube": CUBE, "cone": CONE, "sphere": SPHERE}
        return torch.stack(
            [next(known[word] for word in known if word in self.asked[int(row)]) for row in tokens]
        )


def test_words_of_ten_texts_up_to_half_of_them_are_classes() -> None:
    texts = ["A red Cube, 12 px"] * 15 + ["red cone"] * 10 + ["red spheres on it"] * 9 + ["red"] * 6
    words, says = classes(texts)
    assert words == ["cube", "cone"]  # "red" in all, "spheres" in nine; "px", "it", "12" are none
    assert says.shape == (2, 40)
    assert says.sum(1).tolist() == [15, 10]
    assert says[:, 0].tolist() == [True, False]


def test_a_word_said_twice_in_a_text_counts_once() -> None:
    words, _ = classes(["cube and cube"] * 9 + ["sky"] * 30)
    assert words == []


def test_auroc_by_hand() -> None:
    """20 cubes and 20 cones; two of the cubes look like cones, all cones like themselves.

    Cube against cone: a pair of pictures is right with probability 18/20, and a tie (half right)
    with 2/20: 0.95 for either word.
    """
    texts = ["cube"] * 20 + ["cone"] * 20
    images = torch.stack([CUBE] * 18 + [CONE] * 22)
    found = zero_shot(Knows(), images, texts)
    assert found == {"num_words": 2, "num_words_cut": 1, "word_auroc": pytest.approx(0.95)}


def test_a_model_that_knows_nothing_is_at_chance_and_one_that_has_it_wrong_is_below() -> None:
    texts = ["cube"] * 20 + ["cone"] * 20
    knows = Knows()
    same = zero_shot(knows, F.normalize(torch.ones(40, 3), dim=1), texts)
    wrong = zero_shot(knows, torch.stack([CONE] * 20 + [CUBE] * 20), texts)
    assert same["word_auroc"] == pytest.approx(0.5)
    assert wrong["word_auroc"] == 0
    assert knows.asked == ["a photo of cube.", "a photo of cone."]


def test_without_a_frequent_word_nothing_is_told() -> None:
    assert zero_shot(Knows(), torch.eye(3), ["cube", "cone", "sphere"]) == {}
