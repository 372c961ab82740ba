"""Render labels and predictions in colours, as small PNG files."""

from __future__ import annotations

import colorsys
import io

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image

from finetune.layouts import IGNORE, Array

MAX_SIDE_PX = 256
_GOLDEN = 0.618034


def palette(num_classes: int) -> Array:
    """Return colours (num_classes, 3) uint8; hues by the golden ratio, so neighbours differ."""
    colours = np.empty((num_classes, 3))
    for number in range(num_classes):
        saturation, value = 0.55 + 0.35 * (number % 2), 0.95 - 0.2 * (number % 3)
        colours[number] = colorsys.hsv_to_rgb(number * _GOLDEN % 1, saturation, value)
    rounded: Array = np.rint(colours * 255).astype(np.uint8)
    return rounded


def to_tensor(image_HW3: Array) -> torch.Tensor:
    """Convert (H, W, 3) uint8 to (3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(image_HW3)).permute(2, 0, 1)


def coloured_classes(classes_HW: torch.Tensor) -> torch.Tensor:
    """Convert class numbers to colours (3, H, W) uint8; unlabelled pixels are black."""
    colours = np.zeros((IGNORE + 1, 3), np.uint8)
    colours[:IGNORE] = palette(IGNORE)
    return to_tensor(colours[classes_HW.numpy().astype(np.uint8)])


def coloured_depth(metres_HW: Array, farthest: float) -> torch.Tensor:
    """Convert metres to colours (3, H, W) uint8: near is bright, no reading (0) is black."""
    shown = mpl.colormaps["magma_r"](np.clip(metres_HW / farthest, 0, 1), bytes=True)[..., :3]
    return to_tensor(np.where((metres_HW > 0)[..., None], shown, 0).astype(np.uint8))


def png(image_3HW: torch.Tensor) -> bytes:
    """Encode a small PNG, the longer side at most `MAX_SIDE_PX`; class colours are not blended."""
    image = Image.fromarray(image_3HW.permute(1, 2, 0).numpy())
    longest = max(image.size)
    if longest > MAX_SIDE_PX:
        width, height = (max(1, round(side * MAX_SIDE_PX / longest)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.NEAREST)
    sink = io.BytesIO()
    image.save(sink, "PNG")
    return sink.getvalue()
