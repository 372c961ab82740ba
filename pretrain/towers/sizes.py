"""Any timm net at any size that it can be set to: set up once, before anything is trained.

Three kinds of nets, told apart by what they do, not by their names:

* those that `set_input_size` sets (plain ViTs, Swin, MaxViT, CoAtNet): position embeddings and
  biases are resized; windows of Swin keep their size, as in its own recipe at 512 pixels (Liu et
  al. 2021, UPerNet on ADE20K: windows of 7 on maps of 128);
* those that take any size, or any multiple of their deepest stride (conv nets, most hybrids);
* those that take their own size only: refused, with the sizes that they do take.

Whether a net takes a size is tried with one black image: nets say that they do not in many ways,
and some say nothing and give maps of another size.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from curator.core.errors import UsageError

Size = tuple[int, int]

_OWN_FACTORS = (1, 2)
# What nets raise at a size that they do not take: assertions, shapes that do not fit, tables that
# are too small.
_UNFIT = (AssertionError, RuntimeError, ValueError, LookupError, TypeError)


class Fit(NamedTuple):
    """How images reach a net: as `size`, height and width; `is_fixed`: it takes no other one."""

    size: Size
    is_fixed: bool


def whole_patches(image_px: Size, patch: int) -> Size:
    """(height, width) rounded to whole patches, at least one."""
    height, width = (max(1, round(side / patch)) * patch for side in image_px)
    return height, width


def rounded_up(image_px: Size, step: int) -> Size:
    """The smallest (height, width) around an image that are multiples of `step`."""
    height, width = (math.ceil(side / step) * step for side in image_px)
    return height, width


def fit(net: Any, image_px: Size, name: str) -> Fit:
    """Set a timm net to images of about (height, width) pixels; it is changed.

    A plain ViT is set to the nearest whole number of patches, a pyramid that does not take any size
    to the next larger multiple of its deepest stride.

    Raises:
        UsageError: it cannot be set to that; names sizes that it takes.
    """
    size = target(net, image_px)
    if hasattr(net, "set_input_size"):
        set_size(net, size)
        if _is_plain(net) or takes(net, size):
            return Fit(size, is_fixed=True)
    elif not _is_plain(net) and takes(net, image_px):
        return Fit(image_px, is_fixed=False)
    elif takes(net, size):
        return Fit(size, is_fixed=True)
    raise _refused(net, image_px, name)


def target(net: Any, image_px: Size) -> Size:
    """The size that `fit` sets a net to when it does not take every one."""
    deepest = max(_strides(net))
    return whole_patches(image_px, deepest) if _is_plain(net) else rounded_up(image_px, deepest)


def set_size(net: Any, size: Size) -> None:
    """`set_input_size`, but for windows of Swin: left alone, timm scales them with the image."""
    windows = getattr(net, "_ref_window_sizes", None)
    more = {} if windows is None else {"window_size": windows}
    with warnings.catch_warnings():
        # timm's RegularGridInterpolator indexes with a list, which torch still reads as a tuple:
        # a test holds a resized table against the one that it came from.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"timm\.layers\.interpolate")
        net.set_input_size(img_size=size, **more)


def _strides(net: Any) -> list[int]:
    return [int(level["reduction"]) for level in net.feature_info]


def _is_plain(net: Any) -> bool:
    return len(set(_strides(net))) == 1


def takes(net: Any, size: Size) -> bool:
    """Whether a forward pass goes through, and gives maps as large as the strides say."""
    weight = next(net.parameters())
    with _evaluating(net), torch.no_grad():
        try:
            images = weight.new_zeros(1, 3, *size)
            maps = net.forward_intermediates(images, intermediates_only=True)
        except _UNFIT:
            return False
    # A map may be a cell larger or smaller: some nets round up, MobileViT to whole patches.
    return all(
        abs(side - pixels / stride) <= 1
        for one, stride in zip(maps, _strides(net), strict=True)
        for side, pixels in zip(one.shape[-2:], size, strict=True)
    )


def _refused(net: Any, image_px: Size, name: str) -> UsageError:
    height, width = (int(side) for side in net.default_cfg["input_size"][1:])
    known = []
    if not hasattr(net, "set_input_size"):
        known = [
            f"{n * height}x{n * width}" for n in _OWN_FACTORS if takes(net, (n * height, n * width))
        ]
    return UsageError(
        f"{name} takes no images of {image_px[0]}x{image_px[1]} pixels (height x width)",
        hint=f"it takes {' and '.join(known)}" if known else "use another backbone",
        reason="model.size",
    )


@contextmanager
def _evaluating(net: Any) -> Iterator[None]:
    """The statistics of batch norms must not move."""
    was = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(was)
