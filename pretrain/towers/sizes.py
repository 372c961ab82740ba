"""Set a timm net to an image size, once, before training.

Three kinds of nets, recognised by what they do, not by their names:

* nets with `set_input_size` (plain ViTs, Swin, MaxViT, CoAtNet): position embeddings and biases are
  resized; Swin's windows keep their size, as in its own recipe at 512 pixels (Liu et al. 2021,
  UPerNet on ADE20K: windows of 7 on maps of 128);
* nets that take any size, or any multiple of their deepest stride (conv nets, most hybrids);
* nets that take their own size only: other sizes are refused, with the sizes that the net takes.

Whether a net takes a size is tried with one black image, because nets fail in many ways, and some
silently return maps of another size.
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
# Errors that nets raise at a size that they do not take: failed assertions, shapes that do not fit,
# tables that are too small.
_UNFIT = (AssertionError, RuntimeError, ValueError, LookupError, TypeError)


class Fit(NamedTuple):
    """The `size` (height, width) at which images enter a net; `is_fixed`: it takes no other."""

    size: Size
    is_fixed: bool


def whole_patches(image_px: Size, patch: int) -> Size:
    """Round (height, width) to whole patches, at least one."""
    height, width = (max(1, round(side / patch)) * patch for side in image_px)
    return height, width


def rounded_up(image_px: Size, step: int) -> Size:
    """Round (height, width) up to multiples of `step`."""
    height, width = (math.ceil(side / step) * step for side in image_px)
    return height, width


def fit(net: Any, image_px: Size, name: str) -> Fit:
    """Set a timm net, in place, to images of about (height, width) pixels.

    A plain ViT is set to the nearest whole number of patches. A pyramid that does not take every
    size is set to the next larger multiple of its deepest stride.

    Raises:
        UsageError: the net cannot be set to this size; names sizes that it takes.
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
    """Return the size that `fit` sets a net to if it does not take every size."""
    deepest = max(_strides(net))
    return whole_patches(image_px, deepest) if _is_plain(net) else rounded_up(image_px, deepest)


def set_size(net: Any, size: Size) -> None:
    """Call `set_input_size`, but keep Swin's windows, which timm would scale with the image."""
    windows = getattr(net, "_ref_window_sizes", None)
    more = {} if windows is None else {"window_size": windows}
    with warnings.catch_warnings():
        # timm's RegularGridInterpolator indexes with a list, which torch still reads as a tuple.
        # A test compares a resized table with the original.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"timm\.layers\.interpolate")
        net.set_input_size(img_size=size, **more)


def _strides(net: Any) -> list[int]:
    return [int(level["reduction"]) for level in net.feature_info]


def _is_plain(net: Any) -> bool:
    return len(set(_strides(net))) == 1


def takes(net: Any, size: Size) -> bool:
    """Whether a forward pass succeeds and returns maps of the sizes that the strides imply."""
    weight = next(net.parameters())
    with _evaluating(net), torch.no_grad():
        try:
            images = weight.new_zeros(1, 3, *size)
            maps = net.forward_intermediates(images, intermediates_only=True)
        except _UNFIT:
            return False
    # A map may be one cell larger or smaller: some nets round up, MobileViT to whole patches.
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
        f"{name} does not take images of {image_px[0]}x{image_px[1]} pixels (height x width)",
        hint=f"it takes {' and '.join(known)}" if known else "use another backbone",
        reason="model.size",
    )


@contextmanager
def _evaluating(net: Any) -> Iterator[None]:
    """Evaluation mode for the block, so that batch normalisation keeps its statistics."""
    was = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(was)
