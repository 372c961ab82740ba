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
        augments: whether images are augmented in training, so that features cannot be kept.
        final_norm: whether the maps of a plain ViT go through its final layer norm.
        named_after_paper: whether its name says that it is somebody's protocol, so that any changed
            option must be said wherever the name is printed.
    """

    help: str
    tasks: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    constants: Mapping[str, Any] = field(default_factory=dict)
    augments: bool = False
    final_norm: bool = False
    named_after_paper: bool = False


SOLVED: Mapping[str, Any] = {
    "version": 1,
    # Rows: the cells of the finest map, with all levels scaled to it bilinearly.
    "features": "all levels at the finest map's size, standardised over the cells",
    "finer": 1,  # rows along a side of a cell
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
    "augmentation": "none",
    # Of detection: proposals for images of at least `recipe_px`. Of smaller ones in proportion to
    # the side, as anchors are, but at least `least_share` of them: an image of 64 pixels has a
    # thousand anchors in all, and without a limit the heads would look at every one.
    "recipe_px": 800,
    "proposals": {"training": 2_000, "evaluation": 1_000, "least_share": 0.1},
    # Of AdamW and `pretrain.loop.options.LoopOptions`.
    "warmup_fraction": 0.05,
    "loop": {
        "schedule": "cosine",
        "beta2": 0.999,
        "eps": 1e-6,
        "decay_all": False,
        "clip_grad": 1.0,
    },
}
FINETUNE: Mapping[str, Any] = {
    **QUICK,
    "head": "see the options",
    "augmentation": "zoom within scale, crop, flip, colours",
}

_LINEAR: dict[str, Any] = {
    "version": 1,
    "features": "last map; of a plain ViT after its final norm",
    "loss": "cross entropy at the images' size, divided by all pixels, ignored ones included",
    "resize": "short side, bilinear with antialiasing",
    "cat_max_ratio": 0.75,
    "crop_tries": 10,
    "flip": 0.5,
    "brightness": 32,
    "contrast": (0.5, 1.5),
    "saturation": (0.5, 1.5),
    "pad": 124,
    "test": "short side of the window's, logits of windows averaged",
    "mean": "over the classes that occur in truth or prediction",
    "reported": "after the last step",
    "warmup_fraction": 1500 / 40_000,
}
DINOV2_LINEAR: dict[str, Any] = {
    **_LINEAR,
    "dropout": 0.0,
    "colours": "HSV",  # saturation and hue as OpenCV does them, in HSV
    "hue": 0.1,  # of a turn
    "loop": {
        "schedule": "poly",
        "beta2": 0.999,
        "eps": 1e-8,
        "decay_all": True,
        "clip_grad": 0.0,
    },
}
DINOV3_LINEAR: dict[str, Any] = {
    **_LINEAR,
    "dropout": 0.1,  # of whole channels, before the norm
    "colours": "torchvision",
    "hue": 0.5,
    "loop": {
        "schedule": "dinov3-linear",
        "beta2": 0.999,
        "eps": 1e-8,
        "decay_all": True,
        "clip_grad": 0.0,
    },
}
"""DINOv2's `*_ade20k_linear_config.py` and DINOv3's `config-ade20k-linear-training.yaml`.

