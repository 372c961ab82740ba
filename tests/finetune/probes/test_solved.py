"""The probe `solved`: its optimum, what it is chosen on, what it keeps of the way there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.nn.functional import interpolate

from curator.core.errors import UsageError
from finetune import run
from finetune.cell_files import DenseResult
from finetune.feeding import Features
from finetune.layouts import Array, DenseSet, LabelledImage
from finetune.options import DenseOptions
from finetune.probes.solved import Tried, _at_edge, _labels
from finetune.protocols import SOLVED
from finetune.run import finetune
from pretrain.towers.backbone import Backbone
from tests.kit.dense import TinyConv, TinyPlain, block_item, dense_set, depth_item

SIZE = (32, 48)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(run, "load_backbone", lambda _spec, *, image_px, seed: TinyConv())
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def noisy(name: str, seed: int) -> LabelledImage:
    """Blocks under so much noise that no linear map of their features is right everywhere."""
    item = block_item(name, SIZE, seed)
    noise = np.random.default_rng(seed).normal(0, 90, item.image.shape)
    image = (item.image + noise).clip(0, 255).astype(np.uint8)
    return replace(item, image=image)


def data_of(task: str, *, num_val: int = 3) -> DenseSet:
    make = {"segmentation": noisy, "depth": lambda name, seed: depth_item(name, SIZE, seed)}[task]
    items = [make(f"{number:02}", number) for number in range(12)]
    return dense_set(task, items[:6], items[9:], items[6 : 6 + num_val])


def solved(data: DenseSet, **changes: Any) -> DenseResult:
    asked = DenseOptions(task=data.labels, protocol="solved", image_px=SIZE, **changes)
    return finetune("any", data, asked, device="cpu")


def features_by_hand(data: DenseSet, net: Backbone) -> Array:
    """(cells, channels) of the training images: every level at the finest one's size."""
    net.eval()
    rows = []
    for item in data.train:
        image = torch.from_numpy(item.image).permute(2, 0, 1)[None] / 255
        mean, std = (torch.tensor(one).view(3, 1, 1) for one in (net.mean, net.std))
        with torch.no_grad():
            maps = net((image - mean) / std)
        fine = maps[0].shape[-2:]
        scaled = [interpolate(one, fine, mode="bilinear", align_corners=False) for one in maps]
        rows.append(torch.cat(scaled, 1)[0].flatten(1).T)
    return torch.cat(rows).double().numpy()


def shares_by_hand(data: DenseSet) -> tuple[Array, Array]:
    """Shares of three classes and labelled shares of all cells of 2x2 pixels."""
    shares, labelled = [], []
    for item in data.train:
        assert isinstance(item.target, np.ndarray)
        for row in range(0, SIZE[0], 2):
            for column in range(0, SIZE[1], 2):
                pixels = item.target[row : row + 2, column : column + 2].ravel()
                known = [pixel for pixel in pixels.tolist() if pixel != 255]
                labelled.append(len(known) / 4)
                shares.append([known.count(k) / max(len(known), 1) for k in range(3)])
    return np.array(shares), np.array(labelled)


def test_labels_of_a_cell() -> None:
    """Two cells of 2x2 pixels: 0 0 1 ignored, all labelled but one; and 2 2 2 2."""

    class Any_:
        head = type("Head", (), {"shares": [torch.nn.Conv2d(1, 3, 1)]})()

    target = np.array([[0, 0, 2, 2], [1, 255, 2, 2]], np.uint8)
    shares, labelled = _labels(Any_(), target, (1, 2))  # type: ignore[arg-type]  # all it reads
    assert shares.tolist() == [pytest.approx([2 / 3, 1 / 3, 0]), [0, 0, 1]]
    assert labelled.tolist() == [0.75, 1]
    # Three rows of pixels on two of cells: the centre of the middle one is on the border, below.
    odd = np.array([[0], [1], [2]], np.uint8)
    shares, labelled = _labels(Any_(), odd, (2, 1))  # type: ignore[arg-type]
    assert shares.tolist() == [[1, 0, 0], [0, 0.5, 0.5]]
    # A cell without any pixel, as labels smaller than the map have, counts nothing.
    assert _labels(Any_(), odd[:1], (2, 1))[1].tolist() == [0, 1]  # type: ignore[arg-type]


