"""Masks beside their images: train/NAME.jpg and train/NAME_mask.png, and the same for test.

A mask is 255 where the object is and 0 elsewhere, as data sets of salient objects have it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from finetune.layouts import Array, Opened
from finetune.layouts.files import Size, damaged, list_files, paired, pairs, read_numbers


def open_beside(folder: Path) -> Opened:
    """List the files of both splits; no pixel is read yet."""
    train, test = (
        pairs(
            paired(list_files(folder / split, ".jpg"), list_files(folder / split, "_mask.png")),
            read_mask,
        )
        for split in ("train", "test")
    )
    return Opened(train=train, test=test, classes=("background", "object"))


def read_mask(path: Path, size: Size) -> Array:
    """0 and 255 -> the classes 0 and 1. Every other number is an error that names the file."""
    stored_HW = read_numbers(path, size, 8)
    if not np.isin(stored_HW, (0, 255)).all():
        raise damaged("a mask with other numbers", path, "0: background, 255: object")
    return (stored_HW == 255).astype(np.uint8)  # noqa: PLR2004 - what masks are made of


def fill(folder: Path) -> None:
    """For the contract tests: two images to train on, one to test."""
    from tests.kit.layouts import label, picture

    for name in ("train/a", "train/b", "test/c"):
        picture(folder / f"{name}.jpg")
        label(folder / f"{name}_mask.png", [[0, 0, 0, 255, 255, 255]] * 4)
