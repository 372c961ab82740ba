"""Write dense labels of the rendered world, in the layouts of well-known data sets.

    OUT/segmentation/{train,val,test}/{images,labels}/NAME.{jpg,png}, classes.txt   CamVid's layout
    OUT/depth/{rgb,depth}/NAME.{jpg,png}, train.txt, test.txt      16-bit PNG, millimetres, 0 = none
    OUT/normals/NAME.npy   for depth/rgb/NAME.jpg: (side, side, 3) float16, unit vectors in the
                           camera's axes (right, down, away from it), 0 = none
    OUT/detection/images/NAME.jpg, masks/NAME.png, {train,val,test}.json    COCO instances

`train.txt` of depth lists train and val. Masks are stored in the JSON as run lengths (COCO's RLE),
and in masks/ as one instance number per pixel. An image whose labels exist is not made again; the
lists and the JSON are made last, from the files.
"""

from __future__ import annotations

import io
import json
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from curator.core import progress
from curator.core.stopping import StopRequest
from curator.demo.render import CLASSES, RenderedImage, make_image
from curator.demo.scene import KINDS, Material
from curator.demo.workers import Chunk, chunks_of, make_chunks
from curator.store import fsops

SPLITS = {"train": 0.6, "val": 0.1, "test": 0.3}
"""Shares of the labelled images."""

_CHUNK = 50
_MILLIMETRES = 1000
_FIRST_KIND = CLASSES.index(KINDS[0])

Mask = np.ndarray[Any, np.dtype[np.uint8]]


def make_dense(
    out: Path, seeds: range, side_px: int, materials: tuple[Material, ...], *, stop: StopRequest
) -> None:
    """Write labelled images of these seeds below `out`; see the module.

    Raises:
        StoppedError: a signal was received; finished chunks stay.
    """
    if (out / "detection" / "test.json").exists():
        return
    todo = [
        chunk
        for chunk in chunks_of(len(seeds), _CHUNK)
        if not (out / "detection" / "masks" / f"{_name(chunk[-1])}.png").exists()
    ]
    with progress.bar("render labelled images", len(seeds), "images") as advance:
        advance(len(seeds) - sum(map(len, todo)))
        for chunk, _ in make_chunks(
            partial(_make_chunk, out, seeds, side_px, materials), todo, stop=stop
        ):
            advance(len(chunk))
        stop.check("finished labelled images are kept")
    names = {split: [_name(number) for number in part] for split, part in _parts(len(seeds))}
    _write_lines(out / "segmentation" / "classes.txt", list(CLASSES))
    _write_lines(out / "depth" / "train.txt", names["train"] + names["val"])
    _write_lines(out / "depth" / "test.txt", names["test"])
    for split, listed in names.items():
        path = out / "detection" / f"{split}.json"
        fsops.write_atomic(path, json.dumps(_coco(out, split, listed)).encode())


def _parts(count: int) -> list[tuple[str, range]]:
    """Return the image numbers of every split."""
    ends = [round(count * share) for share in accumulate(SPLITS.values())]
    return [
        (split, range(first, last))
        for split, first, last in zip(SPLITS, (0, *ends), ends, strict=False)
    ]


def _name(number: int) -> str:
    return f"{number:06d}"


def _make_chunk(
    out: Path, seeds: range, side_px: int, materials: tuple[Material, ...], chunk: Chunk
) -> None:
    parts = _parts(len(seeds))
    files: dict[str, bytes] = {}
    for number in chunk:
        _, image = make_image(seeds[number], side_px, materials)
        split = next(split for split, part in parts if number in part)
        files |= _labels(split, _name(number), image)
    for path, data in files.items():
        fsops.write_atomic(out / path, data)


def _labels(split: str, name: str, image: RenderedImage) -> dict[str, bytes]:
    """Return all files of an image; the last one, once written, marks the others as complete."""
    rgb = image.jpeg()
    return {
        f"segmentation/{split}/images/{name}.jpg": rgb,
        f"segmentation/{split}/labels/{name}.png": _png(image.classes),
        f"depth/rgb/{name}.jpg": rgb,
        f"depth/depth/{name}.png": _png(np.round(image.depth * _MILLIMETRES).astype(np.uint16)),
        f"normals/{name}.npy": _npy(image.normals.astype(np.float16)),
        f"detection/images/{name}.jpg": rgb,
        f"detection/masks/{name}.png": _png(image.instances),
    }


def _png(values: np.ndarray[Any, Any]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(values).save(out, "PNG")
    return out.getvalue()


def _npy(values: np.ndarray[Any, Any]) -> bytes:
    out = io.BytesIO()
    np.save(out, values)
    return out.getvalue()


def _write_lines(path: Path, lines: list[str]) -> None:
    fsops.write_atomic(path, "".join(f"{line}\n" for line in lines).encode())


# -- COCO ------------------------------------------------------------------------------------------


def _coco(out: Path, split: str, names: list[str]) -> dict[str, Any]:
    """Return a split in COCO's instances format; boxes are x, y, width, height in pixels."""
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for image_id, name in enumerate(names):
        instances = np.asarray(Image.open(out / "detection" / "masks" / f"{name}.png"))
        labels = out / "segmentation" / split / "labels" / f"{name}.png"
        height, width = instances.shape
        about = {"file_name": f"{name}.jpg", "width": width, "height": height}
        images.append({"id": image_id, **about})
        for found in _annotations(instances, np.asarray(Image.open(labels))):
            # From 1 on: pycocotools' evaluation treats a match with annotation 0 as no match.
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **found})
    return {
        "info": {"description": f"rendered world, {split}"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": n + 1, "name": kind} for n, kind in enumerate(KINDS)],
    }


def _annotations(instances: Mask, classes: Mask) -> list[dict[str, object]]:
    """Return the annotations of an image's things, in their order."""
    found: list[dict[str, object]] = []
    for number in range(1, int(instances.max()) + 1):
        mask = instances == number
        rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
        found.append(
            {
                "category_id": int(classes[mask][0]) - _FIRST_KIND + 1,
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
                "bbox": coco_mask.toBbox(rle).tolist(),
                "area": int(coco_mask.area(rle)),
                "iscrowd": 0,
            }
        )
    return found
