"""Labelled data sets of dense tasks as their authors publish them: `open_dense(task, folder)`.

What a task gets is always a `DenseSet` of three `Split`s of `LabelledImage`s, whatever lies on
disk. A new layout is a function `open(folder) -> DenseSet` in a file of this package and a line in
`LAYOUTS`.

Invariants: opening lists files and reads no pixel; an item is read when it is asked for, the same
bytes to the same arrays in every process; items lie sorted by name. Nothing is skipped silently: an
image without a label, a label of another size or with a value that is no class, a cut file are
errors that name the file, and what a layout leaves out on purpose is counted in `describe()`.
A split can be sent to worker processes.

Torch-free: arrays are numpy's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np

from curator.core.errors import NotFoundError, UsageError, nearest
from curator.core.registry import load

Array = np.ndarray[Any, Any]

IGNORE = 255
"""The class number of pixels that count neither in a loss nor in a metric."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxes:
    """The objects of one picture.

    Attributes:
        boxes: (n, 4) float32, x0, y0, x1, y1 in pixels, ends excluded; none is empty.
        labels: (n,) int64; label k is `DenseSet.classes[k - 1]`, 0 is the background.
        masks: (n, H, W) bool, or None when the data set has boxes only (`DenseSet.has_masks`).
        crowd: (n,) bool, one box around many objects (COCO's iscrowd): not for training
            (`without_crowd`), and in evaluation what lies on it counts neither way.
    """

    boxes: Array
    labels: Array
    masks: Array | None
    crowd: Array

    def __len__(self) -> int:
        return len(self.labels)

    def without_crowd(self) -> Boxes:
        """What a detector is trained on."""
        keep = ~self.crowd
        masks = None if self.masks is None else self.masks[keep]
        return Boxes(
            boxes=self.boxes[keep], labels=self.labels[keep], masks=masks, crowd=self.crowd[keep]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """One labelled picture.

    Attributes:
        name: unique within its split.
        image: (H, W, 3) uint8, upright.
        target: segmentation: (H, W) uint8, classes from 0, `IGNORE` = 255; depth: (H, W) float32,
            metres, 0 = no reading (a picture may have none at all); detection: `Boxes`.
    """

    name: str
    image: Array
    target: Array | Boxes


@dataclass(frozen=True, slots=True)
class Split(Sequence[LabelledImage]):
    """Items by place, read from disk at every access; `names` is sorted and costs nothing.

    A slice is a Split.

    Raises:
        DamageError: while reading an item; names the file, what was found and what is allowed.
    """

    names: tuple[str, ...]
    read: Callable[[str], LabelledImage]

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, place: int) -> LabelledImage: ...
    @overload
    def __getitem__(self, place: slice) -> Split: ...
    def __getitem__(self, place: int | slice) -> LabelledImage | Split:
        if isinstance(place, slice):
            return Split(self.names[place], self.read)
        return self.read(self.names[place])

    def label(self, name: str) -> Array | Boxes:
        """The target of an item without its picture, and objects without their masks: quick."""
        read: Any = getattr(self.read, "label", None)  # a plain function reads whole items only
        target: Array | Boxes = self.read(name).target if read is None else read(name)
        return target

    def __iter__(self) -> Iterator[LabelledImage]:
        return (self.read(name) for name in self.names)


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseSet:
    """A labelled data set. `val` is empty when the layout has none; `test` is what is reported.

    Attributes:
        classes: names, by class number (segmentation) or by label - 1 (detection); () for depth.
        has_masks: whether the objects of a detection set carry masks.
        notes: what a reader of the numbers should know: how it was split, what was left out.
        warnings: what `finetune.labels` found: sentences for the top of a report.
        depth_m: the nearest and farthest metres that predictions are kept within; None before
            `finetune.labels` looked, where the data set has no limits of its own.
        seen: what is remembered of labels that were read, by reader; see `finetune.labels`.
    """

    task: str
    layout: str
    folder: Path
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    has_masks: bool = False
    notes: tuple[str, ...] = field(default=())
    warnings: tuple[str, ...] = field(default=())
    depth_m: tuple[float, float] | None = None
    seen: dict[int, tuple[object, dict[str, Array]]] = field(
        default_factory=dict, compare=False, repr=False
    )

    def describe(self) -> dict[str, object]:
        """Facts for a report: names, counts, classes, the first picture. Reads that picture.

        A study tells its cells apart by them, so a key that says nothing new is left out.
        """
        first = self.train[0]
        height, width = first.image.shape[:2]
        found: dict[str, object] = {
            "task": self.task,
            "layout": self.layout,
            "folder": self.folder.name,
            "classes": list(self.classes),
            "num_train": len(self.train),
            "num_val": len(self.val),
            "num_test": len(self.test),
            "has_masks": self.has_masks,
            "first": {"name": first.name, "width": width, "height": height},
            "notes": list(self.notes),
        }
        if self.warnings:
            found["warnings"] = list(self.warnings)
        if self.depth_m is not None:
            found["depth_m"] = list(self.depth_m)
        return found


class Layout(NamedTuple):
    """How a layout is recognised and read.

    `needs` are glob patterns, each of which must match something below the folder; `target` is a
    function folder -> DenseSet as `curator.core.registry.load` takes it.
    """

    target: str
    needs: tuple[str, ...]


