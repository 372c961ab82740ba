"""Small backbones and labelled pictures in memory, for the tests of dense tasks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import one_hot

from finetune.layouts import IGNORE, Array, Boxes, DenseSet, LabelledImage, Split
from pretrain.towers.backbone import Backbone


class TinyConv(Backbone):
    """A pyramid of four random convolutions: strides 2 to 16."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.name, self.mean, self.std = "tiny", (0.5,) * 3, (0.25,) * 3
        self.channels, self.strides = (8, 12, 16, 24), (2, 4, 8, 16)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            widths = (3, *self.channels)
            self.stages = nn.ModuleList(
                nn.Sequential(
                    nn.Conv2d(narrow, wide, 3, stride=2, padding=1), nn.BatchNorm2d(wide), nn.ReLU()
                )
                for narrow, wide in itertools.pairwise(widths)
            )

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        maps = []
        for stage in self.stages:
            images = stage(images)
            maps.append(images)
        return maps

    def layer_groups(self) -> list[list[nn.Parameter]]:
        return [list(stage.parameters()) for stage in self.stages]


class TinyPlain(Backbone):
    """Four maps at the stride of 8-pixel patches, like a plain ViT's."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.name, self.mean, self.std = "plain", (0.5,) * 3, (0.25,) * 3
        self.channels, self.strides = (16,) * 4, (8,) * 4
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.patches = nn.Conv2d(3, 16, 8, stride=8)
            self.blocks = nn.ModuleList(nn.Conv2d(16, 16, 1) for _ in range(4))

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        tokens, maps = self.patches(images), []
        for block in self.blocks:
            tokens = tokens + block(tokens).relu()
            maps.append(tokens)
        return maps

    def layer_groups(self) -> list[list[nn.Parameter]]:
        groups = [list(block.parameters()) for block in self.blocks]
        return [list(self.patches.parameters()), *groups]


COLOURS = np.array([[200, 60, 40], [40, 180, 60], [50, 60, 200]], np.uint8)


def block_item(name: str, size: tuple[int, int], seed: int) -> LabelledImage:
    """Coloured quarters; the class of a pixel is its colour, a stripe of the label is missing."""
    rng = np.random.default_rng(seed)
    height, width = size
    classes = np.zeros(size, np.uint8)
    for rows in (slice(0, height // 2), slice(height // 2, height)):
        for columns in (slice(0, width // 2), slice(width // 2, width)):
            classes[rows, columns] = rng.integers(len(COLOURS))
    image = COLOURS[classes]
    classes = classes.copy()
    classes[:, :2] = 255
    return LabelledImage(name=name, image=image, target=classes)


def depth_item(name: str, size: tuple[int, int], seed: int) -> LabelledImage:
    """Grey from dark (4 m) to bright (1 m), in two halves; the first rows have no reading."""
    rng = np.random.default_rng(seed)
    metres = np.empty(size, np.float32)
    metres[:, : size[1] // 2], metres[:, size[1] // 2 :] = rng.uniform(1, 4, 2)
    grey = (255 * (4.5 - metres) / 4).astype(np.uint8)
    metres[:2] = 0
    return LabelledImage(name=name, image=np.repeat(grey[..., None], 3, 2), target=metres)


def box_item(
    name: str, size: tuple[int, int], seed: int, *, has_masks: bool = True
) -> LabelledImage:
    """One bright rectangle on dark ground."""
    rng = np.random.default_rng(seed)
    height, width = size
    y, x = int(rng.integers(0, height // 2)), int(rng.integers(0, width // 2))
    mask = np.zeros((1, *size), bool)
    mask[0, y : y + height // 3, x : x + width // 3] = True
    image = np.full((*size, 3), 40, np.uint8)
    image[mask[0]] = 220
    box = np.array([[x, y, x + width // 3, y + height // 3]], np.float32)
    return LabelledImage(name=name, image=image, target=boxes(box, mask if has_masks else None))


def boxes(box: Array, masks: Array | None, crowd: Sequence[bool] | None = None) -> Boxes:
    number = len(box)
    return Boxes(
        boxes=box,
        labels=np.ones(number, np.int64),
        masks=masks,
        crowd=np.array(crowd if crowd is not None else [False] * number, bool),
    )


def split_of(items: Sequence[LabelledImage]) -> Split:
    by_name = {item.name: item for item in items}
    return Split(tuple(sorted(by_name)), by_name.__getitem__)


def dense_set(
    task: str,
    train: Sequence[LabelledImage],
    test: Sequence[LabelledImage],
    val: Sequence[LabelledImage] = (),
) -> DenseSet:
    classes = {"segmentation": ("red", "green", "blue"), "depth": (), "detection": ("thing",)}
    return DenseSet(
        labels=task,
        layout="memory",
        folder=Path("memory"),
        classes=classes[task],
        train=split_of(train),
        val=split_of(val),
        test=split_of(test),
        has_masks=task == "detection",
    )


MAKERS = {"segmentation": block_item, "depth": depth_item, "detection": box_item}
"""Kind of labels -> how an item of it is made."""


# -- what the contract suite of tasks asks of each: predictions all right, or all wrong ------------


def tiny_segmentation(task: Any, *, right: bool) -> None:
    """Every pixel its class, or the next one."""

    def predictions(split: Split, *_: object) -> Iterator[tuple[LabelledImage, torch.Tensor]]:
        for item in split:
            truth = torch.from_numpy(item.target).long()
            said = torch.where(truth == IGNORE, 0, truth + (not right)) % len(task.classes)
            yield item, one_hot(said, len(task.classes)).permute(2, 0, 1).float()

    task.predictions = predictions


def tiny_depth(task: Any, *, right: bool) -> None:
    """The depth of every pixel, or that end of the range which is farther from it."""

    def predictions(split: Split, *_: object) -> Iterator[tuple[LabelledImage, torch.Tensor]]:
        nearest, farthest = task.log_range.tolist()
        for item in split:
            log = torch.from_numpy(item.target).clamp(min=1e-3).log()
            if not right:
                log = torch.where(log - nearest > farthest - log, nearest, farthest)
            yield item, ((log - task.log_mean) / task.log_spread)[None]

    task.predictions = predictions


def tiny_detection(task: Any, *, right: bool) -> None:
    """All objects, or none."""

    def found(items: Sequence[LabelledImage], _maps: object) -> list[dict[str, torch.Tensor]]:
        every = [item.target for item in items]
        return [
            {
                "boxes": torch.from_numpy(one.boxes[: right * len(one)]),
                "labels": torch.from_numpy(one.labels[: right * len(one)]),
                "scores": torch.ones(right * len(one)),
                "masks": torch.from_numpy(one.masks[: right * len(one), None]).float(),
            }
            for one in every
        ]

    task.found = found
