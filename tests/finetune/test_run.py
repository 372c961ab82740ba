"""Dense cells end to end on tiny backbones: what is kept, repeated, stopped, swept and refused."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image

from curator.core.errors import EngineError, StoppedError, UsageError
from curator.core.stopping import StopRequest
from finetune import run
from finetune.cell_files import DenseResult
from finetune.feeding import Features
from finetune.layouts import DenseSet, Split
from finetune.options import DenseOptions
from finetune.run import finetune, held_out, sweep
from tests.kit.dense import TinyConv, block_item, box_item, dense_set, depth_item

SIZE = (32, 48)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Tiny backbones by any name, and one thread; gives the names that were asked for."""
    asked = []

    def load(spec: str, *, image_px: tuple[int, int], seed: int) -> TinyConv:
        asked.append(spec)
        assert image_px == SIZE
        return TinyConv(seed if spec.startswith("random:") else 0)

    monkeypatch.setattr(run, "load_backbone", load)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield asked
    torch.set_num_threads(before)


def blocks(*, num_val: int = 0) -> DenseSet:
    items = [block_item(f"{number:02}", SIZE, number) for number in range(10)]
    return dense_set("segmentation", items[:6], items[8:], items[6 : 6 + num_val])


def options(**changes: object) -> DenseOptions:
    values: dict[str, object] = {
        "task": "segmentation", "image_px": SIZE, "batch_size": 2, "steps": 4,
        "precision": "fp32", **changes,
    }  # fmt: skip
    return DenseOptions(**values)  # type: ignore[arg-type]  # checked when made


def numbers(result: DenseResult) -> tuple[object, ...]:
    """What must come out again; speeds differ."""
    losses = [row["loss"] for row in result.history]
    return result.metrics, result.per_image, losses, result.weights


@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize("task", ["segmentation", "depth", "detection"])
def test_the_same_seed_gives_the_same_numbers(task: str, freeze: bool) -> None:
    make = {"segmentation": block_item, "depth": depth_item, "detection": box_item}[task]
    items = [make(f"{number}", SIZE, number) for number in range(3)]
    data = dense_set(task, items[:2], items[1:])
    asked = options(task=task, protocol="quick" if freeze else "finetune", seed=3)
    state = torch.get_rng_state()
    one = finetune("any", data, asked, device="cpu")
    torch.set_rng_state(state)
    torch.rand(5)  # whatever was drawn before must not matter
    other = finetune("any", data, asked, device="cpu")
    assert numbers(one) == numbers(other)
    assert (one.num_train, one.num_test) == (2, 2)
    assert one.flops > 0
    another = finetune("any", data, asked.model_copy(update={"seed": 4}), device="cpu")
    assert numbers(another)[2] != numbers(one)[2]


def test_kept_features_change_no_number() -> None:
    """A probe that keeps its features, and one that cannot."""
    asked = options(protocol="quick")
    kept = finetune("any", blocks(), asked, device="cpu")
    not_kept = finetune("any", blocks(), asked, device="cpu", features=Features(limit_bytes=0))
    assert kept.metrics == pytest.approx(not_kept.metrics, abs=1e-6)
    assert kept.flops < not_kept.flops


def test_a_finished_cell_is_read_back_and_not_run_again(tmp_path: Path, tiny: list[str]) -> None:
    first = finetune("any", blocks(), options(), out=tmp_path / "cell", device="cpu")
    again = finetune("any", blocks(), options(), out=tmp_path / "cell", device="cpu")
    assert again == first
    assert tiny == ["any"]
    assert not (tmp_path / "cell" / "checkpoints").exists()
    pictures = [Image.open(BytesIO(shown.prediction)) for shown in again.predictions]
    assert [picture.size for picture in pictures] == [(48, 32)] * 2
    assert json.loads((tmp_path / "cell" / "run.json").read_bytes())["options"]["lr"] == 1e-4


def test_a_folder_belongs_to_one_cell(tmp_path: Path) -> None:
    finetune("any", blocks(), options(), out=tmp_path, device="cpu")
    with pytest.raises(UsageError, match=r"options.seed is 0 there and 1 here"):
        finetune("any", blocks(), options(seed=1), out=tmp_path, device="cpu")
    with pytest.raises(UsageError, match=r"backbone is 'any' there and 'other' here"):
        finetune("other", blocks(), options(), out=tmp_path, device="cpu")


