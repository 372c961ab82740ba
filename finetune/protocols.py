"""Protocols of dense evaluation by name: what is trained, how, and how it is scored. Torch-free.

A protocol is one row of `PROTOCOLS`. Its settings are the options that it leaves to the user, with
its own defaults, and constants that nobody can change; `settings` returns all of them, and their
digest is stored with every result. Two numbers are comparable if their digests are equal: backbone,
data, fraction of the labels and seed are not part of a protocol.

The code reads the constants from here, so that the digest covers what is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from curator.core.hashing import digest

DIGEST_LENGTH = 8

_OF_TRAINING = ("head", "steps", "lr", "weight_decay", "scale", "precision")
_OF_FINETUNING = ("layer_decay", "drop_path", "dropout", "aux_weight", "frozen_norms")
_OF_WHOLE_IMAGES = ("inference", "stride_px", "short_side_px", "flip_averaging")
"""Options that a frozen backbone whose features are kept has no use for."""
_NOT_PROTOCOL = ("task", "fraction", "seed", "protocol", "lr", "swept")


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """One row of `PROTOCOLS`.

    Attributes:
        help: one line about it, for `--help`.
        tasks: the tasks that it can evaluate; empty for all of them.
        defaults: options (`finetune.options.DenseOptions`) that have another default here.
        unused: options that it has no use for; giving one is an error.
        constants: all other settings.
        named_after_paper: whether its name says that it is somebody's protocol, so that any changed
            option must be said wherever the name is printed.
    """

    help: str
    tasks: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    constants: Mapping[str, Any] = field(default_factory=dict)
    named_after_paper: bool = False


SOLVED: Mapping[str, Any] = {
    "version": 1,
    # Rows: the cells of the finest map, with all levels scaled to it bilinearly.
    "features": "all levels at the finest map's size, standardised over the cells",
    "targets": {
        "segmentation": "shares of the classes among the cell's labelled pixels",
        "depth": "mean log metres over the cell's readings",
    },
    "row_weight": "share of the cell's pixels that are labelled",
    "max_values": 40_000_000,  # cells times channels, 160 MB; beyond it cells are sampled
    # L2 strength: half of it times the sum of squared weights is added to the mean loss of a cell.
    "strengths": (1e-2, 1e-3, 1e-4, 1e-5),
    "strength_step": 10.0,  # for extending the range while the best one is at its end
    "strength_limits": (1e-8, 1e2),
    "solver": "L-BFGS, strong Wolfe, preconditioned by the covariance; depth: closed form",
    "history": 20,
    "path_tolerance": 2e-3,  # of the gradient norm at zero weights, for choosing the strength
    "tolerance": 1e-4,  # the same, for the weights that are evaluated
    "path_iterations": 60,
    "iterations": 300,
}
"""Settings of `finetune.probes.solved`."""

QUICK: Mapping[str, Any] = {
    "version": 1,
    "head": "batch norm without affine per level, one linear map of all levels, N(0, 0.01)",
    "loss": {
        "segmentation": "cross entropy at the images' size, mean over labelled pixels",
        "depth": "scale-invariant log, variance focus 0.5",
        "detection": "torchvision's",
    },
    "optimizer": "AdamW, betas 0.9 and 0.999, eps 1e-6, gradients clipped to 1",
    "schedule": "linear warm-up over 5 % of the steps, then half a cosine",
    "augmentation": "none",
}
FINETUNE: Mapping[str, Any] = {
    **QUICK,
    "head": "see the options",
    "augmentation": "zoom within scale, crop, flip, colours",
}

PROTOCOLS: Mapping[str, Protocol] = {
    "finetune": Protocol(help="train everything (default)", constants=FINETUNE),
    "solved": Protocol(
        help="linear probe at its optimum, strength chosen on validation images",
        tasks=("segmentation", "depth"),
        unused=(*_OF_TRAINING, *_OF_FINETUNING, *_OF_WHOLE_IMAGES),
        constants=SOLVED,
    ),
    "quick": Protocol(
        help="linear probe by a few hundred steps of AdamW",
        unused=(*_OF_FINETUNING, "scale", *_OF_WHOLE_IMAGES),
        constants=QUICK,
    ),
}


def printed_name(name: str, options: Mapping[str, Any]) -> str:
    """Return the protocol's name as it is printed beside a number.

    Options that differ from a published protocol's are said: "dinov2-linear, 400 of 40,000 steps".
    Of the tool's own protocols, only the number of steps is.
    """
    protocol = PROTOCOLS[name]
    if not protocol.named_after_paper:
        return name if "steps" in protocol.unused else f"{name}, {options['steps']:,} steps"
    changed = [
        f"{_shown(options[key])} of {_shown(usual)} steps"
        if key == "steps"
        else f"{key} {_shown(options[key])} instead of {_shown(usual)}"
        for key, usual in protocol.defaults.items()
        if _shown(options[key]) != _shown(usual)
    ]
    return ", ".join([name, *changed])


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "x".join(map(_shown, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def settings(name: str, task: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return every setting that defines a protocol on a task; `options` are settled.

    A learning rate that was chosen on validation images differs between backbones; then the rates
    that it was chosen from are a setting, and the rate is not.
    """
    protocol = PROTOCOLS[name]
    apart = {*_NOT_PROTOCOL, *protocol.unused}
    if "steps" in protocol.unused:
        apart.add("batch_size")  # only the number of images that are evaluated at once
    used = {key: value for key, value in options.items() if key not in apart}
    if "lr" not in protocol.unused:
        used |= {"swept": options["swept"]} if options["swept"] else {"lr": options["lr"]}
    return {"protocol": name, "task": task, "options": used, "constants": protocol.constants}


def settings_digest(name: str, task: str, options: Mapping[str, Any]) -> str:
    """Return the digest of `settings`, as it is printed."""
    return digest(settings(name, task, options))[:DIGEST_LENGTH]
