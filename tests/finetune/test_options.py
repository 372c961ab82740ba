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
from finetune.protocols import SOLVED
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
        ({"task": "detection", "inference": "slide"}, "no sliding window; allowed: whole, keep"),
        ({"protocol": "quick", "inference": "slide"}, "inference"),
        ({"protocol": "quick", "layer_decay": 0.65}, "layer_decay: the protocol quick does not"),
        ({"protocol": "solved", "steps": 5}, "steps: the protocol solved does not use it"),
        ({"protocol": "solved", "lr": 0.1}, "lr: the protocol solved does not use it"),
        ({"protocol": "slow"}, "protocol is 'slow'"),
        (
            {"task": "detection", "protocol": "solved"},
            "solved is for segmentation and depth, not for detection; allowed: finetune, quick",
        ),
        ({"epochs": 3}, "unknown key 'epochs'"),
        ({"protocol": "quick", "drop_path": 0.1}, "drop_path: the protocol quick does not use it"),
        ({"protocol": "solved", "flip_averaging": True}, "flip_averaging: the protocol solved"),
        ({"task": "detection", "dropout": 0.1}, "dropout: detection does not use it"),
        ({"task": "depth", "aux_weight": 0.4}, "aux_weight: depth does not use it, segmentation"),
        ({"short_side_px": 512}, "short_side_px: only for inference slide or keep"),
    ],
)
def test_what_is_wrong_is_named(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_options({"task": "segmentation", **wrong})


def test_settled_fills_in_what_is_open_and_keeps_what_is_given() -> None:
    probe = DenseOptions(task="depth", protocol="quick").settled()
    assert (probe.lr, probe.scale, probe.freeze) == (PROBE_LR, None, True)
    full = DenseOptions(task="segmentation").settled()
    assert (full.lr, full.scale, full.freeze) == (FINETUNE_LR, (0.5, 2.0), False)
    # The heads of detection are no linear ones: a probe's rate would be too high for them.
    assert DenseOptions(task="detection", protocol="quick").settled().lr == HEADS_LR
    given = DenseOptions(task="segmentation", lr=0.5, scale=(1.0, 1.0)).settled()
    assert (given.lr, given.scale) == (0.5, (1.0, 1.0))
    assert given.settled() == given


def test_the_recipes_rate_is_swept_and_not_at_the_edge() -> None:
    full = DenseOptions(task="segmentation")
    assert 1e-4 in full.swept_learning_rates[1:-1]
    assert full.settled().lr == 1e-4  # MAE, ConvNeXt, ViTDet: AdamW, 1e-4
    for options in (full, DenseOptions(task="depth", protocol="quick")):
        assert options.settled().lr in options.swept_learning_rates[1:-1]
    assert {1e-3, 1e-2} <= set(DenseOptions(task="depth", protocol="quick").swept_learning_rates)
    assert DenseOptions(task="detection", protocol="quick").settled().lr == 1e-3


def test_layer_decay_follows_the_architecture() -> None:
    assert layer_decay_of(is_pyramid=True, num_groups=5) == 0.9
    assert layer_decay_of(is_pyramid=False, num_groups=1 + 12) == 0.65  # ViT-B
    assert layer_decay_of(is_pyramid=False, num_groups=1 + 24) == 0.75  # ViT-L
    assert layer_decay_of(is_pyramid=False, num_groups=1 + 32) == 0.9  # ViT-H


def test_a_digest_covers_every_setting_of_the_protocol_and_nothing_else() -> None:
    usual = DenseOptions(task="depth", protocol="quick")
    digest = usual.protocol_digest
    for same in ({"seed": 3}, {"fraction": 0.1}, {"lr": PROBE_LR}):  # the default, said
        assert DenseOptions(task="depth", protocol="quick", **same).protocol_digest == digest
    others = [
        {"steps": 200}, {"lr": 0.5}, {"weight_decay": 0.1}, {"batch_size": 8},
        {"image_px": (64, 64)}, {"precision": "fp32"}, {"task": "segmentation"},
        {"protocol": "solved"}, {"protocol": "finetune"}, {"lr": 0.5, "swept": (0.1, 0.5)},
    ]  # fmt: skip
    values = {"task": "depth", "protocol": "quick"}
    digests = {DenseOptions(**{**values, **other}).protocol_digest for other in others}
    assert len(digests | {digest}) == len(others) + 1
    # A rate that was chosen is not a setting; what it was chosen from is.
    chosen = DenseOptions(**values, lr=0.1, swept=(0.1, 0.5))
    assert (
        chosen.protocol_digest == DenseOptions(**values, lr=0.5, swept=(0.1, 0.5)).protocol_digest
    )


def test_the_constants_are_in_the_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    options = DenseOptions(task="depth", protocol="solved")
    before = options.protocol_digest
    assert DenseOptions(task="depth", protocol="solved", batch_size=4).protocol_digest == before
    monkeypatch.setitem(SOLVED, "tolerance", 0.5)
    assert options.protocol_digest != before


def test_the_name_says_what_a_reader_must_know() -> None:
    assert (
        DenseOptions(task="depth", protocol="quick", steps=2000).protocol_name
        == "quick, 2,000 steps"
    )
    assert DenseOptions(task="depth", protocol="solved").protocol_name == "solved"


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