LAYOUTS: Mapping[str, Mapping[str, Layout]] = {
    "segmentation": {
        "ade20k": Layout(
            "finetune.layouts.segmentation:open_ade20k",
            (
                "images/training/*",
                "annotations/training/*.png",
                "images/validation/*",
                "annotations/validation/*.png",
            ),
        ),
        "voc": Layout(
            "finetune.layouts.segmentation:open_voc",
            (
                "JPEGImages/*",
                "SegmentationClass/*.png",
                "ImageSets/Segmentation/train.txt",
                "ImageSets/Segmentation/val.txt",
            ),
        ),
        "camvid": Layout(
            "finetune.layouts.segmentation:open_camvid",
            (
                "classes.txt",
                "train/images/*",
                "train/labels/*.png",
                "test/images/*",
                "test/labels/*.png",
            ),
        ),
        "cityscapes": Layout(
            "finetune.layouts.segmentation:open_cityscapes",
            (
                "leftImg8bit/train/*/*_leftImg8bit.png",
                "leftImg8bit/val/*/*_leftImg8bit.png",
                "gtFine/train/*/*_gtFine_label*Ids.png",
                "gtFine/val/*/*_gtFine_label*Ids.png",
            ),
        ),
    },
    "depth": {
        "nyuv2": Layout(
            "finetune.layouts.depth:open_nyuv2",
            ("train/rgb/*", "train/depth/*.png", "test/rgb/*", "test/depth/*.png"),
        ),
        "nyuv2-lists": Layout(
            "finetune.layouts.depth:open_nyuv2_lists",
            ("nyudepthv2_train_files_with_gt.txt", "nyudepthv2_test_files_with_gt.txt"),
        ),
        "nyuv2-mat": Layout(
            "finetune.layouts.nyuv2_mat:open_nyuv2_mat",
            ("nyu_depth_v2_labeled.mat", "splits.mat"),
        ),
        "rgbd": Layout(
            "finetune.layouts.depth:open_rgbd",
            ("rgb/*", "depth/*.png", "train.txt", "test.txt"),
        ),
        "7scenes": Layout(
            "finetune.layouts.depth:open_7scenes",
            (
                "TrainSplit.txt",
                "TestSplit.txt",
                "seq-*/frame-*.color.png",
                "seq-*/frame-*.depth.png",
            ),
        ),
    },
    "detection": {
        "coco": Layout(
            "finetune.layouts.coco:open_coco",
            (
                "annotations/instances_train2017.json",
                "annotations/instances_val2017.json",
                "train2017/*",
                "val2017/*",
            ),
        ),
        "coco-flat": Layout(
            "finetune.layouts.coco:open_coco_flat",
            ("images/*", "train.json", "test.json"),
        ),
        "pennfudan": Layout(
            "finetune.layouts.pennfudan:open_pennfudan",
            ("images/*", "masks/*.png", "train.txt", "test.txt"),
        ),
        "pennfudan-original": Layout(
            "finetune.layouts.pennfudan:open_original",
            ("PNGImages/*", "PedMasks/*_mask.png"),
        ),
    },
}


def open_dense(task: str, folder: Path, layout: str | None = None) -> DenseSet:
    """The labelled data set in a folder; the layout is recognised unless it is named.

    Raises:
        UsageError: an unknown task or layout; a folder of none of the task's layouts (says what
            each of them wants and what is missing) or of more than one.
        NotFoundError: no such folder.
        DamageError: a list or label file names what is not there, or cannot be read.
    """
    if task not in LAYOUTS:
        raise UsageError(f"unknown task {task!r}", hint=nearest(task, LAYOUTS), reason="dense.task")
    table = LAYOUTS[task]
    if layout is not None and layout not in table:
        raise UsageError(
            f"unknown layout {layout!r} of {task}",
            hint=nearest(layout, table),
            reason="dense.layout",
        )
    if not folder.is_dir():
        raise NotFoundError("no such folder", where=folder, reason="dense.folder")
    name = _recognised(task, folder) if layout is None else layout
    if missing := _missing(table[name], folder):
        raise _not_that(task, folder, {name: missing})
    opened: DenseSet = load(table[name].target)(folder)
    return opened


def take_fraction(split: Split, fraction: float, seed: int) -> Split:
    """A share of a split, rounded to whole items, at least one.

    Nested: 1 % lies within 10 % of the same seed. Whether an item is among the first depends on
    the seed and on its name only, so a picture that is added pushes out at most one other.

    Raises:
        UsageError: `fraction` is not above 0 and at most 1.
    """
    if not 0 < fraction <= 1:
        raise UsageError(
            f"fraction is {fraction}", hint="allowed: above 0, at most 1", reason="option.value"
        )
    count = max(1, round(len(split) * fraction))
    chosen = set(sorted(split.names, key=lambda name: _rank(name, seed))[:count])
    return Split(tuple(name for name in split.names if name in chosen), split.read)


def _rank(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()


# -- which layout it is ----------------------------------------------------------------------------


def _recognised(task: str, folder: Path) -> str:
    missing = {name: _missing(layout, folder) for name, layout in LAYOUTS[task].items()}
    found = [name for name, lacks in missing.items() if not lacks]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"more than one layout of {task} fits: {', '.join(found)}",
            where=folder,
            hint="name the one that is meant",
            reason="dense.layout",
        )
    raise _not_that(task, folder, missing)


def _missing(layout: Layout, folder: Path) -> list[str]:
    return [need for need in layout.needs if next(folder.glob(need), None) is None]


def _not_that(task: str, folder: Path, missing: Mapping[str, Sequence[str]]) -> UsageError:
    """Says what each layout lacks, and names the folder below that would do, if there is one."""
    told = "; ".join(f"{name} needs {', '.join(lacks)}" for name, lacks in missing.items())
    below = next(
        (
            child
            for child in sorted(folder.glob("*/"))
            for name in missing
            if not _missing(LAYOUTS[task][name], child)
        ),
        None,
    )
    return UsageError(
        f"no {task} data set of layout {' or '.join(missing)}",
        where=folder,
        did=f"not found here: {told}",
        hint="docs/reference/layouts.md shows every layout"
        if below is None
        else f"did you mean {below}?",
        reason="dense.layout",
    )
