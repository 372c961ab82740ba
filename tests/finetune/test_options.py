"""Options of a dense cell: what is refused, what follows from what."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from curator.core.errors import UsageError
from finetune.options import (
    FINETUNE_LR,
    HEADS_LR,
    PROBE_LR,
    DenseOptions,
    parse_options,
)
from finetune.tasks import TASKS
from finetune.tasks.base import layer_decay_of


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"task": "pose"}, "task is 'pose'"),
        ({"steps": 0}, "steps is 0"),
        ({"batch_size": 1}, "batch_size is 1"),  # a batch norm over one value is none
        ({"fraction": 0}, "fraction is 0"),
        ({"fraction": 1.5}, "fraction is 1.5"),
        ({"lr": -1}, "lr is -1"),
        ({"layer_decay": 1.2}, "layer_decay is 1.2"),
        ({"image_px": (8, 64)}, "image_px"),
        ({"scale": (2.0, 1.0)}, "scale"),
        ({"task": "detection", "head": "fpn"}, "head"),
        ({"task": "detection", "inference": "slide"}, "inference"),
        ({"freeze": True, "inference": "slide"}, "inference"),
        ({"freeze": True, "layer_decay": 0.65}, "a probe trains no layer of the backbone"),
        ({"epochs": 3}, "unknown key 'epochs'"),
    ],
)
def test_what_is_wrong_is_named(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_options({"task": "segmentation", **wrong})


def test_settled_fills_in_what_is_open_and_keeps_what_is_given() -> None:
    probe = DenseOptions(task="depth", freeze=True).settled()
    assert (probe.lr, probe.scale, probe.mode) == (PROBE_LR, (1.0, 1.0), "probe")
    full = DenseOptions(task="segmentation").settled()
    assert (full.lr, full.scale, full.mode) == (FINETUNE_LR, (0.5, 2.0), "finetune")
    # The heads of detection are no linear ones: a probe's rate would be too high for them.
    assert DenseOptions(task="detection", freeze=True).settled().lr == HEADS_LR
    given = DenseOptions(task="segmentation", lr=0.5, scale=(1.0, 1.0)).settled()
    assert (given.lr, given.scale) == (0.5, (1.0, 1.0))
    assert given.settled() == given


def test_the_recipes_rate_is_swept_and_not_at_the_edge() -> None:
    full = DenseOptions(task="segmentation")
    assert 1e-4 in full.swept_learning_rates[1:-1]
    assert full.settled().lr == 1e-4  # MAE, ConvNeXt, ViTDet: AdamW, 1e-4
    for options in (full, DenseOptions(task="depth", freeze=True)):
        assert options.settled().lr in options.swept_learning_rates[1:-1]
    assert {1e-3, 1e-2} <= set(DenseOptions(task="depth", freeze=True).swept_learning_rates)
    assert DenseOptions(task="detection", freeze=True).settled().lr == 1e-3


def test_layer_decay_follows_the_architecture() -> None:
    assert layer_decay_of(is_pyramid=True, num_groups=5) == 0.9
    assert layer_decay_of(is_pyramid=False, num_groups=1 + 12) == 0.65  # ViT-B
    assert layer_decay_of(is_pyramid=False, num_groups=1 + 24) == 0.75  # ViT-L
    assert layer_decay_of(is_pyramid=False, num_groups=1 + 32) == 0.9  # ViT-H


def test_a_probe_is_stored_as_ever() -> None:
    """A study knows its cells by what is stored: those of a probe have not changed."""
    assert DenseOptions(task="depth", freeze=True).model_dump(mode="json") == {
        "task": "depth", "head": "auto", "freeze": True, "steps": 1000, "batch_size": 16,
        "lr": None, "layer_decay": 0.8, "weight_decay": 0.05, "image_px": [512, 512],
        "fraction": 1.0, "seed": 0, "scale": None, "precision": "auto", "inference": "whole",
    }  # fmt: skip
    assert DenseOptions(task="depth").layer_decay is None


def test_options_survive_json() -> None:
    options = DenseOptions(task="detection", image_px=(96, 128), fraction=0.1)
    assert DenseOptions(**options.model_dump(mode="json")) == options


def test_every_task_has_metrics_and_knows_which_way_is_better() -> None:
    first = {task: TASKS.spec(task).metrics[0] for task in TASKS}
    assert {task: (metric.name, metric.higher_is_better) for task, metric in first.items()} == {
        "segmentation": ("mIoU", True),
        "depth": ("RMSE", False),
        "detection": ("box AP", True),
    }


def test_options_need_no_torch() -> None:
    code = "import sys, finetune.options; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
