"""How a folder is recognised, which files belong together, splits; see also tests/contracts."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.core.errors import DamageError, NotFoundError, UsageError
from curator.core.stopping import StopRequest
from curator.demo.data import DemoData, make_data
from curator.demo.render import CLASSES
from curator.demo.scene import KINDS
from finetune.layouts import (
    LAYOUTS,
    Boxes,
    Split,
    open_dense,
    take_fraction,
)
from tests.kit.layouts import (
    label,
    make_7scenes,
    make_camvid,
    make_pennfudan,
    make_rgbd,
    picture,
    text,
)

# -- recognising -----------------------------------------------------------------------------------


def test_a_folder_of_nothing_says_what_each_layout_lacks(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        open_dense("depth", tmp_path)
    told = str(error.value)
    for layout, entry in LAYOUTS["depth"].rows.items():
        assert f"{layout} needs {', '.join(entry.needs)}" in told
    assert "docs/reference/layouts.md" in told


def test_only_what_is_missing_is_listed(tmp_path: Path) -> None:
    make_rgbd(tmp_path)
    (tmp_path / "test.txt").unlink()
    with pytest.raises(UsageError, match=r"rgbd needs test\.txt[;,]? "):
        open_dense("depth", tmp_path)


def test_the_folder_above_is_answered_with_the_right_one(tmp_path: Path) -> None:
    make_camvid(tmp_path / "other" / "deep")
    make_camvid(tmp_path / "CamVid")
    with pytest.raises(UsageError, match=r"did you mean .*CamVid\?"):
        open_dense("segmentation", tmp_path)


def test_a_named_layout_is_not_guessed(tmp_path: Path) -> None:
    make_camvid(tmp_path)
    with pytest.raises(UsageError, match="of layout voc") as error:
        open_dense("segmentation", tmp_path, "voc")
    assert "camvid" not in str(error.value).replace(str(tmp_path), "")


def test_two_layouts_in_one_folder_have_to_be_told_apart(tmp_path: Path) -> None:
    make_rgbd(tmp_path)
    make_7scenes(tmp_path)
    with pytest.raises(UsageError, match="more than one layout of depth fits: rgbd, 7scenes"):
        open_dense("depth", tmp_path)
    assert open_dense("depth", tmp_path, "rgbd").layout == "rgbd"


def test_unknown_names_are_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'depth'"):
        open_dense("deepth", tmp_path)
    with pytest.raises(UsageError, match="did you mean 'camvid'"):
        open_dense("segmentation", tmp_path, "camvit")
    with pytest.raises(NotFoundError):
        open_dense("segmentation", tmp_path / "none")


# -- files that belong together --------------------------------------------------------------------


def test_a_picture_without_a_label_is_named(tmp_path: Path) -> None:
    make_camvid(tmp_path)
    picture(tmp_path / "train" / "images" / "lonely.png")
    with pytest.raises(DamageError, match=r"no label for lonely \(1 of 3 have none\)") as error:
        open_dense("segmentation", tmp_path)
    assert str(error.value.where).endswith("lonely.png")


def test_a_label_without_a_picture_is_named(tmp_path: Path) -> None:
    make_camvid(tmp_path)
    label(tmp_path / "test" / "labels" / "lonely.png", [[0]])
    with pytest.raises(DamageError, match="no image for lonely"):
        open_dense("segmentation", tmp_path)


def test_two_pictures_of_one_name_are_refused(tmp_path: Path) -> None:
    make_camvid(tmp_path)
    picture(tmp_path / "train" / "images" / "a.png")
    with pytest.raises(DamageError, match=r"a\.jpg and a\.png share a name"):
        open_dense("segmentation", tmp_path)


def test_files_of_the_desktop_are_no_pictures(tmp_path: Path) -> None:
    make_camvid(tmp_path)
    for name in (".DS_Store", "._a.jpg", "Thumbs.db"):
        text(tmp_path / "train" / "images" / name, "x")
    assert open_dense("segmentation", tmp_path).train.names == ("a", "b")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("b\na\nnone\n", r"'none' has no image \(1 of 3 have none\)"),
        ("b\na\nb\n", "'b' is there twice"),
        ("\n\n", "an empty list"),
        (b"\xff\xfe\x00", "not readable"),
        ("a\nc\n", r"'c' is in train and in test \(1 images are\)"),
    ],
)
def test_a_list_is_judged(content: str | bytes, what: str, tmp_path: Path) -> None:
    make_pennfudan(tmp_path)
    text(tmp_path / "train.txt", content)
    with pytest.raises(DamageError, match=what):
        open_dense("detection", tmp_path)


def test_a_list_may_come_from_windows_and_name_a_val(tmp_path: Path) -> None:
    make_pennfudan(tmp_path)
    text(tmp_path / "train.txt", "\ufeffa\r\n")
    text(tmp_path / "val.txt", "b")
    opened = open_dense("detection", tmp_path)
    assert (opened.train.names, opened.val.names, opened.test.names) == (("a",), ("b",), ("c",))


# -- splits and fractions --------------------------------------------------------------------------


def numbered(count: int) -> Split:
    """Items without pixels."""
    return Split(tuple(f"{n:04d}" for n in range(count)), pytest.fail)


def test_a_slice_is_a_split(tmp_path: Path) -> None:
    make_camvid(tmp_path)
    train = open_dense("segmentation", tmp_path).train
    assert train[1:].names == ("b",)
    assert train[1:][0].name == train[-1].name == "b"
    with pytest.raises(IndexError):
        _ = train[2]


@given(
    count=st.integers(1, 300),
    small=st.floats(0.001, 1),
    large=st.floats(0.001, 1),
    seed=st.integers(0, 5),
)
def test_fractions_are_nested_and_sorted(count: int, small: float, large: float, seed: int) -> None:
    split = numbered(count)
    small, large = sorted((small, large))
    few, many = (take_fraction(split, fraction, seed) for fraction in (small, large))
    assert len(few) == max(1, round(count * small))
    assert set(few.names) <= set(many.names) <= set(split.names)
    assert list(few.names) == sorted(few.names)


def test_a_fraction_follows_from_the_seed_and_the_names() -> None:
    split = numbered(200)
    assert take_fraction(split, 1.0, 0).names == split.names
    tenth = take_fraction(split, 0.1, 0).names
    assert tenth == take_fraction(split, 0.1, 0).names != take_fraction(split, 0.1, 1).names
    assert len(set(take_fraction(numbered(201), 0.1, 0).names) - set(tenth)) <= 1


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(UsageError, match="fraction is"):
        take_fraction(numbered(3), fraction, 0)


# -- the rendered world, and real folders ----------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world")
    asked = DemoData(images=2, labelled=10, side_px=48, samples_per_shard=8)
    make_data(out, asked, stop=StopRequest())
    shutil.rmtree(out / "shards")
    return out


def test_the_rendered_world_is_read(world: Path) -> None:
    segmentation = open_dense("segmentation", world / "segmentation")
    assert segmentation.classes == tuple(CLASSES)
    counts = [len(split) for split in (segmentation.train, segmentation.val, segmentation.test)]
    assert counts == [6, 1, 3]
    depth = open_dense("depth", world / "depth")
    assert [len(split) for split in (depth.train, depth.val, depth.test)] == [7, 0, 3]
    metres = np.asarray(depth.train[0].target)
    assert 1 < metres[metres > 0].mean() < 10

    detection = open_dense("detection", world / "detection")
    assert (detection.layout, detection.has_masks) == ("coco-flat", True)
    assert detection.classes == tuple(KINDS)
    for item, classes in zip(detection.train, segmentation.train, strict=True):
        assert isinstance(item.target, Boxes)
        assert item.target.masks is not None
        # An object's pixels carry its class in the other set; a mask fills its box exactly.
        for box, mask in zip(item.target.boxes.astype(int), item.target.masks, strict=True):
            x0, y0, x1, y1 = box
            assert mask[y0:y1, x0:x1].sum() == mask.sum() > 0
            assert len(np.unique(np.asarray(classes.target)[mask])) == 1


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("task", "folder", "counts"),
    [
        ("segmentation", "camvid", (367, 101, 233)),
        ("depth", "rgbd_kitchen", (300, 0, 100)),
        ("detection", "pennfudan", (120, 0, 50)),
    ],
)
def test_real_folders(task: str, folder: str, counts: tuple[int, ...], shared: Path) -> None:
    path = shared / "data" / folder
    if not path.exists():
        pytest.skip(f"the research data is not there: {folder}")
    opened = open_dense(task, path)
    assert tuple(len(split) for split in (opened.train, opened.val, opened.test)) == counts
    for item in (opened.train[0], opened.test[-1]):
        size = item.image.shape[:2]
        target = item.target
        if isinstance(target, Boxes):
            assert target.masks is not None
            assert len(target) >= 1
            assert target.masks.shape[1:] == size
        else:
            assert target.shape == size
        if task == "segmentation":
            assert set(np.unique(np.asarray(target))) <= {*range(11), 255}
        if task == "depth":
            metres = np.asarray(target)
            assert 0.5 < (metres > 0).mean() < 1
            assert metres.max() < 4
