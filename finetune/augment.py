"""Resize labelled images, and in finetuning zoom, crop, flip and recolour them.

Image and label get the same geometric transform (torchvision's tv_tensors); labels are resampled by
nearest neighbour, so classes and depths are never blended. All randomness comes from the generator
passed in, so the same generator gives the same sample in any thread.

Zoom 0.5 to 2, crop and flip follow MMSegmentation's recipes. Depth is not zoomed by default (BTS,
AdaBins and GLPDepth do not, because apparent size is a cue for distance); if it is, metres are
divided by the zoom (Eigen et al. 2014). Colours are jittered lightly.

Cost: a zoom and a crop of a 480x360 image take a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes
from torchvision.transforms.v2 import functional as tvf

from curator.core.errors import UsageError
from finetune.layouts import IGNORE, Boxes, LabelledImage

Target = torch.Tensor | dict[str, torch.Tensor]
"""(h, w) uint8 classes, (h, w) float32 metres, or torchvision's boxes, labels and masks."""

_GREY = 124
_JITTER = 0.25
_MIN_SIDE_PX = 1.0


@dataclass(frozen=True, slots=True)
class AugmentedSample:
    """An image (3, h, w), uint8 or float32 from 0 to 255, and its label at the same size."""

    name: str
    image: torch.Tensor
    target: Target


def plain(item: LabelledImage, image_px: tuple[int, int]) -> AugmentedSample:
    """Return the whole image with its label, resized."""
    fields = _fields(item)
    return _sample(item, {name: _resize(value, image_px) for name, value in fields.items()})


def whole_image(
    item: LabelledImage, size: tuple[int, int], image_px: tuple[int, int] | None = None
) -> torch.Tensor:
    """Return the image resized to `size`, then padded below and on the right to `image_px`."""
    resized = _placed(_resize(_image(item), size), 0, 0, image_px or size, _GREY)
    return resized.as_subclass(torch.Tensor).contiguous()


def augmented(
    item: LabelledImage,
    image_px: tuple[int, int],
    *,
    scale: tuple[float, float],
    base: tuple[float, float],
    rng: np.random.Generator,
    at_corner: bool = False,
) -> AugmentedSample:
    """Return a random view: zoomed by a factor in `scale`, cropped or padded, flipped, recoloured.

    At zoom 1 the image has the size `base` (`DenseOptions.size_at_zoom_1`). `at_corner` pads below
    and on the right only, else on random sides. With it, boxes of objects that have masks enclose
    what is left of the mask, as in detectron2's large-scale jitter (`recompute_boxes`).
    """
    zoom = float(rng.uniform(*scale))
    size = (max(1, round(base[0] * zoom)), max(1, round(base[1] * zoom)))
    top, left = (
        int(rng.integers(0 if at_corner else min(0, gap), max(0, gap) + 1))
        for gap in _gaps(size, image_px)
    )
    is_flipped = bool(rng.random() < 0.5)  # noqa: PLR2004 - half of them
    fields = _fields(item)
    for name, value in fields.items():
        zoomed = _resize(value, size)
        if is_flipped and at_corner:  # before the padding, which would move to the left
            zoomed = tvf.horizontal_flip(zoomed)
        moved = _placed(zoomed, top, left, image_px, _filling(item, name))
        fields[name] = tvf.horizontal_flip(moved) if is_flipped and not at_corner else moved
    if at_corner and "masks" in fields:
        fields["boxes"] = _around(fields["masks"])
    fields["image"] = _recoloured(fields["image"], rng)
    if "depth" in fields:
        fields["depth"] = fields["depth"] / zoom
    return _sample(item, fields)