What is different here, because a published number was not meant to be comparable in it: DINOv3
reports the best of 8 evaluations on the images that it reports on, this the last one; DINOv2
resizes with OpenCV, without antialiasing; padding is grey 124 instead of the mean colour; shortened
runs shorten the warm-up in proportion."""

DINOV3_DEPTH: dict[str, Any] = {
    "version": 1,
    "features": "last map; of a plain ViT after its final norm",
    "head": "affine batch norm, 256 bins, ReLU + 0.1, normalised, expectation",
    "bins": 256,
    "metres": (0.001, 10.0),  # of the bins, of the predictions, and of the readings that count
    "loss": "sqrt of the variance plus 0.15 times the squared mean of log differences",
    "loss_eps": 1e-3,
    "loss_mean": 0.15,
    "loss_warmup": 100,  # steps without the variance
    "nyu_crop": (43, 45, 608, 472),  # x0, y0, x1, y1 of 640 x 480
    "rotation": 2.5,  # degrees, in half of the images
    "flip": 0.5,
    "gamma": (0.9, 1.1),  # on 0 to 255, in half of the images, with the next two
    "brightness": (0.75, 1.25),
    "colour": (0.9, 1.1),
    "eigen_crop": (41, 45, 601, 471),
    "test": "whole image at its own size, mean with its mirror image",
    "reported": "after the last step",
    "warmup_fraction": 12_800 / 38_400,
    "loop": {
        "schedule": "dinov3-depth",
        "beta2": 0.99,
        "eps": 1e-8,
        "decay_all": True,
        "clip_grad": 35.0,
    },
}
"""DINOv3's `eval/depth/configs/config-nyu.yaml`. The first momentum is 0 in its warm-up and rises
from 0.85 to 0.95 after it, as its scheduler does it. Different here: the metrics of the last step
are reported, and sizes that are no multiple of the patch are resized, not padded."""

HUMMINGBIRD: dict[str, Any] = {
    "version": 1,
    "features": "last map; of a plain ViT after its final norm; scaled to length 1",
    "neighbours": 30,
    "temperature": 0.02,
    "memory": 102_400,  # patches, drawn per image by class frequency times noise
    "labels": "class shares of a patch's pixels; ignored pixels count as class 0",
    "augmentation": "none, one pass",
    "test": "images and labels at the same size as the memory's, ignored pixels left out",
    "mean": "over the classes that occur in truth or prediction",
}
"""`vpariza/open-hummingbird-eval`, with exact neighbours."""

_DINO_SEGMENTATION: dict[str, Any] = {
    "steps": 40_000,
    "batch_size": 16,
    "lr": 1e-3,
    "image_px": (512, 512),
    "scale": (0.5, 2.0),
    "inference": "slide",
    "precision": "fp32",
}

PROTOCOLS: Mapping[str, Protocol] = {
    "finetune": Protocol(help="train everything (default)", augments=True, constants=FINETUNE),
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
    "hummingbird": Protocol(
        help="30 nearest patches of the training images, nothing is trained",
        tasks=("segmentation",),
        defaults={"image_px": (512, 512)},
        unused=(*_OF_TRAINING, *_OF_FINETUNING, *_OF_WHOLE_IMAGES),
        constants=HUMMINGBIRD,
        final_norm=True,
        named_after_paper=True,
    ),
    "dinov2-linear": Protocol(
        help="DINOv2's linear segmentation",
        tasks=("segmentation",),
        defaults={**_DINO_SEGMENTATION, "weight_decay": 1e-4},
        unused=("head", *_OF_FINETUNING, *_OF_WHOLE_IMAGES[1:]),
        constants=DINOV2_LINEAR,
        augments=True,
        final_norm=True,
        named_after_paper=True,
    ),
    "dinov3-linear": Protocol(
        help="DINOv3's linear segmentation",
        tasks=("segmentation",),
        defaults={**_DINO_SEGMENTATION, "weight_decay": 1e-3},
        unused=("head", *_OF_FINETUNING, *_OF_WHOLE_IMAGES[1:]),
        constants=DINOV3_LINEAR,
        augments=True,
        final_norm=True,
        named_after_paper=True,
    ),
    "dinov3-depth": Protocol(
        help="DINOv3's linear depth",
        tasks=("depth",),
        defaults={
            "steps": 38_400,
            "batch_size": 16,
            "lr": 3e-4,
            "weight_decay": 1e-4,
            "image_px": (416, 544),
            "precision": "fp32",
        },
        unused=("head", "scale", "eval_crop", "depth_cap_m", *_OF_FINETUNING, *_OF_WHOLE_IMAGES),
        constants=DINOV3_DEPTH,
        augments=True,
        final_norm=True,
        named_after_paper=True,
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
