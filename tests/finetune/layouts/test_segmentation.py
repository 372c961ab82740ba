"""Class numbers of segmentation layouts, worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curator.core.errors import DamageError
from finetune.layouts import DenseSet, open_dense
from tests.kit.layouts import (
    label,
    make_ade20k,
    make_camvid,
    make_cityscapes,
    make_voc,
    picture,
    put,
    text,
)


def opened(folder: Path) -> DenseSet:
    return open_dense("segmentation", folder)


def first_row(data: DenseSet) -> list[int]:
    target = np.asarray(data.train[0].target)
    assert (target == target[0]).all(), "the examples have equal rows"
    row: list[int] = target[0].tolist()
    return row


def test_camvid(tmp_path: Path) -> None:
    make_camvid(tmp_path)
    data = opened(tmp_path)
    assert data.classes == ("sky", "road", "traffic light")
    assert (data.train.names, data.val.names, data.test.names) == (("a", "b"), ("c",), ("d", "e"))
    assert first_row(data) == [0, 0, 1, 2, 255, 255], "3 is void, 255 is not a class anywhere"


def test_camvid_without_val_and_numbers(tmp_path: Path) -> None:
    make_camvid(tmp_path)
    for path in (tmp_path / "val").rglob("*.*"):
        path.unlink()
    for folder in ("val/images", "val/labels", "val"):
        (tmp_path / folder).rmdir()
    text(tmp_path / "classes.txt", "sky\nroad\n3rd class\n")
    data = opened(tmp_path)
    assert data.classes == ("sky", "road", "3rd class")
    assert len(data.val) == 0
    assert list(data.val) == []


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("0 sky\n2 road\n", "numbers that do not count up"),
        ("sky\n", "1 classes"),
        ("sky\nvoid\n", "1 classes"),
        ("\n".join(f"class {n}" for n in range(256)), "256 classes"),
    ],
)
def test_the_list_of_classes_is_judged(content: str, what: str, tmp_path: Path) -> None:
    make_camvid(tmp_path)
    text(tmp_path / "classes.txt", content)
    with pytest.raises(DamageError, match=what) as error:
        opened(tmp_path)
    assert error.value.where == str(tmp_path / "classes.txt")


def test_ade20k(tmp_path: Path) -> None:
    make_ade20k(tmp_path)
    data = opened(tmp_path)
    assert first_row(data) == [255, 0, 1, 2, 148, 149], "0 is ignored, the others move down by one"
    assert (data.classes[0], data.classes[149], len(data.classes)) == ("class 1", "class 150", 150)
    assert (data.train.names, data.val.names, data.test.names) == (("a", "b"), (), ("c",))


@pytest.mark.parametrize("row", ["{}\t0.16\t116\t12\t\t{}\n", "{}\t0.16\t116\t12\t1\t{}\n"])
def test_ade20k_takes_names_from_its_list(row: str, tmp_path: Path) -> None:
    make_ade20k(tmp_path)
    names = ["wall", "building, edifice", "bed ", *(f"thing {n}" for n in range(4, 151))]
    rows = [row.format(n, name) for n, name in enumerate(names, 1)]
    text(tmp_path / "objectInfo150.txt", "Idx\tRatio\tTrain\tVal\tName\n" + "".join(rows))
    classes = opened(tmp_path).classes
    assert classes[:4] == ("wall", "building", "bed", "thing 4")
    assert len(classes) == 150
    text(tmp_path / "objectInfo150.txt", "".join(rows[:149]))
    with pytest.raises(DamageError, match="149 classes"):
        opened(tmp_path)


def test_voc(tmp_path: Path) -> None:
    make_voc(tmp_path)
    data = opened(tmp_path)
    assert first_row(data) == [0, 1, 15, 20, 255, 255], "places in the palette, not its colours"
    assert (data.classes[15], len(data.classes)) == ("person", 21)
    assert (data.train.names, data.test.names) == (("a", "b"), ("c",)), "d is not listed"


def test_a_listed_picture_without_label_is_named(tmp_path: Path) -> None:
    make_voc(tmp_path)
    listed = tmp_path / "ImageSets" / "Segmentation" / "val.txt"
    text(listed, "c\nd\n")
    with pytest.raises(DamageError, match=r"'d' has no label \(1 of 2 have none\)") as error:
        opened(tmp_path)
    assert error.value.where == str(listed)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # unlabelled; road; sidewalk; bicycle; static; car
        ("labelIds", [255, 0, 1, 18, 255, 13]),
        ("labelTrainIds", [255, 0, 1, 18, 255, 13]),
    ],
)
def test_cityscapes(kind: str, expected: list[int], tmp_path: Path) -> None:
    make_cityscapes(tmp_path, kind)
    data = opened(tmp_path)
    assert first_row(data) == expected
    assert (data.classes[0], data.classes[13], data.classes[18]) == ("road", "car", "bicycle")
    assert len(data.classes) == 19
    assert data.train.names == ("aachen_000000_000019", "bonn_000000_000019")
    assert data.test.names == ("ulm_000000_000019",)


# -- labels that cannot be right -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "where", "value", "allowed"),
    [
        (make_camvid, "train/labels/a.png", 4, "allowed: 0-2; ignored: 3, 255"),
        (make_ade20k, "annotations/training/a.png", 151, "allowed: 1-150; ignored: 0"),
        (make_voc, "SegmentationClass/a.png", 21, "allowed: 0-20; ignored: 255"),
        (
            make_cityscapes,
            "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png",
            34,
            "allowed: 7-8, 11-13, 17, 19-28, 31-33; ignored: 0-6, 9-10, 14-16, 18, 29-30",
        ),
    ],
)
def test_a_number_that_is_no_class_is_named(
    make: object, where: str, value: int, allowed: str, tmp_path: Path
) -> None:
    assert callable(make)
    make(tmp_path)
    label(tmp_path / where, [[1, 1, 1, 1, 1, value]] * 4)
    with pytest.raises(DamageError, match=f"the numbers {value} are not classes") as error:
        _ = opened(tmp_path).train[0]
    assert error.value.where == str(tmp_path / where)
    assert error.value.hint == allowed


def bad_label(folder: Path, image: Image.Image) -> str:
    """What is said of it."""
    make_camvid(folder)
    put(folder / "train" / "labels" / "a.png", image)
    with pytest.raises(DamageError) as error:
        _ = opened(folder).train[0]
    assert error.value.where == str(folder / "train" / "labels" / "a.png")
    return str(error.value)


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (Image.new("L", (6, 3)), "a label of 6 x 3 px"),
        (Image.new("L", (6, 3)), "the image has 6 x 4"),
        (Image.new("L", (4, 6)), "does the image carry an EXIF orientation?"),
        (Image.new("RGB", (6, 4)), "pixels of mode RGB"),
        (Image.new("I;16", (6, 4)), "wanted: one channel of 8 bits"),
    ],
)
def test_a_label_of_another_form_is_named(image: Image.Image, what: str, tmp_path: Path) -> None:
    assert what in bad_label(tmp_path, image)


def test_labels_of_one_bit_are_numbers_too(tmp_path: Path) -> None:
    make_camvid(tmp_path)
    put(tmp_path / "train" / "labels" / "a.png", Image.new("1", (6, 4), 1))
    assert first_row(opened(tmp_path)) == [1] * 6


@pytest.mark.parametrize("keep", [0, 20, 45, 58])
def test_a_cut_label_is_named(keep: int, tmp_path: Path) -> None:
    make_camvid(tmp_path)
    path = tmp_path / "train" / "labels" / "a.png"
    noise = np.random.default_rng(0).integers(0, 3, (4, 6)).tolist()
    label(path, noise)
    text(path, path.read_bytes()[:keep])
    with pytest.raises(DamageError) as error:
        _ = opened(tmp_path).train[0]
    assert error.value.where == str(path)


def test_a_label_that_is_no_png_is_named(tmp_path: Path) -> None:
    make_camvid(tmp_path)
    path = tmp_path / "train" / "labels" / "a.png"
    Image.new("L", (6, 4)).save(path, "JPEG")
    with pytest.raises(DamageError, match="wanted: a PNG; others change numbers"):
        _ = opened(tmp_path).train[0]


def test_a_picture_that_went_away_is_named(tmp_path: Path) -> None:
    make_camvid(tmp_path)
    data = opened(tmp_path)
    (tmp_path / "train" / "images" / "a.jpg").unlink()
    with pytest.raises(DamageError, match="not readable"):
        _ = data.train[0]


@pytest.mark.long
def test_a_picture_is_turned_upright_like_everywhere(tmp_path: Path) -> None:
    """Stored 6 x 4, shown 4 x 6: a label of what is seen fits, one of what is stored does not."""
    make_camvid(tmp_path)
    image = tmp_path / "train" / "images" / "a.jpg"
    picture(image)
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(image) as stored:
        stored.load()
    stored.save(image, "PNG", exif=exif)
    with pytest.raises(DamageError, match=r"the image has 4 x 6 .*EXIF"):
        _ = opened(tmp_path).train[0]
    label(tmp_path / "train" / "labels" / "a.png", [[0] * 4] * 6)
    item = opened(tmp_path).train[0]
    # The stored left column became the top row, its lowest pixel on the left.
    assert item.image[0, :, 1].tolist() == [3, 2, 1, 0]
