"""Tiny data sets of every layout of a dense task, written by hand-worked numbers.

Each picture is 6 x 4 px, PNG bytes under whatever name the layout wants (the format is taken from
the bytes). Each `make_LAYOUT` fills an empty folder with two pictures or more of train and one or
more of test; the rows of `finetune.layouts.LAYOUTS` name them.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image
from scipy.io import savemat

SIZE = (4, 6)
Rows = Sequence[Sequence[int]]

CLASSES_A = [[0, 0, 1, 1, 2, 2]] * 4
"""Three classes, two columns each."""

MILLIMETRES = [[0, 500, 1000, 1500, 2000, 65535]] * 4
METRES = [[0.0, 0.5, 1.0, 1.5, 2.0, 0.0]] * 4

NUMBERS = [
    [0, 1, 1, 0, 0, 0],
    [0, 1, 1, 0, 3, 3],
    [0, 0, 0, 0, 3, 3],
    [0, 0, 0, 0, 3, 3],
]
"""Objects 1 and 3; there is no 2."""
NUMBERS_BOXES = [[1, 0, 3, 2], [4, 1, 6, 4]]


def picture(path: Path, shade: int = 0, size: tuple[int, int] = SIZE) -> None:
    """A picture whose pixels are (column, row, shade)."""
    height, width = size
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[..., 0], rgb[..., 1] = np.arange(width), np.arange(height)[:, None]
    rgb[..., 2] = shade
    put(path, Image.fromarray(rgb))


def label(path: Path, rows: Rows, bits: int = 8) -> None:
    put(path, Image.fromarray(np.array(rows, np.uint8 if bits == 8 else np.uint16)))


def put(path: Path, image: Image.Image) -> None:
    out = io.BytesIO()
    image.save(out, "PNG")
    text(path, out.getvalue())


def text(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


# -- segmentation ----------------------------------------------------------------------------------


def make_camvid(folder: Path) -> None:
    text(folder / "classes.txt", "0 sky\n1 road\n2 traffic light\n3 void\n")
    for split, names in {"train": "ab", "val": "c", "test": "de"}.items():
        for name in names:
            picture(folder / split / "images" / f"{name}.jpg", ord(name))
            label(folder / split / "labels" / f"{name}.png", [[0, 0, 1, 2, 3, 255]] * 4)


def make_ade20k(folder: Path) -> None:
    for split, names in {"training": "ab", "validation": "c"}.items():
        for name in names:
            picture(folder / "images" / split / f"{name}.jpg", ord(name))
            label(folder / "annotations" / split / f"{name}.png", [[0, 1, 2, 3, 149, 150]] * 4)


def make_voc(folder: Path) -> None:
    for name in "abcd":  # d is not listed, and has no label
        picture(folder / "JPEGImages" / f"{name}.jpg", ord(name))
    for name in "abc":
        image = Image.fromarray(np.array([[0, 1, 15, 20, 255, 255]] * 4, np.uint8), "L")
        image.putpalette([(value * 37) % 256 for value in range(768)])
        put(folder / "SegmentationClass" / f"{name}.png", image)
    text(folder / "ImageSets" / "Segmentation" / "train.txt", "b\na\n")
    text(folder / "ImageSets" / "Segmentation" / "val.txt", "c\n")


def make_cityscapes(folder: Path, kind: str = "labelIds") -> None:
    rows = [[0, 7, 8, 33, 4, 26]] * 4 if kind == "labelIds" else [[255, 0, 1, 18, 255, 13]] * 4
    for split, names in {
        "train": ("bonn/bonn_000000_000019", "aachen/aachen_000000_000019"),
        "val": ("ulm/ulm_000000_000019",),
    }.items():
        for name in names:
            picture(folder / "leftImg8bit" / split / f"{name}_leftImg8bit.png")
            label(folder / "gtFine" / split / f"{name}_gtFine_{kind}.png", rows)
            label(folder / "gtFine" / split / f"{name}_gtFine_instanceIds.png", rows)


# -- depth -----------------------------------------------------------------------------------------


def make_nyuv2(folder: Path) -> None:
    for split, names in {"train": "ab", "test": "c"}.items():
        for name in names:
            picture(folder / split / "rgb" / f"{name}.jpg", ord(name))
            label(folder / split / "depth" / f"{name}.png", MILLIMETRES, 16)


def make_nyuv2_lists(folder: Path) -> None:
    for below, names in {"sync": "ab", "official_splits/test": "c"}.items():
        for name in names:
            picture(folder / below / "bath" / f"rgb_{name}.jpg", ord(name))
            label(folder / below / "bath" / f"sync_depth_{name}.png", MILLIMETRES, 16)
    line = "{0}bath/rgb_{1}.jpg {0}bath/sync_depth_{1}.png 518.8579\n"
    train = line.format("/", "b") + line.format("/", "a")  # its train list starts paths with /
    text(folder / "nyudepthv2_train_files_with_gt.txt", train)
    text(folder / "nyudepthv2_test_files_with_gt.txt", line.format("", "c"))


def make_nyuv2_mat(folder: Path) -> None:
    """Four pictures, sides turned around as MATLAB stores them; the fourth is in no split."""
    folder.mkdir(parents=True, exist_ok=True)
    height, width = SIZE
    images = np.zeros((4, 3, width, height), np.uint8)
    images[:, 0] = np.arange(width)[:, None]
    images[:, 1] = np.arange(height)
    images[:, 2] = np.arange(1, 5)[:, None, None]
    metres = np.broadcast_to(np.array(METRES, np.float32).T, (4, width, height))
    with h5py.File(folder / "nyu_depth_v2_labeled.mat", "w") as mat:
        mat["images"], mat["rawDepths"], mat["depths"] = images, metres, metres + 7
    splits = {"trainNdxs": np.array([[3], [1]]), "testNdxs": np.array([[2]])}
    savemat(folder / "splits.mat", splits)


def make_rgbd(folder: Path) -> None:
    for name in "abc":
        picture(folder / "rgb" / f"{name}.jpg", ord(name))
        label(folder / "depth" / f"{name}.png", MILLIMETRES, 16)
    text(folder / "train.txt", "b\na\n")
    text(folder / "test.txt", "c\n")


def make_7scenes(folder: Path) -> None:
    for sequence in ("seq-01", "seq-02", "seq-13"):
        for number in range(2):
            stem = folder / sequence / f"frame-{number:06d}"
            picture(stem.with_suffix(".color.png"), number)
            label(stem.with_suffix(".depth.png"), MILLIMETRES, 16)
            text(stem.with_suffix(".pose.txt"), "1 0 0 0\n")
    text(folder / "TrainSplit.txt", "sequence1\nsequence13\n")
    text(folder / "TestSplit.txt", "sequence2\n")


# -- detection -------------------------------------------------------------------------------------


def coco_object(image: int, category: int, bbox: list[float], **more: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": image, "category_id": category, "bbox": bbox, "area": 4.0} | more


SQUARE = [1, 0, 3, 0, 3, 2, 1, 2]
"""The polygon around object 1 of `NUMBERS`."""

CROWD_RUNS = {"size": [4, 6], "counts": [16, 8]}
"""The last two columns."""


def coco_file(names: Sequence[str], objects: list[dict[str, Any]]) -> dict[str, Any]:
    """Picture n (from 10) is `names[n - 10]`; categories 3 and 7."""
    images = [
        {"id": 10 + n, "file_name": f"{name}.jpg", "width": 6, "height": 4, "license": 1}
        for n, name in enumerate(names)
    ]
    categories = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat", "supercategory": "animal"}]
    return {"info": {}, "images": images, "annotations": objects, "categories": categories}


def make_coco(folder: Path) -> None:
    """Picture a: a dog, a crowd of cats, a box of no width; picture b: nothing."""
    objects = [
        coco_object(11, 7, [1, 0, 2, 2], iscrowd=0, segmentation=[SQUARE]),
        coco_object(11, 3, [4, 0, 2, 4], iscrowd=1, segmentation=CROWD_RUNS),
        coco_object(11, 3, [2, 2, 0, 1], iscrowd=0, segmentation=[[2, 2, 2, 3, 2, 3]]),
    ]
    test = [coco_object(10, 3, [0, 0, 6, 4], iscrowd=0, segmentation=[[0, 0, 6, 0, 6, 4, 0, 4]])]
    parts = {"train2017": (("b", "a"), objects), "val2017": (("c",), test)}
    for part, (names, found) in parts.items():
        for name in names:
            picture(folder / part / f"{name}.jpg", ord(name))
        path = folder / "annotations" / f"instances_{part}.json"
        text(path, json.dumps(coco_file(names, found)))


def make_coco_flat(folder: Path) -> None:
    """Boxes in the files, masks as numbers; picture b has one object, the others two."""
    two = [[1, 0, 2, 2], [4, 1, 2, 3]]
    rows = np.array([[0, 1, 0, 2][n] for n in np.ravel(NUMBERS)]).reshape(SIZE)
    for split, names in {"train": "ab", "val": "d", "test": "c"}.items():
        objects = []
        for n, name in enumerate(names):
            picture(folder / "images" / f"{name}.jpg", ord(name))
            count = 1 if name == "b" else 2
            label(folder / "masks" / f"{name}.png", np.where(rows > count, 0, rows).tolist())
            objects += [coco_object(10 + n, 7, box) for box in two[:count]]
        text(folder / f"{split}.json", json.dumps(coco_file(names, objects)))


def make_pennfudan(folder: Path) -> None:
    for name in "abc":
        picture(folder / "images" / f"{name}.jpg", ord(name))
        label(folder / "masks" / f"{name}.png", NUMBERS)
    text(folder / "train.txt", "b\na\n")
    text(folder / "test.txt", "c\n")


def make_pennfudan_original(folder: Path, count: int = 20) -> None:
    for number in range(count):
        picture(folder / "PNGImages" / f"FudanPed{number:05d}.png", number)
        label(folder / "PedMasks" / f"FudanPed{number:05d}_mask.png", NUMBERS)
