"""Metres of depth layouts, worked out by hand."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from curator.core.errors import DamageError
from curator.core.registry import load
from finetune.layouts import LAYOUTS, DenseSet, open_dense
from tests.kit.layouts import (
    METRES,
    label,
    make_7scenes,
    make_nyuv2,
    make_nyuv2_lists,
    make_nyuv2_mat,
    make_rgbd,
    picture,
    put,
    text,
)


def opened(folder: Path) -> DenseSet:
    return open_dense("depth", folder)


@pytest.mark.parametrize(
    ("layout", "train", "test"),
    [
        ("nyuv2", ("a", "b"), ("c",)),
        ("nyuv2-lists", ("bath/rgb_a", "bath/rgb_b"), ("bath/rgb_c",)),
        ("nyuv2-mat", ("0001", "0003"), ("0002",)),
        ("rgbd", ("a", "b"), ("c",)),
        (
            "7scenes",
            (
                "seq-01/frame-000000",
                "seq-01/frame-000001",
                "seq-13/frame-000000",
                "seq-13/frame-000001",
            ),
            ("seq-02/frame-000000", "seq-02/frame-000001"),
        ),
    ],
)
def test_splits_and_metres(
    layout: str, train: tuple[str, ...], test: tuple[str, ...], tmp_path: Path
) -> None:
    load(LAYOUTS["depth"].spec(layout).tiny)(tmp_path)
    data = opened(tmp_path)
    assert (data.train.names, data.val.names, data.test.names) == (train, (), test)
    assert data.classes == ()
    for item in (*data.train, *data.test):
        target = np.asarray(item.target)
        assert target.dtype == np.float32
        assert target.tolist() == METRES, "0 and 65535 are no reading"


def test_a_val_folder_is_taken(tmp_path: Path) -> None:
    make_nyuv2(tmp_path)
    (tmp_path / "train").rename(tmp_path / "val")
    make_nyuv2(tmp_path)
    assert opened(tmp_path).val.names == ("a", "b")


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (Image.new("L", (6, 4)), "pixels of mode L"),
        (Image.new("RGB", (6, 4)), "wanted: one channel of 16 bits"),
        (Image.new("I;16", (3, 2)), "a label of 3 x 2 px"),
    ],
)
def test_a_depth_of_another_form_is_named(image: Image.Image, what: str, tmp_path: Path) -> None:
    make_rgbd(tmp_path)
    put(tmp_path / "depth" / "a.png", image)
    with pytest.raises(DamageError) as error:
        _ = opened(tmp_path).train[0]
    assert error.value.where == str(tmp_path / "depth" / "a.png")
    assert what in str(error.value)


# -- lists -----------------------------------------------------------------------------------------


def test_lists_beside_their_pictures(tmp_path: Path) -> None:
    """Without the published sub-folders, paths begin where the lists lie."""
    for name in "ab":
        picture(tmp_path / f"{name}.jpg")
        label(tmp_path / f"{name}.png", [[1000] * 6] * 4, 16)
    text(tmp_path / "nyudepthv2_train_files_with_gt.txt", "a.jpg a.png\n")
    text(tmp_path / "nyudepthv2_test_files_with_gt.txt", "b.jpg b.png 518.8579\n")
    data = opened(tmp_path)
    assert (data.train.names, data.test.names) == (("a",), ("b",))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("bath/rgb_a.jpg\n", "the line 'bath/rgb_a.jpg'"),
        ("a b c d\n", "the line 'a b c d'"),
        ("bath/rgb_a.jpg bath/none.png\n", r"bath/none\.png is not there"),
        ("../a.jpg bath/sync_depth_a.png\n", r"the path '\.\./a\.jpg'"),
        (
            "bath/rgb_a.jpg bath/sync_depth_a.png\n/bath/rgb_a.jpg bath/sync_depth_a.png\n",
            "'bath/rgb_a' is there twice",
        ),
    ],
)
def test_a_list_of_pairs_is_judged(content: str, what: str, tmp_path: Path) -> None:
    make_nyuv2_lists(tmp_path)
    listed = tmp_path / "nyudepthv2_train_files_with_gt.txt"
    text(listed, content)
    with pytest.raises(DamageError, match=what) as error:
        opened(tmp_path)
    assert error.value.where == str(listed)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("kitchen\n", "the line 'kitchen'"),
        ("sequence4\n", "no such file"),
        ("sequence1\nsequence2\n", "is in train and in test"),
    ],
)
def test_a_list_of_sequences_is_judged(content: str, what: str, tmp_path: Path) -> None:
    make_7scenes(tmp_path)
    text(tmp_path / "TrainSplit.txt", content)
    with pytest.raises(DamageError, match=what):
        opened(tmp_path)


def test_a_frame_without_depth_is_named(tmp_path: Path) -> None:
    make_7scenes(tmp_path)
    (tmp_path / "seq-02" / "frame-000001.depth.png").unlink()
    with pytest.raises(DamageError, match="no label for frame-000001"):
        opened(tmp_path)


# -- the .mat --------------------------------------------------------------------------------------


def test_the_mat_gives_what_was_measured(tmp_path: Path) -> None:
    """The example's `depths`, the filled ones, are 7 m further."""
    make_nyuv2_mat(tmp_path)
    item = opened(tmp_path).train[1]
    assert item.name == "0003"
    assert item.image[2, 5].tolist() == [5, 2, 3], "column, row and number of the image"
    assert item.image.flags.c_contiguous
    assert np.asarray(item.target)[0, 1] == np.float32(0.5)


@pytest.mark.parametrize(
    ("train", "test"),
    [([[1]], [[5]]), ([[0]], [[1]]), ([[1, 2]], [[2]]), ([[1, 1]], [[2]]), ([[1]], [[]])],
)
def test_a_split_of_the_mat_is_judged(
    train: list[list[int]], test: list[list[int]], tmp_path: Path
) -> None:
    make_nyuv2_mat(tmp_path)
    splits = {"trainNdxs": np.array(train), "testNdxs": np.array(test)}
    savemat(tmp_path / "splits.mat", splits)
    with pytest.raises(DamageError, match="numbers in trainNdxs") as error:
        opened(tmp_path)
    assert error.value.hint == "wanted: each image at most once, from 1 to 4"


@pytest.mark.parametrize("name", ["nyu_depth_v2_labeled.mat", "splits.mat"])
@pytest.mark.parametrize("content", ["", "no matrix at all" * 20])
def test_a_mat_that_is_none_is_named(name: str, content: str, tmp_path: Path) -> None:
    make_nyuv2_mat(tmp_path)
    text(tmp_path / name, content)
    with pytest.raises(DamageError, match="not readable") as error:
        opened(tmp_path)
    assert error.value.where == str(tmp_path / name)


@pytest.mark.parametrize("keep", range(0, 320, 40))
def test_a_cut_split_of_the_mat_is_named(keep: int, tmp_path: Path) -> None:
    make_nyuv2_mat(tmp_path)
    path = tmp_path / "splits.mat"
    text(path, path.read_bytes()[:keep])
    with pytest.raises(DamageError) as error:
        opened(tmp_path)
    assert error.value.where == str(path)


def test_a_mat_of_something_else_is_named(tmp_path: Path) -> None:
    make_nyuv2_mat(tmp_path)
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "w") as mat:
        mat["images"] = np.zeros((4, 3, 6, 4), np.uint8)
    with pytest.raises(DamageError, match=r"images of shape \(4, 3, 6, 4\), rawDepths \(\)"):
        opened(tmp_path)
