"""Draw masks of objects from COCO's polygons and run lengths.

Polygons are drawn by pycocotools. Run lengths are unpacked here, because pycocotools reads beyond
its buffer if they do not add up to the image.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pycocotools import mask as coco_mask
from pydantic import Field, FiniteFloat
from typing_extensions import TypedDict

from finetune.layouts import Array
from finetune.layouts.files import Size

MIN_POINTS = 6
"""Length of the smallest polygon: x and y of three corners."""


class Runs(TypedDict):
    """Run lengths down the columns, the first one background; a string is COCO's packed form."""

    size: Annotated[list[int], Field(min_length=2, max_length=2)]
    counts: str | list[int]


Shape = list[list[FiniteFloat]] | Runs


def draw(shape: Shape, size: Size) -> Array:
    """Draw the (H, W) bool mask of one object.

    Raises:
        ValueError: the shape does not fit an image of this size.
    """
    if isinstance(shape, dict):
        return _unpack(shape, size)
    height, width = size
    for corners in shape:
        if len(corners) % 2 or len(corners) < MIN_POINTS:
            raise ValueError(f"a polygon of {len(corners)} numbers, wanted: x, y of 3 or more")
        for values, side in ((corners[::2], width), (corners[1::2], height)):
            # pycocotools walks along every edge; with far corners that would take forever.
            if min(values) < -side or max(values) > 2 * side:
                raise ValueError(f"a corner at {min(values)} to {max(values)}, {side} px there")
    drawn = coco_mask.merge(coco_mask.frPyObjects(shape, height, width))
    return _unpack({"size": drawn["size"], "counts": drawn["counts"].decode()}, size)


def _unpack(runs: Runs, size: Size) -> Array:
    if tuple(runs["size"]) != size:
        raise ValueError(f"runs for {runs['size']}, the image is {list(size)}")
    counts = runs["counts"]
    lengths = _lengths(counts) if isinstance(counts, str) else counts
    if min(lengths, default=0) < 0 or sum(lengths) != size[0] * size[1]:
        raise ValueError(f"runs of {sum(lengths)} pixels, the image has {size[0] * size[1]}")
    inside = np.arange(len(lengths)) % 2 == 1
    mask_WH: Array = np.repeat(inside, lengths).reshape(size[::-1])
    return np.ascontiguousarray(mask_WH.T)


def _lengths(packed: str) -> list[int]:
    """Decode packed run lengths: five bits per character, low ones first, signed; from the third
    run on, the difference to the run two before (cocoapi, maskApi.c: rleFrString)."""
    lengths: list[int] = []
    value = shift = 0
    for character in packed:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:  # noqa: PLR2004 - six bits; 2^30 pixels and more
            raise ValueError(f"packed runs with {character!r}")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:  # more of this number follows
            continue
        if bits & 16:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))  # noqa: PLR2004 - see above
        value = shift = 0
    if shift:
        raise ValueError("packed runs that end inside a number")
    return lengths


def outline(masks_NHW: Array) -> Array:
    """Return the boxes around non-empty masks: (n, 4) float32, ends excluded."""
    boxes = np.zeros((len(masks_NHW), 4), np.float32)
    for box, mask_HW in zip(boxes, masks_NHW, strict=True):
        xs, ys = (np.flatnonzero(mask_HW.any(axis)) for axis in (0, 1))
        box[:] = xs[0], ys[0], xs[-1] + 1, ys[-1] + 1
    return boxes