def test_it_is_the_optimum_that_another_solver_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """BFGS in float64, from zero, without standardised features or a preconditioner.

    Loss: mean cross entropy with the shares, weighted by labelled pixels, and half of the strength
    times the squared weights on features of unit variance.
    """
    monkeypatch.setitem(SOLVED, "strengths", (1e-2,))
    monkeypatch.setitem(SOLVED, "strength_limits", (1e-2, 1e-2))
    monkeypatch.setitem(SOLVED, "tolerance", 1e-5)
    data = data_of("segmentation")
    found = solved(data).certificate
    assert found is not None
    features, (shares, labelled) = features_by_hand(data, TinyConv()), shares_by_hand(data)
    features, shares, weight = features[labelled > 0], shares[labelled > 0], labelled[labelled > 0]
    weight /= weight.sum()
    mean = weight @ features
    spread = np.sqrt(weight @ (features - mean) ** 2)
    varies = spread > 1e-6  # some ReLUs are dead
    standard = (features - mean)[:, varies] / spread[varies]

    def loss(flat: Array) -> tuple[float, Array]:
        weights, bias = flat[:-3].reshape(-1, 3), flat[-3:]
        logits = standard @ weights + bias
        logits -= logits.max(1, keepdims=True)
        p = np.exp(logits)
        total = p.sum(1, keepdims=True)
        error = weight[:, None] * (p / total - shares)
        value = weight @ (np.log(total[:, 0]) - (shares * logits).sum(1))
        gradient = standard.T @ error + 1e-2 * weights
        return value + 0.5e-2 * (weights**2).sum(), np.append(gradient, error.sum(0))

    start = np.zeros(3 * standard.shape[1] + 3)
    best = minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 5000})
    assert found["loss"] == pytest.approx(best.fun, abs=1e-7)
    assert found["gradient_norm"] < 1e-5 * found["gradient_norm_at_zero"]
    assert not found["hit_cap"]
    assert found["cells"] == len(weight)
    assert found["cells_in_all"] == 6 * 16 * 24
    # The convex optimum does not depend on where it starts: nothing of the seed is left.
    other = solved(data, seed=5).certificate
    assert other is not None
    assert other | {"seconds": 0} == found | {"seconds": 0}


def test_depth_is_the_ridge_of_the_normal_equations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOLVED, "strengths", (1e-2,))
    monkeypatch.setitem(SOLVED, "strength_limits", (1e-2, 1e-2))
    data = data_of("depth")
    found = solved(data).certificate
    assert found is not None
    logs, labelled = [], []
    for item in data.train:
        assert isinstance(item.target, np.ndarray)
        for row in range(0, SIZE[0], 2):
            for column in range(0, SIZE[1], 2):
                pixels = item.target[row : row + 2, column : column + 2].ravel()
                labelled.append((pixels > 0).mean())
                logs.append(np.log(pixels[pixels > 0].astype(float)).mean() if pixels.any() else 0)
    every = np.concatenate(
        [np.log(item.target[item.target > 0].astype(float)) for item in data.train]  # type: ignore[index,operator]
    )
    keep = np.array(labelled) > 0
    weight = np.array(labelled)[keep] / np.sum(labelled)
    target = (np.array(logs)[keep] - every.mean()) / every.std()
    features = features_by_hand(data, TinyConv())[keep]
    centred = features - weight @ features
    spread = np.sqrt(weight @ centred**2)
    standard = centred[:, spread > 1e-6] / spread[spread > 1e-6]
    root = np.sqrt(weight)[:, None]
    # Ridge as least squares with the root of the strength below.
    stacked = np.vstack([root * standard, 0.1 * np.eye(standard.shape[1])])
    aim = np.append(root[:, 0] * (target - weight @ target), np.zeros(standard.shape[1]))
    weights = np.linalg.lstsq(stacked, aim)[0]
    assert found["loss"] == pytest.approx(0.5 * ((stacked @ weights - aim) ** 2).sum(), rel=1e-5)
    assert found["gradient_norm"] < 1e-9 * found["gradient_norm_at_zero"]
    assert found["iterations"] == 0


@pytest.mark.parametrize("task", ["segmentation", "depth"])
def test_the_strength_is_chosen_without_the_test_images(task: str) -> None:
    """Other test images, labelled with nonsense, change the score and nothing else."""
    data = data_of(task)
    poisoned = [replace(item, target=item.target[::-1, ::-1].copy()) for item in data.test]  # type: ignore[index]
    other = dense_set(task, list(data.train), poisoned, list(data.val))
    first, second = solved(data), solved(other)
    assert first.metrics != second.metrics
    assert first.certificate is not None
    assert second.certificate is not None
    for key in ("strength", "curve", "loss", "iterations", "metric", "chosen_on"):
        assert first.certificate[key] == second.certificate[key]
    assert first.certificate["chosen_on"] == "3 validation images"
    scores = {one["strength"]: one["score"] for one in first.certificate["curve"]}
    best = max(scores.values()) if task == "segmentation" else min(scores.values())
    assert scores[first.certificate["strength"]] == best


