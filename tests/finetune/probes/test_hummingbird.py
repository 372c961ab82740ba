"""Segmentation by nearest patches against a loop over patches and neighbours."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from finetune import run
from finetune.options import DenseOptions
from finetune.probes.hummingbird import Memory, drawn, patch_labels
from finetune.protocols import HUMMINGBIRD
from tests.kit.dense import TinyConv, block_item, dense_set

SIZE = (32, 48)


def test_labels_of_a_patch() -> None:
    """Of 4 pixels, one without a label counts as class 0."""
    target = torch.tensor([[1, 1, 2, 2], [255, 1, 2, 0]], dtype=torch.uint8)
    assert patch_labels(target, (1, 2), 3).tolist() == [[0.25, 0.75, 0], [0.25, 0, 0.75]]


def test_a_patch_is_the_weighted_mean_of_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HUMMINGBIRD, "neighbours", 5)
    generator = torch.Generator().manual_seed(0)
    keys = torch.nn.functional.normalize(torch.randn(40, 6, generator=generator), dim=1)
    labels = torch.rand(40, 3, generator=generator)
    maps = torch.randn(2, 6, 2, 3, generator=generator)
    found = Memory(keys, labels)([torch.zeros(2, 1, 9, 9), maps])
    assert found.shape == (2, 3, 2, 3)
    for image in range(2):
        for row in range(2):
            for column in range(3):
                query = maps[image, :, row, column].tolist()
                length = math.sqrt(sum(value**2 for value in query))
                similar = [
                    sum(a * b for a, b in zip(query, key, strict=True)) / length
                    for key in keys.tolist()
                ]
                nearest = sorted(range(40), key=lambda one: -similar[one])[:5]
                weights = [math.exp(similar[one] / 0.02) for one in nearest]
                for k in range(3):
                    wanted = sum(
                        weight * float(labels[one, k])
                        for weight, one in zip(weights, nearest, strict=True)
                    ) / sum(weights)
                    assert float(found[image, k, row, column]) == pytest.approx(wanted, abs=1e-4)


def test_rare_classes_are_drawn_first() -> None:
    """Class 1 is in one of 100 patches: its score is at most 1, that of the others up to 99."""
    shares = torch.zeros(100, 2)
    shares[:, 0] = 1
    shares[42] = torch.tensor([0.0, 1.0])
    times = sum(
        42 in drawn(shares, 10, torch.Generator().manual_seed(seed)).tolist() for seed in range(50)
    )
    # 9.1 of 99 uniform scores are below a tenth of 99; below 1 of 99 is one of them on average.
    assert times == 50


def cell(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Any:
    norms = []

    def load(_spec: str, *, image_px: tuple[int, int], seed: int, final_norm: bool) -> TinyConv:
        norms.append(final_norm)
        return TinyConv()

    monkeypatch.setattr(run, "load_backbone", load)
    items = [block_item(f"{number}", (64, 96), number) for number in range(5)]
    data = dense_set("segmentation", items[:4], items[4:])
    asked = DenseOptions(task="segmentation", protocol="hummingbird", image_px=SIZE, **changes)
    found = run.finetune("any", data, asked, device="cpu")
    assert norms == [True]
    return found


def test_a_cell_from_end_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    found = cell(monkeypatch)
    assert found.protocol == "hummingbird, image_px 32x48 instead of 512x512"
    assert 0 < found.metrics["mIoU"] <= 1
    assert (found.flops, found.lr, found.history) == (0, None, [])
    assert np.isfinite(found.seconds)
    # Images are scored at the size of the memory's.
    assert cell(monkeypatch, seed=3).metrics == found.metrics  # every patch is in the memory
    monkeypatch.setitem(HUMMINGBIRD, "memory", 8)
    assert cell(monkeypatch).protocol_digest != found.protocol_digest
