"""The contract of every layout of labelled data, run over the whole table.

A new layout needs nothing here: the `tiny` function of its row fills an empty folder. The tests
take the kind of labels, a name and an empty folder and no other fixture, so that a row that is
registered at run time goes through them as well (tests/extend).
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from curator.core.errors import DamageError
from curator.core.registry import load
from finetune.layouts import LAYOUTS, Boxes, DenseSet, LabelledImage, open_dense
from tests.kit.layouts import SIZE, text

ALL = [(labels, layout) for labels, table in LAYOUTS.items() for layout in table]
every_layout = pytest.mark.parametrize(("labels", "layout"), ALL)


def made(labels: str, layout: str, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    load(LAYOUTS[labels].spec(layout).tiny)(folder)
    return folder


@every_layout
def test_a_layout_is_recognised_and_read(labels: str, layout: str, tmp_path: Path) -> None:
    opened = open_dense(labels, made(labels, layout, tmp_path))
    assert (opened.labels, opened.layout) == (labels, layout)
    assert len(opened.train) >= 2
    assert len(opened.test) >= 1
    for split in (opened.train, opened.val, opened.test):
        assert list(split.names) == sorted(set(split.names))
        for name, item in zip(split.names, split, strict=True):
            assert item.name == name
            check(item, opened)


def check(item: LabelledImage, opened: DenseSet) -> None:
    assert item.image.shape == (*SIZE, 3)
    assert item.image.dtype == np.uint8
    assert item.image.flags.writeable, "torch.from_numpy warns of others"
    columns_H6 = np.broadcast_to(np.arange(6), SIZE)
    np.testing.assert_array_equal(item.image[..., 0], columns_H6)
    target = item.target
    if isinstance(target, Boxes):
        count = len(target)
        assert opened.labels == "detection"
        assert (target.boxes.shape, target.boxes.dtype) == ((count, 4), np.float32)
        assert (target.labels.shape, target.labels.dtype) == ((count,), np.int64)
        assert (target.crowd.shape, target.crowd.dtype) == ((count,), bool)
        assert opened.has_masks
        assert target.masks is not None
        assert (target.masks.shape, target.masks.dtype) == ((count, *SIZE), bool)
        assert ((target.labels >= 1) & (target.labels <= len(opened.classes))).all()
        assert (target.boxes[:, :2] < target.boxes[:, 2:]).all()
    else:
        assert target.shape == SIZE
        assert target.dtype == (np.uint8 if opened.labels == "segmentation" else np.float32)
        assert target.flags.writeable


@every_layout
def test_what_is_read_does_not_depend_on_the_process_or_the_call(
    labels: str, layout: str, tmp_path: Path
) -> None:
    train = open_dense(labels, made(labels, layout, tmp_path)).train
    sent = pickle.loads(pickle.dumps(train))
    assert same(train[0], train[0])
    assert same(train[-1], sent[-1])


def arrays(item: LabelledImage) -> list[np.ndarray]:
    if not isinstance(item.target, Boxes):
        return [item.image, item.target]
    target = item.target
    assert target.masks is not None
    return [item.image, target.boxes, target.labels, target.masks, target.crowd]


def same(one: LabelledImage, other: LabelledImage) -> bool:
    pairs = zip(arrays(one), arrays(other), strict=True)
    return one.name == other.name and all(np.array_equal(mine, its) for mine, its in pairs)


@every_layout
def test_changing_an_item_does_not_change_the_next_reading(
    labels: str, layout: str, tmp_path: Path
) -> None:
    train = open_dense(labels, made(labels, layout, tmp_path)).train
    changed, again = train[0], train[0]
    for array in arrays(changed):
        array[:] = 77
    assert same(train[0], again)


@every_layout
def test_a_cut_picture_is_named(labels: str, layout: str, tmp_path: Path) -> None:
    if layout == "nyuv2-mat":
        pytest.skip("one file holds all")
    opened = open_dense(labels, made(labels, layout, tmp_path))
    found = [path for path in tmp_path.rglob("*") if path.is_file() and is_in_colour(path)]
    for path in found:
        text(path, path.read_bytes()[:55])
    with pytest.raises(DamageError, match=r"cannot be used \(image\.truncated") as error:
        _ = opened.train[0]
    assert error.value.where in {str(path) for path in found}


def is_in_colour(path: Path) -> bool:
    """An image and no label: labels have one channel."""
    try:
        with Image.open(path) as image:
            return image.mode == "RGB"
    except UnidentifiedImageError:
        return False


@every_layout
def test_describe_gives_counts_classes_and_the_first_picture(
    labels: str, layout: str, tmp_path: Path
) -> None:
    opened = open_dense(labels, made(labels, layout, tmp_path / "set"))
    told = opened.describe()
    assert told["folder"] == "set", "no path of a machine goes into a report"
    assert told["layout"] == layout
    assert told["num_train"] == len(opened.train)
    assert told["num_test"] == len(opened.test)
    assert told["classes"] == list(opened.classes)
    assert told["first"] == {"name": opened.train.names[0], "width": 6, "height": 4}
