"""Open labelled data sets of dense tasks in the form their authors publish: `open_dense`.

Whatever the layout on disk, a task gets a `DenseSet` of three `Split`s of `LabelledImage`s. A new
layout is a function `open(folder) -> Opened` in a file of its own and a row in `LAYOUTS`
(docs/extend/layout.md).

Invariants: opening lists files and reads no pixels. An item is read on access, and the same bytes
give the same arrays in every process. Items are sorted by name. Nothing is skipped silently: an
image without a label, a label of another size or with a value that is not a class, and a truncated
file are errors that name the file, and what a layout leaves out on purpose is counted in
`describe()`. A split can be sent to worker processes.

Torch-free: arrays are numpy's.
"""

from __future__ import annotations

import hashlib
import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, overload

import numpy as np

from curator.core.errors import CuratorError, UsageError, nearest, not_there
from curator.core.registry import Registry, Spec

Array = np.ndarray[Any, Any]

IGNORE = 255
"""Class number of pixels that are ignored in losses and metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxes:
    """The objects of one image.

    Attributes:
        boxes: (n, 4) float32, x0, y0, x1, y1 in pixels, ends excluded; no box is empty.
        labels: (n,) int64; label k is `DenseSet.classes[k - 1]`, 0 is the background.
        masks: (n, H, W) bool, or None when the data set has boxes only (`DenseSet.has_masks`).
        crowd: (n,) bool, one box around many objects (COCO's iscrowd): not used in training
            (`without_crowd`); in evaluation, detections on it are ignored.
    """

    boxes: Array
    labels: Array
    masks: Array | None
    crowd: Array

    def __len__(self) -> int:
        return len(self.labels)

    def without_crowd(self) -> Boxes:
        """Return the objects that a detector is trained on."""
        keep = ~self.crowd
        masks = None if self.masks is None else self.masks[keep]
        return Boxes(
            boxes=self.boxes[keep], labels=self.labels[keep], masks=masks, crowd=self.crowd[keep]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """One labelled image.

    Attributes:
        name: unique within its split.
        image: (H, W, 3) uint8, upright.
        target: segmentation: (H, W) uint8, classes from 0, `IGNORE` = 255; depth: (H, W) float32,
            metres, 0 = no reading (an image may have none at all); detection: `Boxes`.
    """

    name: str
    image: Array
    target: Array | Boxes


@dataclass(frozen=True, slots=True)
class Split(Sequence[LabelledImage]):
    """A sequence of items, read from disk at every access; `names` is sorted and costs nothing.

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
        """Read only the target of an item, objects without masks; faster than the whole item."""
        read: Any = getattr(self.read, "label", None)  # a plain function can only read whole items
        target: Array | Boxes = self.read(name).target if read is None else read(name)
        return target

    def __iter__(self) -> Iterator[LabelledImage]:
        return (self.read(name) for name in self.names)


def no_items() -> Split:
    """Return an empty split, for one that a layout does not have."""
    return Split((), _no_item)


def _no_item(name: str) -> LabelledImage:
    raise KeyError(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The data set that a layout finds in a folder.

    Results are reported on `test`. Without a `val`, options are chosen on a part of `train`.

    Attributes:
        classes: names, by class number (segmentation) or by label - 1 (detection); () for depth.
        has_masks: whether the objects of a detection set have masks.
        notes: what a reader of the numbers should know, e.g. how it was split, what was left out.
        depth_m: nearest and farthest metres, to which predictions are clamped, if the data set has
            its own limits.
    """

    train: Split
    test: Split
    val: Split = field(default_factory=no_items)
    classes: tuple[str, ...] = ()
    has_masks: bool = False
    notes: tuple[str, ...] = ()
    depth_m: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseSet(Opened):
    """A labelled data set, with its origin.

    Attributes:
        labels: its kind of labels, one of `LABELS`.
        layout: the name of its layout in `LAYOUTS`.
        warnings: findings of `finetune.labels`: sentences for the top of a report.
        depth_m: as in `Opened`; `finetune.labels` fills it in if the set has no limits.
        seen: cached statistics of labels, by reader; see `finetune.labels`.
    """

    labels: str
    layout: str
    folder: Path
    warnings: tuple[str, ...] = ()
    seen: dict[int, tuple[object, dict[str, Array]]] = field(
        default_factory=dict, compare=False, repr=False
    )

    def describe(self) -> dict[str, object]:
        """Return facts for a report: names, counts, classes, the first image. Reads that image.

        They enter the digests of a study's cells, so keys without new information are left out.
        """
        first = self.train[0]
        height, width = first.image.shape[:2]
        found: dict[str, object] = {
            "task": self.labels,  # the key's name is part of the digests of cells
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


LABELS = ("segmentation", "depth", "detection")
"""The kinds of labels, each named after its first task: a class number per pixel, metres per
pixel, objects. Several tasks can share a kind (`finetune.tasks.TaskSpec.labels`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout(Spec):
    """How a layout is recognised and read: `target` is a function folder -> `Opened`.

    `needs` are glob patterns, each of which must match a path in the folder. `tiny` is a function
    that fills an empty folder with a set of at least two training images and one test image.
    """

    needs: tuple[str, ...]


LAYOUTS: Mapping[str, Registry[Layout]] = {
    "segmentation": Registry(
        "layout",
        {
            "ade20k": Layout(
                "finetune.layouts.segmentation:open_ade20k",
                needs=(
                    "images/training/*",
                    "annotations/training/*.png",
                    "images/validation/*",
                    "annotations/validation/*.png",
                ),
                tiny="tests.kit.layouts:make_ade20k",
            ),
            "voc": Layout(
                "finetune.layouts.segmentation:open_voc",
                needs=(
                    "JPEGImages/*",
                    "SegmentationClass/*.png",
                    "ImageSets/Segmentation/train.txt",
                    "ImageSets/Segmentation/val.txt",
                ),
                tiny="tests.kit.layouts:make_voc",
            ),
            "camvid": Layout(
                "finetune.layouts.segmentation:open_camvid",
                needs=(
                    "classes.txt",
                    "train/images/*",
                    "train/labels/*.png",
                    "test/images/*",
                    "test/labels/*.png",
                ),
                tiny="tests.kit.layouts:make_camvid",
            ),
            "cityscapes": Layout(
                "finetune.layouts.segmentation:open_cityscapes",
                needs=(
                    "leftImg8bit/train/*/*_leftImg8bit.png",
                    "leftImg8bit/val/*/*_leftImg8bit.png",
                    "gtFine/train/*/*_gtFine_label*Ids.png",
                    "gtFine/val/*/*_gtFine_label*Ids.png",
                ),
                tiny="tests.kit.layouts:make_cityscapes",
            ),
        },
    ),
    "depth": Registry(
        "layout",
        {
            "nyuv2": Layout(
                "finetune.layouts.depth:open_nyuv2",
                needs=("train/rgb/*", "train/depth/*.png", "test/rgb/*", "test/depth/*.png"),
                tiny="tests.kit.layouts:make_nyuv2",
            ),
            "nyuv2-lists": Layout(
                "finetune.layouts.depth:open_nyuv2_lists",
                needs=("nyudepthv2_train_files_with_gt.txt", "nyudepthv2_test_files_with_gt.txt"),
                tiny="tests.kit.layouts:make_nyuv2_lists",
            ),
            "nyuv2-mat": Layout(
                "finetune.layouts.nyuv2_mat:open_nyuv2_mat",
                needs=("nyu_depth_v2_labeled.mat", "splits.mat"),
                tiny="tests.kit.layouts:make_nyuv2_mat",
            ),
            "rgbd": Layout(
                "finetune.layouts.depth:open_rgbd",
                needs=("rgb/*", "depth/*.png", "train.txt", "test.txt"),
                tiny="tests.kit.layouts:make_rgbd",
            ),
            "7scenes": Layout(
                "finetune.layouts.depth:open_7scenes",
                needs=(
                    "TrainSplit.txt",
                    "TestSplit.txt",
                    "seq-*/frame-*.color.png",
                    "seq-*/frame-*.depth.png",
                ),
                tiny="tests.kit.layouts:make_7scenes",
            ),
        },
    ),
    "detection": Registry(
        "layout",
        {
            "coco": Layout(
                "finetune.layouts.coco:open_coco",
                needs=(
                    "annotations/instances_train2017.json",
                    "annotations/instances_val2017.json",
                    "train2017/*",
                    "val2017/*",
                ),
                tiny="tests.kit.layouts:make_coco",
            ),
            "coco-flat": Layout(
                "finetune.layouts.coco:open_coco_flat",
                needs=("images/*", "train.json", "test.json"),
                tiny="tests.kit.layouts:make_coco_flat",
            ),
            "pennfudan": Layout(
                "finetune.layouts.pennfudan:open_pennfudan",
                needs=("images/*", "masks/*.png", "train.txt", "test.txt"),
                tiny="tests.kit.layouts:make_pennfudan",
            ),
            "pennfudan-original": Layout(
                "finetune.layouts.pennfudan:open_original",
                needs=("PNGImages/*", "PedMasks/*_mask.png"),
                tiny="tests.kit.layouts:make_pennfudan_original",
            ),
        },
    ),
}


def open_dense(labels: str, folder: Path, layout: str | None = None) -> DenseSet:
    """Open the labelled data set in a folder; without `layout`, the layout is recognised.

    Raises:
        UsageError: unknown kind of labels or layout; a folder that fits no layout (says what is
            missing for each) or more than one; an opener that cannot be called with a folder,
            raises, or does not return `Opened`.
        NotFoundError: the folder does not exist.
        DamageError: a list or label file names a missing file, or cannot be read.
    """
    name = find_layout(labels, folder, layout)
    opened = _open(LAYOUTS[labels], name, folder)
    values = {one.name: getattr(opened, one.name) for one in fields(Opened)}
    return DenseSet(labels=labels, layout=name, folder=folder, **values)


def find_layout(labels: str, folder: Path, layout: str | None = None) -> str:
    """Return the layout that `open_dense` uses; opens no file. Raises as `open_dense`."""
    if labels not in LAYOUTS:
        raise UsageError(
            f"unknown kind of labels {labels!r}", hint=nearest(labels, LAYOUTS), reason="dense.task"
        )
    table = LAYOUTS[labels]
    if layout is not None and layout not in table.rows:
        raise UsageError(
            f"unknown layout {layout!r} of {labels}",
            hint=nearest(layout, table.rows),
            reason="dense.layout",
        )
    if not folder.is_dir():
        raise not_there("folder", folder, reason="dense.folder")
    name = _recognised(labels, folder) if layout is None else layout
    if missing := _missing(table.rows[name], folder):
        raise _not_that(labels, folder, {name: missing})
    return name


def _open(table: Registry[Layout], name: str, folder: Path) -> Opened:
    """Call the function of a layout. What it gets wrong names the row, the file and the call."""
    function, target = table.get(name), table.rows[name].target
    problem: str | None = None
    where: str | None = None
    cause: Exception | None = None
    try:
        inspect.signature(function).bind(folder)
    except TypeError as error:
        problem, cause = f"cannot be called with a folder ({error})", error
    except ValueError:
        pass  # built in C: it has no signature to read
    if problem is None:
        try:
            opened = function(folder)
        except (CuratorError, OSError, MemoryError):
            raise
        except Exception as error:
            if target.startswith("finetune."):
                raise  # a bug of this tool, not of a row that somebody added
            last = traceback.extract_tb(error.__traceback__)[-1]
            problem, cause = f"raises {type(error).__name__}: {error}", error
            where = f"{last.filename}:{last.lineno}"
        else:
            if isinstance(opened, Opened):
                return opened
            problem = f"gives {type(opened).__name__}"
    code = getattr(function, "__code__", None)
    raise UsageError(
        f"layout {name!r}: {target} {problem}",
        where=where or (code and f"{code.co_filename}:{code.co_firstlineno}"),
        hint="its row must name a function `open(folder)` that returns finetune.layouts.Opened "
        "(docs/extend/layout.md)",
        reason="layout.contract",
    ) from cause


def take_fraction(split: Split, fraction: float, seed: int) -> Split:
    """Return a fraction of a split, rounded to whole items, at least one.

    Fractions of one seed are nested: the 1 % is a subset of the 10 %. The rank of an item depends
    only on the seed and its name, so adding an image displaces at most one other.

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


def _recognised(labels: str, folder: Path) -> str:
    missing = {name: _missing(layout, folder) for name, layout in LAYOUTS[labels].rows.items()}
    found = [name for name, lacks in missing.items() if not lacks]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"more than one layout of {labels} fits: {', '.join(found)}",
            where=folder,
            hint="name the one that is meant",
            reason="dense.layout",
        )
    raise _not_that(labels, folder, missing)


def _missing(layout: Layout, folder: Path) -> list[str]:
    return [need for need in layout.needs if next(folder.glob(need), None) is None]


def _not_that(labels: str, folder: Path, missing: Mapping[str, Sequence[str]]) -> UsageError:
    """Return an error with what each layout lacks, and the subfolder that would fit, if any."""
    told = "; ".join(f"{name} needs {', '.join(lacks)}" for name, lacks in missing.items())
    below = next(
        (
            child
            for child in sorted(folder.glob("*/"))
            for name in missing
            if not _missing(LAYOUTS[labels].rows[name], child)
        ),
        None,
    )
    return UsageError(
        f"no {labels} data set of layout {' or '.join(missing)}",
        where=folder,
        did=f"not found here: {told}",
        hint="docs/reference/layouts.md shows every layout"
        if below is None
        else f"did you mean {below}?",
        reason="dense.layout",
    )
