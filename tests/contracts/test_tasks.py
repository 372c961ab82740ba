"""The contract of every dense task, run over the whole table on tiny backbones.

A new task needs nothing here: its labels say on what data it is tried, and the `tiny` function of
its row replaces what it predicts by the truth, or by what is as wrong as can be. The tests take a
name and an empty folder and no other fixture, so that a row that is registered at run time goes
through them as well (tests/extend).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from curator.core.errors import UsageError
from curator.core.registry import load
from curator.core.stopping import StopRequest
from finetune import cell_files
from finetune.feeding import Feed
from finetune.layouts import DenseSet, LabelledImage
from finetune.metrics import RETRIEVAL, RETRIEVAL_METRICS
from finetune.options import DenseOptions
from finetune.run import finetune
from finetune.tasks import TASKS, Evaluation
from pretrain.towers.backbone import Backbone
from tests.kit.dense import MAKERS, TinyConv, TinyPlain, boxes, dense_set

SIZE = (32, 48)
every_task = pytest.mark.parametrize("name", list(TASKS))


def a_set(name: str, number: int = 3) -> DenseSet:
    labels = TASKS.spec(name).labels
    items = [MAKERS[labels](f"{place}", SIZE, place) for place in range(number)]
    return dense_set(labels, items, items)


def options(name: str, **changes: Any) -> DenseOptions:
    values = {"image_px": SIZE, "batch_size": 2, "steps": 2, "precision": "fp32"}
    return DenseOptions(task=name, **{**values, **changes})


def built(name: str, backbone: Backbone | None = None, **changes: Any) -> Any:
    data = a_set(name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TASKS.get(name)(
            backbone or TinyConv(), options(name, **changes).settled(), data, data.train
        )


def evaluated(name: str, *, right: bool) -> Evaluation:
    task = built(name)
    load(TASKS.spec(name).tiny)(task, right=right)
    found: Evaluation = task.evaluate(a_set(name).test, kept=None, stop=StopRequest())
    return found


@every_task
def test_the_row_says_what_it_is_and_no_other_task_shares_its_metrics(
    name: str, tmp_path: Path
) -> None:
    spec = TASKS.spec(name)
    assert spec.help
    assert name != RETRIEVAL
    assert [metric.primary for metric in spec.metrics] == [True] + [False] * (len(spec.metrics) - 1)
    others = {one.name for other in TASKS if other != name for one in TASKS.spec(other).metrics}
    others |= {metric.name for metric in RETRIEVAL_METRICS}
    assert others.isdisjoint(metric.name for metric in spec.metrics)


@every_task
def test_a_loss_is_finite_and_reaches_all_that_learns(name: str, tmp_path: Path) -> None:
    for backbone in (TinyConv, TinyPlain):
        for freeze in (False, True):
            task = built(name, backbone(), protocol="quick" if freeze else "finetune")
            task.train()
            feed = Feed(a_set(name).train, task.options, None)
            torch.manual_seed(0)
            losses = task.losses(next(feed.batches(0)))
            assert all(value.shape == () and value.isfinite() for value in losses.values())
            torch.autograd.backward(losses["loss"])
            for group in task.groups():
                grads = [one.grad for one in group.parameters if one.grad is not None]
                assert any(grad.abs().sum() > 0 for grad in grads)
            assert all(one.grad is None for one in task.backbone.parameters()) is freeze
            assert (task.built["layer_decay"] is None) is freeze


@every_task
def test_truth_gives_the_best_value_of_every_metric_and_nonsense_the_worst(
    name: str, tmp_path: Path
) -> None:
    best, worst = (evaluated(name, right=right).metrics for right in (True, False))
    of_row = TASKS.spec(name).metrics
    assert of_row[0].name in best
    # Some may have nothing to count here, as AP of large objects.
    assert list(best) == list(worst) == [one.name for one in of_row if one.name in best]
    for metric in of_row:
        if metric.name not in best:
            continue
        ideal = 1.0 if metric.higher_is_better else 0.0
        assert best[metric.name] == pytest.approx(ideal, abs=1e-4), metric.name
        if metric.higher_is_better:
            assert worst[metric.name] == pytest.approx(0, abs=1e-4), metric.name
        else:
            assert worst[metric.name] > 0.1, metric.name


@every_task
def test_a_cell_repeats_and_is_read_back(name: str, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("finetune.run.load_backbone", lambda *_, **__: TinyConv())
        first, second = (
            finetune("any", a_set(name), options(name), out=tmp_path / part, device="cpu")
            for part in ("first", "second")
        )
    assert first.metrics == second.metrics
    assert first.per_image == second.per_image
    assert cell_files.finished(tmp_path / "first") == first
    assert [shown.name for shown in first.predictions] == ["0", "1", "2"]


@every_task
def test_an_example_is_three_images_of_one_size(name: str, tmp_path: Path) -> None:
    item = a_set(name).test[0]
    for one in built(name).example(item):
        assert one.dtype == torch.uint8
        assert one.shape == (3, *item.image.shape[:2])


@every_task
def test_images_without_a_label_are_refused(name: str, tmp_path: Path) -> None:
    nothing = {
        "segmentation": np.full(SIZE, 255, np.uint8),
        "depth": np.zeros(SIZE, np.float32),
        "detection": boxes(np.zeros((0, 4), np.float32), np.zeros((0, *SIZE), bool)),
    }
    labels = TASKS.spec(name).labels
    item = LabelledImage(name="a", image=np.zeros((*SIZE, 3), np.uint8), target=nothing[labels])
    data = dense_set(labels, [item], [item])
    with pytest.raises(UsageError, match="no image to evaluate on has"):
        built(name).evaluate(data.test, kept=None, stop=StopRequest())


@every_task
def test_options_that_it_does_not_take_are_refused(name: str, tmp_path: Path) -> None:
    spec = TASKS.spec(name)
    assert options(name).settled().scale == spec.scale
    for wrong in ({"head": "fpn"}, {"inference": "slide"}):
        if spec.has_own_head:
            with pytest.raises(ValueError, match=name):
                options(name, **wrong)
        else:
            built(name, **wrong)
