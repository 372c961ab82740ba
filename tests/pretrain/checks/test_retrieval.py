from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from pretrain.checks.retrieval import PairFeatures, encode, recalls
from pretrain.data.loader import Batch
from tests.kit.train import batch, objective, recipe


def test_recalls_by_hand() -> None:
    """Scores of 6 images and texts: image 0's own text is second, image 1's is sixth."""
    images = torch.eye(6)
    texts = torch.eye(6)
    texts[0, 0], texts[1, 0] = 0.5, 0.9  # image 0 prefers text 1
    texts[:, 1] = torch.tensor([0.3, 0.1, 0.3, 0.3, 0.3, 0.3])  # image 1 likes its own least
    found = recalls(PairFeatures(images, texts, torch.arange(6)))
    assert found["num_pairs"] == 6
    assert found["image_to_text_r1"] == pytest.approx(4 / 6)
    assert found["image_to_text_r5"] == pytest.approx(5 / 6)
    assert found["text_to_image_r1"] == pytest.approx(5 / 6)  # text 1 prefers image 0
    assert found["text_to_image_r5"] == 1


def test_pairs_with_the_same_text_are_right_for_each_other() -> None:
    images = F.normalize(torch.tensor([[1.0, 0.1], [1.0, 0.2], [0.0, 1.0]]), dim=1)
    texts = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    apart = recalls(PairFeatures(images, texts, torch.tensor([0, 1, 2])))
    alike = recalls(PairFeatures(images, texts, torch.tensor([0, 0, 2])))
    assert apart["image_to_text_r1"] == pytest.approx(1 / 3)  # a tie with a wrong text is wrong
    assert alike["image_to_text_r1"] == alike["text_to_image_r1"] == 1


def test_a_collapsed_model_finds_nothing() -> None:
    found = recalls(PairFeatures(torch.ones(9, 2), torch.ones(9, 2), torch.arange(9)))
    assert [found[key] for key in sorted(found) if "_r" in key] == [0, 0, 0, 0]


def test_many_pairs_are_looked_at_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    images, texts = (F.normalize(torch.randn(50, 4, generator=generator), dim=1) for _ in range(2))
    pairs = PairFeatures(images, texts, torch.arange(50))
    whole = recalls(pairs)
    monkeypatch.setattr("pretrain.checks.retrieval._ROWS", 7)
    assert recalls(pairs) == whole


def test_an_objective_is_asked_for_all_pairs(tmp_path: Path) -> None:
    made = objective(recipe(tmp_path))
    first, second = batch(0), batch(1)
    copy = Batch(second.images, first.tokens, second.owners, second.samples)
    found = recalls(encode(made, [first, copy]))
    assert found["num_pairs"] == 16
    assert not made.training
