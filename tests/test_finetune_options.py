"""Options of a dense cell: what is refused, what follows from what."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from curator.errors import UsageError
from finetune.options import FINETUNE_LR, METRICS, PROBE_LR, DenseOptions, parse_options


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
    assert DenseOptions(task="detection", freeze=True).settled().lr == FINETUNE_LR
    given = DenseOptions(task="segmentation", lr=0.5, scale=(1.0, 1.0)).settled()
    assert (given.lr, given.scale) == (0.5, (1.0, 1.0))
    assert given.settled() == given


def test_options_survive_json() -> None:
    options = DenseOptions(task="detection", image_px=(96, 128), fraction=0.1)
    assert DenseOptions(**options.model_dump(mode="json")) == options


def test_every_task_has_metrics_and_knows_which_way_is_better() -> None:
    assert {task: next(iter(names.items())) for task, names in METRICS.items()} == {
        "segmentation": ("mIoU", True),
        "depth": ("RMSE", False),
        "detection": ("box AP", True),
    }


def test_options_need_no_torch() -> None:
    code = "import sys, finetune.options; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
