"""Read objects in COCO's format: label files beside the images, with boxes and masks.

Category ids may have gaps; labels number them in order, from 1. Crowds are kept and marked
(`Boxes.crowd`). Objects that cover no pixel are left out and counted in `Opened.notes`: COCO has a
few, and a detector cannot be trained on them. Masks are drawn when an image is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finetune.layouts import Array, Boxes, LabelledImage, Opened, Split, no_items
from finetune.layouts.coco_json import LabelFile, Record, read_label_file
from finetune.layouts.coco_masks import draw, outline
from finetune.layouts.files import check_apart, damaged, read_image, read_numbers

_SLACK_PX = 1.0
"""How far a numbered mask may extend beyond its box."""


@dataclass(frozen=True, slots=True)
class Records:
    """Reads an item by name.

    `masks` is a folder of numbered masks; without it masks are drawn from shapes if `has_shapes`.
    """

    records: Mapping[str, Record]
    path: Path
    has_shapes: bool
    masks: Path | None

    def __call__(self, name: str) -> LabelledImage:
        """Decode the image and draw its masks."""
        record = self.records[name]
        image_HW3 = read_image(record.image)
        height, width = image_HW3.shape[:2]
        if (height, width) != record.size:
            said = f"{self.path} says {record.size[1]} x {record.size[0]}"
            raise damaged(f"an image of {width} x {height} px", record.image, said)
        target = Boxes(
            boxes=record.boxes.copy(),
            labels=record.labels.copy(),
            masks=self._masks(name, record),
            crowd=record.crowd.copy(),
        )
        return LabelledImage(name=name, image=image_HW3, target=target)

    def label(self, name: str) -> Boxes:
        """Return the objects without masks; reads no file."""
        record = self.records[name]
        return Boxes(boxes=record.boxes, labels=record.labels, masks=None, crowd=record.crowd)

    def _masks(self, name: str, record: Record) -> Array | None:
        if self.masks is not None:
            return _numbered(self.masks / f"{name}.png", record)
        if not self.has_shapes:
            return None
        masks_NHW = np.zeros((len(record.labels), *record.size), bool)
        try:
            for mask_HW, shape in zip(masks_NHW, json.loads(record.shapes), strict=True):
                mask_HW[:] = draw(shape, record.size)
        except ValueError as error:
            raise damaged(f"a segmentation of {name}: {error}", self.path, "mend it") from error
        return masks_NHW


def _numbered(path: Path, record: Record) -> Array:
    """Read masks from an image of numbers; check them with the boxes, as only order links them."""
    numbers_HW = read_numbers(path, record.size, 8)
    masks: Array = numbers_HW == record.numbers[:, None, None]
    empty = ~masks.any((1, 2))
    if empty.any():
        lacking = int(record.numbers[empty][0])
        raise damaged(f"no pixel of the number {lacking}", path, "wanted: a number an object")
    reach = outline(masks) - record.boxes
    if (reach[:, :2] < -_SLACK_PX).any() or (reach[:, 2:] > _SLACK_PX).any():
        raise damaged(
            "masks that reach out of their boxes", path, "wanted: n is the n-th object of the file"
        )
    return masks


def open_coco(folder: Path) -> Opened:
    """Open COCO 2017: annotations/instances_{train,val}2017.json. Test is val2017."""
    files = {
        split: read_label_file(folder / "annotations" / f"instances_{part}.json", folder / part)
        for split, part in (("train", "train2017"), ("test", "val2017"))
    }
    return _opened(folder, files, None, ("test is val2017",))


def open_coco_flat(folder: Path) -> Opened:
    """Open {train,test}.json, and val.json if present, beside images/.

    Without segmentations, masks/NAME.png is read if that folder exists: n is the n-th object of the
    image in the order of the file, 0 is background.
    """
    files = {
        split: read_label_file(folder / f"{split}.json", folder / "images")
        for split in ("train", "val", "test")
        if split != "val" or (folder / "val.json").is_file()
    }
    has_shapes = any(file.drawn for file in files.values())
    masks = folder / "masks" if not has_shapes and (folder / "masks").is_dir() else None
    return _opened(folder, files, masks, ())


def _opened(
    folder: Path,
    files: Mapping[str, LabelFile],
    masks: Path | None,
    notes: tuple[str, ...],
) -> Opened:
    first = files["train"]
    drawn = {file.drawn for file in files.values()} - {None}
    for file in files.values():
        if file.classes != first.classes:
            raise damaged("other categories", file.path, f"wanted: those of {first.path}")
    if len(drawn) > 1:
        raise damaged("segmentations in some files only", folder, "wanted: in all, or in none")
    splits = {
        split: Split(
            tuple(sorted(file.records)), Records(file.records, file.path, True in drawn, masks)
        )
        for split, file in files.items()
    }
    train, val, test = splits["train"], splits.get("val", no_items()), splits["test"]
    check_apart(train=train, val=val, test=test, where=folder)
    left_out = tuple(
        f"{file.num_left_out} objects of {split} cover nothing and are left out"
        for split, file in files.items()
        if file.num_left_out
    )
    return Opened(
        classes=first.classes,
        train=train,
        val=val,
        test=test,
        has_masks=True in drawn or masks is not None,
        notes=notes + left_out,
    )
