"""Boxes and masks of detection layouts, worked out by hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from curator.core.errors import DamageError
from finetune.layouts import Boxes, DenseSet, Split, open_dense
from finetune.layouts.coco_masks import draw
from tests.kit.layouts import (
    CROWD_RUNS,
    NUMBERS,
    NUMBERS_BOXES,
    SQUARE,
    coco_file,
    label,
    make_coco,
    make_coco_flat,
    make_pennfudan,
    make_pennfudan_original,
    picture,
    text,
)


def opened(folder: Path) -> DenseSet:
    return open_dense("detection", folder)


def boxes(split: Split, place: int = 0) -> Boxes:
    target = split[place].target
    assert isinstance(target, Boxes)
    return target


# -- pedestrians -----------------------------------------------------------------------------------


def test_pennfudan(tmp_path: Path) -> None:
    make_pennfudan(tmp_path)
    data = opened(tmp_path)
    assert (data.train.names, data.val.names, data.test.names) == (("a", "b"), (), ("c",))
    assert (data.classes, data.has_masks) == (("pedestrian",), True)
    found = boxes(data.train)
    assert found.boxes.tolist() == NUMBERS_BOXES, "ends excluded; number 2 is not there"
    assert found.labels.tolist() == [1, 1]
    assert found.crowd.tolist() == [False, False]
    assert found.masks is not None
    assert found.masks[1].tolist() == [[n == 3 for n in row] for row in NUMBERS]


def test_a_picture_of_nobody_has_no_boxes(tmp_path: Path) -> None:
    make_pennfudan(tmp_path)
    label(tmp_path / "masks" / "a.png", [[0] * 6] * 4)
    found = boxes(opened(tmp_path).train)
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
    assert found.masks is not None
    assert found.masks.shape == (0, 4, 6)


def test_the_original_is_split_by_the_names(tmp_path: Path) -> None:
    make_pennfudan_original(tmp_path)
    data = opened(tmp_path)
    names = [f"FudanPed{number:05d}" for number in range(20)]
    test = [n for n in names if hashlib.sha256(n.encode()).digest()[0] / 256 < 0.3]
    assert list(data.test.names) == test
    assert sorted(data.train.names + data.test.names) == names
    assert data.notes == (
        f"test is {len(test)} of 20 images: sha256 of the name in the lowest 30 %",
    )
    assert boxes(data.train).boxes.tolist() == NUMBERS_BOXES


def test_too_few_pictures_to_split_are_refused(tmp_path: Path) -> None:
    make_pennfudan_original(tmp_path, count=1)
    with pytest.raises(DamageError, match="1 images, none falls to"):
        opened(tmp_path)


# -- COCO ------------------------------------------------------------------------------------------


def test_coco(tmp_path: Path) -> None:
    make_coco(tmp_path)
    data = opened(tmp_path)
    assert data.classes == ("cat", "dog"), "by id: 3, 7"
    assert (data.train.names, data.val.names, data.test.names) == (("a", "b"), (), ("c",))
    assert data.has_masks
    found = boxes(data.train)
    assert found.boxes.tolist() == [[1, 0, 3, 2], [4, 0, 6, 4]]
    assert found.labels.tolist() == [2, 1]
    assert found.crowd.tolist() == [False, True]
    assert found.masks is not None
    assert found.masks[0].tolist() == [[n == 1 for n in row] for row in NUMBERS]
    assert found.masks[1].tolist() == [[0, 0, 0, 0, 1, 1]] * 4
    nothing = boxes(data.train, 1)
    assert len(nothing) == 0
    assert nothing.masks is not None
    assert nothing.masks.shape == (0, 4, 6)
    assert data.notes == (
        "test is val2017",
        "1 objects of train cover nothing and are left out",
    )


def test_training_leaves_the_crowd_out(tmp_path: Path) -> None:
    make_coco(tmp_path)
    found = boxes(opened(tmp_path).train).without_crowd()
    assert found.labels.tolist() == [2]
    assert found.boxes.tolist() == [[1, 0, 3, 2]]
    assert found.masks is not None
    assert found.masks.shape == (1, 4, 6)
    assert not found.crowd.any()


def test_numbered_masks_go_with_the_boxes_of_a_file(tmp_path: Path) -> None:
    make_coco_flat(tmp_path)
    data = opened(tmp_path)
    assert (data.train.names, data.val.names, data.test.names) == (("a", "b"), ("d",), ("c",))
    two, one = boxes(data.train, 0), boxes(data.train, 1)
    assert two.boxes.tolist() == NUMBERS_BOXES
    assert (len(two), len(one)) == (2, 1)
    assert two.masks is not None
    assert two.masks[1].tolist() == [[n == 3 for n in row] for row in NUMBERS]


def test_boxes_alone_are_boxes_alone(tmp_path: Path) -> None:
    make_coco_flat(tmp_path)
    for path in (tmp_path / "masks").iterdir():
        path.unlink()
    (tmp_path / "masks").rmdir()
    data = opened(tmp_path)
    assert not data.has_masks
    assert boxes(data.train).masks is None
    assert boxes(data.train).without_crowd().masks is None


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([[0, 1, 1, 0, 0, 0]] * 2 + [[0] * 6] * 2, "no pixel of the number 2"),
        ([[0, 2, 2, 0, 0, 0]] * 2 + [[0, 0, 0, 0, 1, 1]] * 2, "masks that reach out of their"),
    ],
)
def test_numbered_masks_are_held_against_the_boxes(
    rows: list[list[int]], what: str, tmp_path: Path
) -> None:
    make_coco_flat(tmp_path)
    label(tmp_path / "masks" / "a.png", rows)
    with pytest.raises(DamageError, match=what):
        _ = opened(tmp_path).train[0]


def test_pictures_in_folders_below(tmp_path: Path) -> None:
    make_coco_flat(tmp_path)
    picture(tmp_path / "images" / "day" / "x.1.jpg")
    (tmp_path / "masks").rename(tmp_path / "unused")
    text(tmp_path / "test.json", json.dumps(coco_file(["day/x.1"], [])))
    data = opened(tmp_path)
    assert data.test.names == ("day/x.1",)
    assert len(boxes(data.test)) == 0


def flat(folder: Path, change: Callable[[dict[str, Any]], object]) -> DenseSet:
    """The flat example without numbered masks, after a change to train.json."""
    make_coco_flat(folder)
    (folder / "masks").rename(folder / "unused")
    content = json.loads((folder / "train.json").read_text())
    change(content)
    text(folder / "train.json", json.dumps(content))
    return opened(folder)


def first(**more: object) -> Callable[[dict[str, Any]], object]:
    return lambda file: file["annotations"][0].update(more)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda file: file.pop("images"), "images: Field required"),
        (first(bbox=[1, 2, 3]), r"annotations\.0\.bbox: List should have at least 4 items"),
        (first(bbox=[1, 2, "wide", 4]), r"annotations\.0\.bbox\.2: Input should be a valid number"),
        (first(bbox=[float("nan"), 0, 2, 2]), r"annotations\.0\.bbox\.0: Input should be a finite"),
        (first(image_id=99), r"annotations\.0: image_id 99"),
        (first(category_id=5), r"annotations\.0: category_id 5.*allowed: 3, 7"),
        (first(bbox=[3, 0, 6, 2]), r"the bbox \[3\.0, 0\.0, 6\.0, 2\.0\] of a\.jpg, 6 x 4 px"),
        (first(segmentation=[SQUARE]), r"annotations\.1 has no segmentation"),
        (lambda file: file["images"][0].update(id=11), "no image, or one id twice"),
        (lambda file: file["images"][0].update(file_name="b.png"), r"b\.png is not there"),
        (lambda file: file["images"][0].update(file_name="b.jpg"), "two images of the name 'b'"),
        (lambda file: file["images"][0].update(file_name="../a.jpg"), r"the path '\.\./a\.jpg'"),
        (lambda file: file["images"][0].update(file_name="c.jpg"), "is in train and in test"),
        (lambda file: file["categories"].pop(), r"allowed: 7|other categories"),
        (lambda file: file["categories"][0].update(id=3), "no category, or one id twice"),
        (lambda file: file["categories"][0].update(name="wolf"), "other categories"),
    ],
)
def test_a_label_file_is_judged(
    change: Callable[[dict[str, Any]], object], what: str, tmp_path: Path
) -> None:
    with pytest.raises(DamageError, match=what):
        flat(tmp_path, change)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"images": [', "[" * 100_000])
def test_a_label_file_that_is_none_is_named(content: str, tmp_path: Path) -> None:
    make_coco(tmp_path)
    path = tmp_path / "annotations" / "instances_val2017.json"
    text(path, content)
    with pytest.raises(DamageError, match="wanted: images, annotations and categories") as error:
        opened(tmp_path)
    assert error.value.where == str(path)


def test_rounding_out_of_the_picture_is_cut_back(tmp_path: Path) -> None:
    data = flat(tmp_path, first(bbox=[-0.5, 0, 7, 2]))
    assert boxes(data.train).boxes[0].tolist() == [0, 0, 6, 2]


def test_an_empty_segmentation_is_none(tmp_path: Path) -> None:
    def empty(file: dict[str, Any]) -> None:
        for one in file["annotations"]:
            one["segmentation"] = []

    assert not flat(tmp_path, empty).has_masks


def test_a_picture_of_another_size_is_named(tmp_path: Path) -> None:
    make_coco(tmp_path)
    picture(tmp_path / "train2017" / "a.jpg", size=(6, 4))
    with pytest.raises(DamageError, match="an image of 4 x 6 px") as error:
        _ = opened(tmp_path).train[0]
    assert str(error.value.hint).endswith("instances_train2017.json says 6 x 4")


def test_a_shape_that_does_not_fit_is_named(tmp_path: Path) -> None:
    make_coco(tmp_path)
    path = tmp_path / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"][1]["segmentation"] = {"size": [4, 6], "counts": [16, 80]}
    text(path, json.dumps(content))
    with pytest.raises(DamageError, match="a segmentation of a: runs of 96 pixels") as error:
        _ = opened(tmp_path).train[0]
    assert error.value.where == str(path)


# -- shapes ----------------------------------------------------------------------------------------


def test_several_polygons_are_one_object() -> None:
    right = [4, 1, 6, 1, 6, 4, 4, 4]
    assert draw([SQUARE, right], (4, 6)).tolist() == [[n > 0 for n in row] for row in NUMBERS]


def test_run_lengths_go_down_the_columns() -> None:
    assert draw(CROWD_RUNS, (4, 6)).tolist() == [[0, 0, 0, 0, 1, 1]] * 4
    # Three of background, two of the object: row 3 of column 0, row 0 of column 1.
    small = draw({"size": [4, 2], "counts": [3, 2, 3]}, (4, 2))
    assert small.astype(int).tolist() == [[0, 1], [0, 0], [0, 0], [1, 0]]


@given(st.data(), st.integers(1, 40), st.integers(1, 40))
def test_packed_runs_are_read_as_pycocotools_writes_them(
    data: st.DataObject, height: int, width: int
) -> None:
    seed, share = data.draw(st.integers(0, 1000)), data.draw(st.floats(0, 1))
    mask_HW = np.random.default_rng(seed).random((height, width)) < share
    packed = coco_mask.encode(np.asfortranarray(mask_HW.astype(np.uint8)))
    runs = {"size": packed["size"], "counts": packed["counts"].decode()}
    assert (draw(runs, (height, width)) == mask_HW).all()


@given(st.text(max_size=30) | st.text(alphabet=[chr(n) for n in range(48, 112)], max_size=30))
def test_packed_runs_from_anybody_are_read_or_refused(packed: str) -> None:
    try:
        mask_HW = draw({"size": [4, 6], "counts": packed}, (4, 6))
    except ValueError:
        return
    assert mask_HW.shape == (4, 6)


@pytest.mark.parametrize(
    ("shape", "what"),
    [
        ([[1, 1, 3, 1, 3, 3, 1]], "a polygon of 7 numbers"),
        ([[1, 1, 3, 1]], "a polygon of 4 numbers"),
        ([[0, 0, 1e9, 0, 1, 1]], "a corner at 0 to 1000000000"),
        ({"size": [6, 4], "counts": [24]}, r"runs for \[6, 4\]"),
        ({"size": [4, 6], "counts": [23]}, "runs of 23 pixels"),
        ({"size": [4, 6], "counts": [-1, 25]}, "runs of 24 pixels"),
        ({"size": [4, 6], "counts": []}, "runs of 0 pixels"),
        ({"size": [4, 6], "counts": "h"}, "end inside a number"),
        ({"size": [4, 6], "counts": "\x7f"}, "packed runs with"),
        ({"size": [4, 6], "counts": "o" * 30}, "packed runs with"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(shape: Any, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        draw(shape, (4, 6))