def short_side_view(
    item: LabelledImage,
    image_px: tuple[int, int],
    scale: tuple[float, float],
    constants: Mapping[str, Any],
    rng: np.random.Generator,
) -> AugmentedSample:
    """Return a view as in DINOv2's and DINOv3's linear segmentation (MMSegmentation's pipeline).

    The short side becomes that of `image_px` times a factor in `scale`; then a crop in which no
    class has more than `cat_max_ratio` of the labelled pixels (after ten tries, any), a flip,
    colours, and padding on the right and below.
    """
    height, width = item.image.shape[:2]
    short = int(min(image_px) * rng.uniform(*scale))
    long = int(short * max(height, width) / min(height, width) + 0.5)
    size = (long, short) if height > width else (short, long)
    fields = {name: _resize(value, size) for name, value in _fields(item).items()}
    crop = (min(image_px[0], size[0]), min(image_px[1], size[1]))

    def corner() -> tuple[int, int]:
        return (
            int(rng.integers(size[0] - crop[0] + 1)),
            int(rng.integers(size[1] - crop[1] + 1)),
        )

    top, left = corner()
    for _ in range(constants["crop_tries"]):
        seen = tvf.crop(fields["classes"], top, left, *crop)
        counts = torch.bincount(seen[seen != IGNORE].long().flatten())
        present = counts[counts > 0]
        if len(present) > 1 and present.max() < constants["cat_max_ratio"] * present.sum():
            break
        top, left = corner()
    is_flipped = rng.random() < constants["flip"]
    for name, value in fields.items():
        cropped = tvf.crop(value, top, left, *crop)
        fields[name] = tvf.horizontal_flip(cropped) if is_flipped else cropped
    fields["image"] = _distorted(fields["image"], constants, rng)
    for name, fill in (("image", constants["pad"]), ("classes", IGNORE)):
        fields[name] = _placed(fields[name], 0, 0, image_px, fill)
    return _sample(item, fields)


def _distorted(
    image: torch.Tensor, constants: Mapping[str, Any], rng: np.random.Generator
) -> torch.Tensor:
    """Change brightness, contrast, saturation and hue, each in half of the images.

    The contrast comes before or after the other two. "HSV" scales the saturation and turns the hue
    there, as OpenCV does; "torchvision" blends with grey.
    """

    def contrast(here: torch.Tensor) -> torch.Tensor:
        if not rng.integers(2):
            return here
        scaled: torch.Tensor = here.float() * rng.uniform(*constants["contrast"])
        return scaled.clamp(0, 255).byte()

    if rng.integers(2):
        delta = rng.uniform(-constants["brightness"], constants["brightness"])
        image = (image.float() + delta).clamp(0, 255).byte()
    contrast_first = bool(rng.integers(2))
    if contrast_first:
        image = contrast(image)
    saturation = rng.uniform(*constants["saturation"]) if rng.integers(2) else 1.0
    hue = rng.uniform(-constants["hue"], constants["hue"]) if rng.integers(2) else 0.0
    if constants["colours"] == "HSV":
        hsv = np.array(tvf.to_pil_image(image.as_subclass(torch.Tensor)).convert("HSV"))
        hsv[..., 0] = (hsv[..., 0].astype(int) + round(256 * hue)) % 256
        hsv[..., 1] = np.clip(hsv[..., 1] * saturation, 0, 255)
        image = tvf.pil_to_tensor(Image.fromarray(hsv, "HSV").convert("RGB"))
    else:
        image = tvf.adjust_hue(tvf.adjust_saturation(image, saturation), hue)
    return image if contrast_first else contrast(image)


def nyu_view(
    item: LabelledImage,
    crop_px: tuple[int, int],
    constants: Mapping[str, Any],
    rng: np.random.Generator,
) -> AugmentedSample:
    """Return a view as in DINOv3's depth on NYUv2; the image is float32, 0 to 255.

    The borders that NYUv2's depth lacks are cut off; then a small turn, a flip, a crop of `crop_px`
    and other colours.

    Raises:
        UsageError: the image is smaller than the crop.
    """
    height, width = item.image.shape[:2]
    top, left, bottom, right = box_of(constants["nyu_crop"], (height, width))
    if bottom - top < crop_px[0] or right - left < crop_px[1]:
        raise UsageError(
            f"an image of {height} x {width} has {bottom - top} x {right - left} pixels without "
            f"NYUv2's borders, the crop {crop_px[0]} x {crop_px[1]}",
            where=item.name,
            hint="give a smaller --size; the protocol's name then says so",
            reason="option.value",
        )
    fields = _fields(item)
    fields["image"] = tv_tensors.Image(fields["image"].float())
    angle = rng.uniform(-1, 1) * constants["rotation"] if rng.random() < 0.5 else 0.0  # noqa: PLR2004 - half of them
    is_flipped = rng.random() < constants["flip"]
    y = int(rng.integers(bottom - top - crop_px[0] + 1))
    x = int(rng.integers(right - left - crop_px[1] + 1))
    for name, value in fields.items():
        turned = tvf.crop(value, top, left, bottom - top, right - left)
        if angle:
            turned = tvf.rotate(
                turned, angle, interpolation=tvf.InterpolationMode.BILINEAR
            )  # masks by nearest neighbour
        turned = tvf.horizontal_flip(turned) if is_flipped else turned
        fields[name] = tvf.crop(turned, y, x, *crop_px)
    if rng.random() < 0.5:  # noqa: PLR2004 - half of them
        image = fields["image"].as_subclass(torch.Tensor)
        image = image ** rng.uniform(*constants["gamma"]) * rng.uniform(*constants["brightness"])
        low, high = constants["colour"]
        colours = torch.tensor(rng.uniform(low, high, 3), dtype=torch.float32)
        fields["image"] = (image * colours[:, None, None]).clamp(0, 255)
    return _sample(item, fields)


