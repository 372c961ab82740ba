"""Turn encoded bytes into the pixels of a training image: decode, crop, resize, once each.

The crop is torchvision's RandomResizedCrop with open_clip's settings (fraction of the area from
`scale_min` to 1, aspect from 3:4 to 4:3, bicubic), with one difference: the aspect is drawn among
those that fit into the image, where torchvision draws again until one fits. An image too long for
any gets the largest 4:3 crop from its middle, as in torchvision. No flips, because captions say
left and right.

Images are decoded by `curator.core.images`, under its limits, at the smallest size at which the
crop still has as many pixels as requested. That takes half the time, and pixels differ by less than
1 of 255.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from curator.core import images
from pretrain.data.rng import Floats

Pixels = npt.NDArray[np.uint8]

NUM_DRAWS = 4
_ASPECTS = (3 / 4, 4 / 3)
_REDUCTIONS = (1, 2, 4, 8)  # supported by libjpeg; Pillow takes the largest that suffices


class Box(NamedTuple):
    """A rectangle in fractions of the image's width and height, 0 to 1."""

    left: float
    top: float
    right: float
    bottom: float


def random_box(shape: float, draws: Floats, scale_min: float) -> Box:
    """Return the crop of an image of `shape` (width / height); `draws` are NUM_DRAWS in [0, 1)."""
    area_draw, aspect_draw, x_draw, y_draw = draws.tolist()
    area = scale_min + (1 - scale_min) * area_draw
    # A crop of this area spans sqrt(area * aspect / shape) of the width and
    # sqrt(area * shape / aspect) of the height; both are at most 1 for aspects between these two.
    lowest, highest = max(_ASPECTS[0], area * shape), min(_ASPECTS[1], shape / area)
    if lowest <= highest:
        aspect = lowest * (highest / lowest) ** aspect_draw
        across, down = (area * aspect / shape) ** 0.5, (area * shape / aspect) ** 0.5
        left, top = (1 - across) * x_draw, (1 - down) * y_draw
        return Box(left, top, min(1.0, left + across), min(1.0, top + down))
    return middle_box(shape)


def middle_box(shape: float) -> Box:
    """Return the whole image, or its middle, cut to 4:3, if it is longer."""
    aspect = min(max(shape, _ASPECTS[0]), _ASPECTS[1])
    across, down = min(1.0, aspect / shape), min(1.0, shape / aspect)
    left, top = (1 - across) / 2, (1 - down) / 2
    return Box(left, top, left + across, top + down)


def load(data: bytes, side_px: int, box_of: Callable[[float], Box]) -> Pixels:
    """Decode (side_px, side_px, 3) RGB: the part of an image that `box_of` returns for its shape.

    Raises:
        Unusable: the image cannot be decoded.
    """
    return cut(decode(data, side_px, box_of), side_px, box_of)


def decode(data: bytes, side_px: int, box_of: Callable[[float], Box]) -> images.DecodedImage:
    """Decode the image at the size that this crop needs.

    Raises:
        Unusable: the image cannot be decoded.
    """
    return images.decode(data, at_least=lambda info: _needed(info, side_px, box_of))


def serves(decoded: images.DecodedImage, side_px: int, box_of: Callable[[float], Box]) -> bool:
    """Whether `decode` would return the same for this crop."""
    info, reduction = decoded.info, 1
    if info.format == "JPEG" and info.orientation == 1:
        across, down = _needed(info, side_px, box_of)
        scale = min(info.width // across, info.height // down)
        reduction = max((part for part in _REDUCTIONS if part <= scale), default=1)
    return reduction == decoded.reduction


def _needed(
    info: images.ImageInfo, side_px: int, box_of: Callable[[float], Box]
) -> tuple[int, int]:
    box = box_of(info.width / info.height)
    across, down = box.right - box.left, box.bottom - box.top
    return math.ceil(side_px / across), math.ceil(side_px / down)


def cut(decoded: images.DecodedImage, side_px: int, box_of: Callable[[float], Box]) -> Pixels:
    """Like `load`, for an image that was decoded for this crop."""
    box = box_of(decoded.info.width / decoded.info.height)
    width, height = (side / decoded.reduction for side in (decoded.info.width, decoded.info.height))
    part = (box.left * width, box.top * height, box.right * width, box.bottom * height)
    resized = decoded.image.resize((side_px, side_px), Image.Resampling.BICUBIC, box=part)
    return np.asarray(resized)