class StopAt(StopRequest):
    """Ctrl-C at the n-th time that somebody asks."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.left = number

    def __call__(self) -> bool:
        self._count()
        return super().__call__()

    def check(self, what: str) -> None:
        self._count()
        super().check(what)

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.signum = signal.SIGINT


@pytest.mark.parametrize("freeze", [False, True])
def test_stopped_anywhere_it_goes_on_to_the_same_numbers(tmp_path: Path, freeze: bool) -> None:
    asked = options(protocol="quick" if freeze else "finetune")
    straight = finetune("any", blocks(), asked, device="cpu")
    stops = 0
    for number in range(1, 40):
        out = tmp_path / f"{number}"
        stop = StopAt(number)
        with contextlib.suppress(StoppedError):
            finetune("any", blocks(), asked, out=out, stop=stop, device="cpu")
        if stop.signum is None:
            break
        stops += 1
        assert not (out / "metrics.json").exists()
        done = finetune("any", blocks(), asked, out=out, device="cpu")
        assert numbers(done) == numbers(straight)
    assert stops >= asked.steps  # features, every step, judging


def test_data_of_another_task_are_refused() -> None:
    with pytest.raises(
        UsageError, match="depth needs depth labels, the data have segmentation labels"
    ):
        finetune("any", blocks(), options(task="depth"))


def test_fractions_are_nested_and_counted() -> None:
    assert finetune("any", blocks(), options(fraction=0.5), device="cpu").num_train == 3
    assert finetune("any", blocks(), options(fraction=0.01), device="cpu").num_train == 1


# -- sweeps ----------------------------------------------------------------------------------------


def unreadable(split: Split) -> Split:
    def read(name: str) -> object:
        raise AssertionError(f"test image {name} was looked at")

    return Split(split.names, read)  # type: ignore[arg-type]  # it never returns


@pytest.mark.parametrize("num_val", [0, 2])
def test_a_sweep_never_looks_at_a_test_picture(tmp_path: Path, num_val: int) -> None:
    data = blocks(num_val=num_val)
    data = replace(data, test=unreadable(data.test))
    asked = options(protocol="quick", steps=20)
    found = sweep("any", data, asked, lrs=[1e-6, 0.03], out=tmp_path, device="cpu")
    assert found.metric == "mIoU"
    assert {rate for rate, _ in found.tried} == {1e-6, 0.03}
    assert found.lr == 0.03  # at 1e-6 nothing is learnt
    assert found.at_edge
    said = "2 validation images" if num_val else "1 of 6 training images, held out"
    assert found.evaluated_on == said
    assert json.loads((tmp_path / "sweep.json").read_bytes())["lr"] == 0.03


def test_pictures_held_out_are_not_trained_on() -> None:
    apart, _ = held_out(blocks(), options())
    assert set(apart.train.names) & set(apart.test.names) == set()
    assert sorted(apart.train.names + apart.test.names) == list(blocks().train.names)
    with pytest.raises(UsageError, match="one training image cannot be divided"):
        held_out(blocks(), options(fraction=0.01))


def test_a_rate_that_explodes_is_a_result_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(task: object, feed: object, cell: run._Cell, stop: object) -> object:
        rate = cell.options.lr
        assert rate is not None
        if rate > 1:
            raise EngineError("step 3: loss is nan", reason="train.not_finite")
        return really(task, feed, cell, stop)

    really = run._train
    monkeypatch.setattr(run, "_train", train)
    found = sweep(
        "any", blocks(num_val=2), options(protocol="quick"), lrs=[0.01, 9.0], device="cpu"
    )
    assert found.lr == 0.01
    assert dict(found.tried)[9.0] is None
    with pytest.raises(EngineError, match="no learning rate of 8, 9 stayed finite"):
        sweep("any", blocks(num_val=2), options(protocol="quick"), lrs=[8.0, 9.0], device="cpu")


def test_less_is_better_for_depth() -> None:
    items = [depth_item(f"{number}", SIZE, number) for number in range(4)]
    data = dense_set("depth", items[:2], items[3:], items[2:3])
    asked = options(task="depth", protocol="quick", steps=20)
    found = sweep("any", data, asked, lrs=[1e-6, 0.03], device="cpu")
    values = {lr: value for lr, value in found.tried if value is not None}
    assert found.metric == "RMSE"
    assert found.lr == min(values, key=values.__getitem__)


def test_cells_on_one_frozen_backbone_share_its_features(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    forward = TinyConv.forward

    def counted(self: TinyConv, images: torch.Tensor) -> list[torch.Tensor]:
        seen.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(TinyConv, "forward", counted)
    data, features = blocks(), Features()
    for seed in range(3):
        finetune("any", data, options(protocol="quick", seed=seed), device="cpu", features=features)
    num_shown = 2  # sample predictions go through the backbone as an image does
    assert sum(seen) == 6 + 2 + 3 * num_shown
    # Random backbones differ by seed: their features are made anew.
    seen.clear()
    for seed in (1, 2):
        finetune(
            "random:x", data, options(protocol="quick", seed=seed), device="cpu", features=features
        )
    assert sum(seen) == 2 * (6 + 2 + num_shown)