def box_of(box: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return (top, left, bottom, right) of a box (x0, y0, x1, y1) of 640 x 480, at another size."""
    x0, y0, x1, y1 = box
    height, width = size
    return (
        int(y0 / 480 * height),
        int(x0 / 640 * width),
        int(y1 / 480 * height),
        int(x1 / 640 * width),
    )


def _gaps(size: tuple[int, int], image_px: tuple[int, int]) -> tuple[int, int]:
    return size[0] - image_px[0], size[1] - image_px[1]


def _image(item: LabelledImage) -> torch.Tensor:
    image_HW3 = torch.from_numpy(np.ascontiguousarray(item.image))
    image: torch.Tensor = tv_tensors.Image(image_HW3.permute(2, 0, 1))
    return image


def _fields(item: LabelledImage) -> dict[str, torch.Tensor]:
    fields: dict[str, torch.Tensor] = {"image": _image(item)}
    if isinstance(item.target, Boxes):
        boxes = item.target.without_crowd()
        size = item.image.shape[:2]
        fields["boxes"] = tv_tensors.BoundingBoxes(
            torch.from_numpy(boxes.boxes), format="XYXY", canvas_size=size
        )
        if boxes.masks is not None:
            fields["masks"] = tv_tensors.Mask(torch.from_numpy(boxes.masks.astype(np.uint8)))
    else:
        name = "classes" if item.target.dtype == np.uint8 else "depth"
        label = np.ascontiguousarray(item.target)
        fields[name] = tv_tensors.Mask(torch.from_numpy(label)[None])
    return fields


def _filling(item: LabelledImage, name: str) -> float:
    return {"image": _GREY, "classes": IGNORE}.get(name, 0)


def _resize(value: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    resized: torch.Tensor = tvf.resize(value, list(size), antialias=True)
    return resized  # masks by nearest neighbour


def _placed(
    value: torch.Tensor, top: int, left: int, size: tuple[int, int], fill: float
) -> torch.Tensor:
    """Return the window of `size` at (top, left), filled where it is outside the image."""
    height, width = tvf.get_size(value)
    padding = [max(0, -left), max(0, -top)]
    padding += [max(0, left + size[1] - width), max(0, top + size[0] - height)]
    padded = tvf.pad(value, padding, fill=fill)
    window: torch.Tensor = tvf.crop(padded, max(0, top), max(0, left), *size)
    return window


def _around(masks_nHW: torch.Tensor) -> torch.Tensor:
    """Return (n, 4) boxes around masks, ends excluded; 0 for an empty one."""
    masks = masks_nHW.as_subclass(torch.Tensor).bool()
    boxes = torch.zeros(len(masks), 4)
    seen = masks.flatten(1).any(1)
    # torchvision's ends are the last pixels.
    boxes[seen] = masks_to_boxes(masks[seen]) + torch.tensor([0.0, 0.0, 1.0, 1.0])
    return boxes


def _recoloured(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    brightness, contrast, saturation = rng.uniform(1 - _JITTER, 1 + _JITTER, 3)
    image = tvf.adjust_brightness(image, float(brightness))
    image = tvf.adjust_contrast(image, float(contrast))
    image = tvf.adjust_saturation(image, float(saturation))
    return image


def _sample(item: LabelledImage, fields: Mapping[str, torch.Tensor]) -> AugmentedSample:
    plain_fields: dict[str, Any] = {
        name: value.as_subclass(torch.Tensor).contiguous() for name, value in fields.items()
    }
    image = plain_fields.pop("image")
    if not isinstance(item.target, Boxes):
        (target,) = plain_fields.values()
        return AugmentedSample(item.name, image, target[0])
    plain_fields["labels"] = torch.from_numpy(item.target.without_crowd().labels)
    return AugmentedSample(item.name, image, _visible(plain_fields))


def _visible(target: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Remove the objects that were cropped away."""
    sides = target["boxes"][:, 2:] - target["boxes"][:, :2]
    keep = (sides >= _MIN_SIDE_PX).all(1)
    if "masks" in target:
        keep &= target["masks"].flatten(1).bool().any(1)
    return {name: value[keep] for name, value in target.items()}
