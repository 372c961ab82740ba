"""Examine all labels of a data set before a model is loaded.

A statistic of a data set is computed from every label, never from the first ones: sets are sorted
by scene, and the first scene does not represent the set. `examined` reads the labels of train and
test once, without their images, in a few threads, and keeps one small row of each. So memory does
not depend on the size of the images, and cells of other fractions and seeds read nothing again.

Data sets without a meaningful score are refused: those without any label, or with one class or
depth everywhere, which a constant prediction gets right. What a reader of the numbers must know is
added to `DenseSet.warnings`, and appears in results and reports.

Torch-free.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from curator.core.errors import UsageError
from curator.core.progress import bar
from curator.core.stopping import StopRequest
from finetune.layouts import IGNORE, Array, Boxes, DenseSet, Split

_THREADS = 4
_CHUNK = 64
_MAX_NAMES = 5
_MIN_CLASSES = 2

_WANTED = {
    "segmentation": "a labelled pixel",
    "depth": "a depth reading",
    "detection": "an object that can be found",
}


def examined(data: DenseSet, stop: StopRequest | None = None) -> DenseSet:
    """Read all labels; return the data set with its `warnings` and, for depth, its `depth_m`.

    Raises:
        UsageError: train or test has no label, or all of it is one class; train has one depth.
        DamageError: a label cannot be read, or contains a number that is not a class.
    """
    for split, what in ((data.train, "training"), (data.test, "test")):
        require_told_apart(data, split, what, stop)
    if data.labels == "depth":
        nearest, farthest = depth_range(data, stop)
        if nearest == farthest:
            raise UsageError(
                f"every depth reading of the training images is {nearest:g} m",
                where=data.folder,
                did="any backbone would predict only this value",
                hint="give labels of at least two depths",
                reason="dense.one_class",
            )
        return replace(data, depth_m=(nearest, farthest))
    in_train, in_test = (_occurring(data, split, stop) for split in (data.train, data.test))
    return replace(data, warnings=tuple(_absences(data, in_train, in_test)))


def require_labels(
    data: DenseSet, split: Split, what: str, stop: StopRequest | None = None
) -> None:
    """Refuse a split, or a part of one, without any label to learn from or to evaluate on.

    Raises:
        UsageError: no image has a label; `what` is the word for an image in the message.
    """
    found = _rows(data, split, stop)
    if data.labels == "depth":
        has_any = any(row[0] > 0 for row in found)
    else:
        has_any = any(row[: len(data.classes)].any() for row in found)
    if not has_any:
        raise UsageError(
            f"no {what} has {_WANTED[data.labels]} ({len(split):,} looked at)",
            where=data.folder,
            did="; ".join(data.notes) or None,
            hint=_HINTS[data.labels],
            reason="dense.empty",
        )


def require_told_apart(
    data: DenseSet, split: Split, what: str, stop: StopRequest | None = None
) -> None:
    """Refuse a split without labels, or with one class only.

    Raises:
        UsageError: as said; `what` is the word for its images in the message.
    """
    require_labels(data, split, f"{what} image", stop)
    if data.labels == "segmentation":
        _require_classes(data, _occurring(data, split, stop), what)


_HINTS = {
    "segmentation": f"pixels of {IGNORE}, and of what the layout ignores, count neither way; "
    "see docs/reference/layouts.md",
    "depth": "0 and 65535 mean no reading; see docs/reference/layouts.md",
    "detection": "crowds and boxes that cover nothing are not looked for; "
    "see docs/reference/layouts.md",
}


# -- depth -----------------------------------------------------------------------------------------


def depth_range(data: DenseSet, stop: StopRequest | None = None) -> tuple[float, float]:
    """Return the nearest and farthest metres that may be predicted, for any fraction of the labels.

    They are the data set's own limits if it has some, else those of all its training labels.

    Raises:
        UsageError: there is no depth reading.
    """
    if data.depth_m is not None:
        return data.depth_m
    require_labels(data, data.train, "training image", stop)
    found = np.array(_rows(data, data.train, stop))
    # Round to float32, the type of a label: exp(log(x)) differs from x in the last digit.
    nearest, farthest = np.exp([found[:, 3].min(), found[:, 4].max()])
    return float(np.float32(nearest)), float(np.float32(farthest))


def log_depth_moments(data: DenseSet, train: Split) -> tuple[float, float]:
    """Return mean and standard deviation of log metres over all readings of the training images.

    Raises:
        UsageError: there is no depth reading.
    """
    require_labels(data, train, "training image")
    count, total, squares = np.array(_rows(data, train, None))[:, :3].sum(0)
    mean = total / count
    return float(mean), math.sqrt(max(0.0, float(squares / count - mean**2)))


# -- classes ---------------------------------------------------------------------------------------


def _occurring(data: DenseSet, split: Split, stop: StopRequest | None) -> Array:
    """Return (K + 1,) bool: which classes occur in a split, and whether any pixel is ignored."""
    found: Array = np.logical_or.reduce(_rows(data, split, stop))
    return found


def _require_classes(data: DenseSet, found: Array, what: str) -> None:
    present = [name for name, is_there in zip(data.classes, found, strict=False) if is_there]
    if len(present) >= _MIN_CLASSES:
        return
    absent = [name for name in data.classes if name not in present]
    raise UsageError(
        f"every labelled pixel of the {what} images is {present[0]!r}",
        where=data.folder,
        did=f"in no {what} label: {_listed(absent)}; always predicting {present[0]!r} is right",
        hint=_ignored_hint(found) or "give labels of at least two classes",
        reason="dense.one_class",
    )


def _ignored_hint(found: Array) -> str:
    if not found[-1]:
        return ""
    return (
        f"{IGNORE} means ignored: in a mask of 0 and {IGNORE}, store the second class as 1 "
        "(docs/reference/layouts.md)"
    )


def _absences(data: DenseSet, in_train: Array, in_test: Array) -> Iterator[str]:
    count = len(data.classes)
    for found, what, so in (
        (in_train, "training", "nothing can be learnt about"),
        (in_test, "test", "left out of the mean over classes"),
    ):
        absent = [name for name, is_there in zip(data.classes, found, strict=False) if not is_there]
        if not absent:
            continue
        number = "1 class occurs" if len(absent) == 1 else f"{len(absent)} classes occur"
        said = f"Of {count}, {number} in no {what} label; {so}: {_listed(absent)}."
        hint = _ignored_hint(found) if data.labels == "segmentation" else ""
        yield f"{said} {hint}." if hint else said


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MAX_NAMES
    return ", ".join(names[:_MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


# -- a row a label ---------------------------------------------------------------------------------


def _rows(data: DenseSet, split: Split, stop: StopRequest | None) -> list[Array]:
    """Return the rows that summarise each label of a split, read the first time only.

    Depth: number of readings, sum of their logs, sum of squared logs, smallest and largest log.
    Else (K + 1,) bool: which classes occur (crowds do not count), and whether a pixel is ignored.
    """
    # The reader is kept alive with its rows, so that its id is not reused.
    _, known = data.seen.setdefault(id(split.read), (split.read, {}))
    missing = [name for name in split.names if name not in known]
    if missing:
        with bar("labels", len(missing), "labels") as advance, ThreadPoolExecutor(_THREADS) as pool:
            for start in range(0, len(missing), _CHUNK):
                if stop is not None:
                    stop.check("nothing of this has been written yet")
                names = missing[start : start + _CHUNK]
                known |= zip(
                    names, pool.map(lambda one: _row(data, split, one), names), strict=True
                )
                advance(len(names))
    return [known[name] for name in split.names]


def _row(data: DenseSet, split: Split, name: str) -> Array:
    target = split.label(name)
    occurs = np.zeros(len(data.classes) + 1, bool)
    if isinstance(target, Boxes):
        occurs[target.without_crowd().labels - 1] = True
        return occurs
    if data.labels == "depth":
        logs = np.log(target[target > 0].astype(np.float64))
        if not len(logs):
            return np.array([0, 0, 0, math.inf, -math.inf])
        return np.array([len(logs), logs.sum(), np.square(logs).sum(), logs.min(), logs.max()])
    counts = np.bincount(target.ravel(), minlength=IGNORE + 1)
    occurs[:-1], occurs[-1] = counts[: len(data.classes)] > 0, counts[IGNORE] > 0
    return occurs
