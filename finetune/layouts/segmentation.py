"""Read a class number per pixel: ADE20K, Pascal VOC, CamVid and plain folders, Cityscapes.

Each layout has a table from stored numbers to classes, with `IGNORE` for pixels that are not
counted. A number that is not in the table is an error that names the file, because training on
colours, or on labels of another set, would otherwise go unnoticed.

If the authors do not publish the labels of their test split (ADE20K, VOC, Cityscapes), the
validation split is reported as `test`, and options are chosen on a part of train.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finetune.layouts import IGNORE, Array, Opened, Split
from finetune.layouts.files import (
    Size,
    check_apart,
    choose,
    damaged,
    list_files,
    paired,
    pairs,
    read_lines,
    read_numbers,
    splits_by_folder,
)

_MAX_CLASSES = 255
_VOID = re.compile(r"void|ignore|unlabel+ed", re.IGNORECASE)

VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa",
    "train", "tv monitor",
)  # fmt: skip

# Stored number of gtFine_labelIds -> class; the rest of the 34 numbers are not evaluated.
CITYSCAPES_CLASSES = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole",
    19: "traffic light", 20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky",
    24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train", 32: "motorcycle",
    33: "bicycle",
}  # fmt: skip
_CITYSCAPES_NUMBERS = 34
_ADE20K_CLASSES = 150


@dataclass(frozen=True, slots=True)
class Numbers:
    """Stored number -> class number. Only numbers in `classes` and `ignored` are allowed."""

    classes: Mapping[int, int]
    ignored: frozenset[int]

    def __call__(self, path: Path, size: Size) -> Array:
        """Read the label file as (H, W) uint8."""
        stored_HW = read_numbers(path, size, 8)
        present = np.flatnonzero(np.bincount(stored_HW.ravel(), minlength=256))
        unknown = [n for n in present.tolist() if n not in self.classes and n not in self.ignored]
        if unknown:
            raise damaged(
                f"the numbers {', '.join(map(str, unknown[:5]))} are not classes",
                path,
                f"allowed: {_ranges(self.classes)}; ignored: {_ranges(self.ignored)}",
            )
        table = np.full(256, IGNORE, np.uint8)
        table[list(self.classes)] = list(self.classes.values())
        mapped_HW: Array = table[stored_HW]
        return mapped_HW


def _ranges(numbers: Mapping[int, int] | frozenset[int]) -> str:
    """Format numbers as ranges: `0-10, 255`."""
    known = sorted(numbers)
    starts = [n for n in known if n - 1 not in numbers]
    ends = [n for n in known if n + 1 not in numbers]
    return ", ".join(
        f"{start}" if start == end else f"{start}-{end}"
        for start, end in zip(starts, ends, strict=True)
    )


def _straight(count: int, ignored: frozenset[int], first: int = 0) -> Numbers:
    """Return the table in which `first` is class 0, the next number class 1, and so on."""
    return Numbers({first + n: n for n in range(count)}, ignored)


# -- CamVid, and any folders of images and labels ------------------------------------------------


def open_camvid(folder: Path) -> Opened:
    """Open {train,val,test}/{images,labels} and classes.txt.

    A line of classes.txt is a name, or a number and a name; a last line `void` is not a class. The
    number after the last class, and 255, are ignored.
    """
    classes = _named_classes(folder / "classes.txt")
    read = _straight(len(classes), frozenset((len(classes), IGNORE)))
    splits = splits_by_folder(folder, "images", "labels", read)
    return Opened(
        classes=classes,
        train=splits.train,
        val=splits.val,
        test=splits.test,
    )


def _named_classes(path: Path) -> tuple[str, ...]:
    lines = read_lines(path)
    numbered = [re.fullmatch(r"(\d+)[\s,:]+(\S.*)", line) for line in lines]
    names = lines
    if all(numbered):
        found = [(int(line[1]), line[2]) for line in numbered if line]
        if [number for number, _ in found] != list(range(len(found))):
            raise damaged("numbers that do not count up from 0", path, "a class a line, in order")
        names = [name for _, name in found]
    if _VOID.fullmatch(names[-1]):
        names = names[:-1]
    if not 1 < len(names) <= _MAX_CLASSES:
        raise damaged(f"{len(names)} classes", path, f"allowed: 2 to {_MAX_CLASSES}")
    return tuple(names)


# -- sets of fixed classes -------------------------------------------------------------------------


def open_ade20k(folder: Path) -> Opened:
    """Open ADEChallengeData2016: images/ and annotations/ with training/ and validation/.

    The stored numbers 1 to 150 are the classes, 0 is ignored. Test is validation.
    """
    read = _straight(_ADE20K_CLASSES, frozenset((0,)), first=1)
    train, test = (
        pairs(
            paired(
                list_files(folder / "images" / split),
                list_files(folder / "annotations" / split, ".png"),
            ),
            read,
        )
        for split in ("training", "validation")
    )
    return Opened(
        classes=_ade20k_classes(folder / "objectInfo150.txt"),
        train=train,
        test=test,
        notes=("test is the validation split",),
    )


def _ade20k_classes(path: Path) -> tuple[str, ...]:
    """Return the first synonym of each class, or numbers if the list is missing."""
    if not path.exists():
        return tuple(f"class {n}" for n in range(1, _ADE20K_CLASSES + 1))
    # A header line, then lines of index, three counts, names.
    rows = [re.fullmatch(r"(\d+)\s.*?\t\s*([^\t]+)", line) for line in read_lines(path)]
    names = [re.split("[,;]", row[2])[0].strip() for row in rows if row]
    numbers = [int(row[1]) for row in rows if row]
    if numbers != list(range(1, _ADE20K_CLASSES + 1)):
        raise damaged(
            f"{len(numbers)} classes", path, "wanted: 1 to 150 in order, columns apart by tabs"
        )
    return tuple(names)


def open_voc(folder: Path) -> Opened:
    """Open VOC2012: the lists ImageSets/Segmentation/{train,val}.txt, palette PNGs. Test is val."""
    images = list_files(folder / "JPEGImages")
    labels = list_files(folder / "SegmentationClass", ".png")
    read = _straight(len(VOC_CLASSES), frozenset((IGNORE,)))
    train, test = (
        pairs(choose(folder / "ImageSets" / "Segmentation" / f"{split}.txt", images, labels), read)
        for split in ("train", "val")
    )
    check_apart(train=train, test=test, where=folder)
    return Opened(
        classes=VOC_CLASSES,
        train=train,
        test=test,
        notes=("test is the val split",),
    )


def open_cityscapes(folder: Path) -> Opened:
    """Open leftImg8bit/ and gtFine/ with {train,val}/CITY; the 19 evaluated classes. Test is val.

    Reads *_gtFine_labelIds.png, or *_gtFine_labelTrainIds.png in a split without those.
    """
    train, test = (_cityscapes_split(folder, split) for split in ("train", "val"))
    return Opened(
        classes=tuple(CITYSCAPES_CLASSES.values()),
        train=train,
        test=test,
        notes=("test is the val split",),
    )


def _cityscapes_split(folder: Path, split: str) -> Split:
    images = list_files(folder / "leftImg8bit" / split, "_leftImg8bit.png", pattern="*/*.png")
    labels = folder / "gtFine" / split
    suffix, read = "_gtFine_labelIds.png", _CITYSCAPES_IDS
    if next(labels.glob(f"*/*{suffix}"), None) is None:
        suffix = "_gtFine_labelTrainIds.png"
        read = _straight(len(CITYSCAPES_CLASSES), frozenset((IGNORE,)))
    return pairs(paired(images, list_files(labels, suffix, pattern="*/*.png")), read)


_CITYSCAPES_IDS = Numbers(
    {stored: number for number, stored in enumerate(CITYSCAPES_CLASSES)},
    frozenset(range(_CITYSCAPES_NUMBERS)) - CITYSCAPES_CLASSES.keys(),
)
