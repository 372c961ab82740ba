"""Read pedestrians with numbered masks: the Penn-Fudan database, as published or with lists.

The mask of an image is a PNG in which 0 is the background and 1 to n are the pedestrians. Boxes are
those around the masks. Any data set with one class in this form can be read.

Source: Wang et al., "Object Detection Combining Recognition and Segmentation", ACCV 2007.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finetune.layouts import Boxes, Opened
from finetune.layouts.coco_masks import outline
from finetune.layouts.files import (
    Size,
    damaged,
    list_files,
    paired,
    pairs,
    read_numbers,
    splits_by_list,
)

_CLASSES = ("pedestrian",)
_TEST_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class NumberedMasks:
    """Reads a PNG of numbers as boxes and masks of one class."""

    def __call__(self, path: Path, size: Size) -> Boxes:
        """Read the objects in order of their numbers, which may have gaps."""
        numbers_HW = read_numbers(path, size, 8)
        numbers = np.flatnonzero(np.bincount(numbers_HW.ravel())[1:]) + 1
        masks_NHW = numbers_HW == numbers[:, None, None]
        count = len(numbers)
        return Boxes(
            boxes=outline(masks_NHW),
            labels=np.ones(count, np.int64),
            masks=masks_NHW,
            crowd=np.zeros(count, bool),
        )


def open_pennfudan(folder: Path) -> Opened:
    """Open images/ and masks/, split by train.txt, test.txt and, if present, val.txt."""
    train, val, test = splits_by_list(folder, "images", "masks", NumberedMasks())
    return Opened(train=train, val=val, test=test, classes=_CLASSES, has_masks=True)


def open_original(folder: Path) -> Opened:
    """Open PennFudanPed: PNGImages/ and PedMasks/NAME_mask.png. It has no split; see the note."""
    files = paired(list_files(folder / "PNGImages"), list_files(folder / "PedMasks", "_mask.png"))
    parts: Mapping[bool, dict[str, tuple[Path, Path]]] = {False: {}, True: {}}
    for name, paths in files.items():
        parts[_is_test(name)][name] = paths
    for is_test, part in parts.items():
        if not part:
            split = "test" if is_test else "train"
            raise damaged(
                f"{len(files)} images, none falls to {split}",
                folder,
                "use lists: docs/reference/layouts.md",
            )
    train, test = (pairs(parts[is_test], NumberedMasks()) for is_test in (False, True))
    note = f"test is {len(test)} of {len(files)} images: sha256 of the name in the lowest 30 %"
    return Opened(train=train, test=test, classes=_CLASSES, has_masks=True, notes=(note,))


def _is_test(name: str) -> bool:
    """Whether an image is a test image, by its name alone, so that adding images moves none."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") < _TEST_SHARE * 2**64