def test_without_validation_images_some_are_held_out_and_then_used() -> None:
    data = data_of("segmentation", num_val=0)
    found = solved(data).certificate
    assert found is not None
    assert found["chosen_on"] == "1 of 6 training images, held out"
    labelled = 6 * 16 * (24 - 1)  # the first two columns of pixels have no label
    assert found["cells"] == labelled
    with pytest.raises(UsageError, match="one training image cannot be divided"):
        solved(data, fraction=0.01)


def test_the_range_grows_while_its_end_is_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels that have nothing to do with the images: the strongest penalty is the best one."""
    monkeypatch.setitem(SOLVED, "strength_limits", (1e-8, 10.0))
    rng = np.random.default_rng(0)
    items = []
    for number in range(12):
        item = noisy(f"{number:02}", number)
        target = np.where(rng.random(SIZE) < 0.5, 0, 1).astype(np.uint8)
        items.append(replace(item, target=target))
    found = solved(dense_set("segmentation", items[:6], items[9:], items[6:9])).certificate
    assert found is not None
    tried = [one["strength"] for one in found["curve"]]
    assert tried == sorted(tried, reverse=True)
    best = tried.index(found["strength"])
    assert 0 < best < len(tried) - 1 or found["strength"] in (10.0, 1e-8)
    assert not found["at_edge"] or found["strength"] in (10.0, 1e-8)


@pytest.mark.parametrize(
    ("scores", "at_edge"),
    [
        ({1.0: 1.20, 1e-7: 1.09, 1e-8: 1.08}, True),
        ({1.0: 1.20, 1e-7: 1.0801, 1e-8: 1.08}, False),  # better by a ten-thousandth: flat
        ({1e2: 1.08, 1.0: 1.10, 1e-8: 1.20}, True),
        ({1.0: 1.20, 1e-7: 1.08, 1e-8: 1.09}, False),
        ({1.0: 1.20}, False),
    ],
)
def test_a_flat_end_of_the_range_is_no_reason_to_want_a_wider_one(
    scores: dict[float, float], at_edge: bool
) -> None:
    tried = {
        strength: Tried(
            strength=strength, score=rmse, loss=0.0, gradient_norm=0.0, iterations=0, evaluations=0
        )
        for strength, rmse in scores.items()
    }
    assert _at_edge(tried, min(scores, key=lambda strength: scores[strength])) is at_edge


def test_more_cells_than_fit_are_drawn_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_of("segmentation")
    monkeypatch.setitem(SOLVED, "max_values", 500 * (8 + 12 + 16 + 24))
    found = solved(data).certificate
    assert found is not None
    assert 400 < found["cells"] < 500  # one of 24 columns has no label
    assert found["cells_in_all"] == 6 * 16 * 24
    again = solved(data).certificate
    assert again is not None
    assert again | {"seconds": 0} == found | {"seconds": 0}
    other = solved(data, seed=1).certificate
    assert other is not None
    assert other["loss"] != found["loss"]


def test_features_that_are_not_kept_give_the_same() -> None:
    data = data_of("segmentation")
    asked = DenseOptions(task="segmentation", protocol="solved", image_px=SIZE, batch_size=2)
    kept = finetune("any", data, asked, device="cpu")
    again = finetune("any", data, asked, device="cpu", features=Features(limit_bytes=0))
    assert kept.metrics == pytest.approx(again.metrics, abs=1e-6)


def test_a_repeated_map_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A net of three stages gives its first map twice: the penalty on it would be halved."""

    class Repeats(TinyConv):
        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            maps = super().forward(images)
            return [maps[1], *maps[1:]]

    def repeats() -> Backbone:
        net = Repeats()
        net.channels, net.strides = (12, 12, 16, 24), (4, 4, 8, 16)
        return net

    monkeypatch.setattr(run, "load_backbone", lambda _spec, *, image_px, seed: repeats())
    found = solved(data_of("segmentation")).certificate
    assert found is not None
    assert found["channels"] == 12 + 16 + 24


def test_a_plain_vit_works_on_its_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "load_backbone", lambda _spec, *, image_px, seed: TinyPlain())
    found = solved(data_of("segmentation"))
    assert found.certificate is not None
    assert found.certificate["cells_in_all"] == 6 * 4 * 6
    assert found.protocol == "solved"
    assert found.lr is None


def test_it_is_kept_and_another_protocol_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = data_of("segmentation")
    asked = DenseOptions(task="segmentation", protocol="solved", image_px=SIZE)
    first = finetune("any", data, asked, out=tmp_path, device="cpu")
    assert finetune("any", data, asked, out=tmp_path, device="cpu") == first
    monkeypatch.setitem(SOLVED, "tolerance", 0.5)
    with pytest.raises(UsageError, match=r"protocol.digest is '\w{8}' there and '\w{8}' here"):
        finetune("any", data, asked, out=tmp_path, device="cpu")
