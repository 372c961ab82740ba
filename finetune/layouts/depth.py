"""Read depth in metres: images beside 16-bit PNGs of millimetres.

0 means "no reading", whatever value the sensor uses for it. Depth is used as measured or provided;
holes are not filled.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finetune.layouts import Array, Opened, Split
from finetune.layouts.files import (
    Size,
    check_apart,
    damaged,
    inside,
    list_files,
    paired,
    pairs,
    read_lines,
    read_numbers,
    splits_by_folder,
    splits_by_list,
)

_NOTHING = 65535
"""Value for "no reading" in Kinect recordings (7-Scenes), besides 0."""

NYUV2_RANGE_M = (1e-3, 10.0)
"""Limits of predictions on NYUv2 in metres: --min_depth_eval and --max_depth_eval of BTS, AdaBins
and GLPDepth, `min_depth` and `max_depth` of DINOv2's and DINOv3's linear depth. Only for
the layouts of NYUv2 itself, because a folder of the same form can hold any scene."""

_BTS_LISTS = "nyudepthv2_{}_files_with_gt.txt"


@dataclass(frozen=True, slots=True)
class Millimetres:
    """Reads a 16-bit PNG as (H, W) float32 metres."""

    def __call__(self, path: Path, size: Size) -> Array:
        """Read the label file in metres, 0 where there is no reading."""
        stored_HW = read_numbers(path, size, 16)
        stored_HW[stored_HW == _NOTHING] = 0
        return stored_HW.astype(np.float32) / np.float32(1000)


def open_nyuv2(folder: Path) -> Opened:
    """Open {train,test}/{rgb,depth}, and val/ if present; the folders define the split."""
    train, val, test = splits_by_folder(folder, "rgb", "depth", Millimetres())
    return Opened(train=train, val=val, test=test)


def open_nyuv2_lists(folder: Path) -> Opened:
    """Open the lists published with BTS (Lee et al. 2019): image, depth and focal length per line.

    Paths are relative to sync/ for train and official_splits/test/ for test if these folders exist,
    else to the folder of the lists. The test list has the official 654 images.
    """
    train, test = (
        _listed(below if below.is_dir() else folder, folder / _BTS_LISTS.format(split))
        for split, below in (
            ("train", folder / "sync"),
            ("test", folder / "official_splits" / "test"),
        )
    )
    check_apart(train=train, test=test, where=folder)
    return Opened(
        depth_m=NYUV2_RANGE_M,
        train=train,
        test=test,
    )


def _listed(below: Path, listed_in: Path) -> Split:
    files: dict[str, tuple[Path, Path]] = {}
    for line in read_lines(listed_in):
        words = line.split()
        if not 2 <= len(words) <= 3:  # noqa: PLR2004 - the focal length may be left out
            raise damaged(f"the line {line!r}", listed_in, "wanted: PICTURE DEPTH [FOCAL]")
        image, depth = (inside(below, word, listed_in) for word in words[:2])
        if lost := [path for path in (image, depth) if not path.is_file()]:
            what = f"{lost[0].relative_to(below)} is not there"
            raise damaged(what, listed_in, f"looked in {below}")
        name = image.relative_to(below).with_suffix("").as_posix()
        if name in files:
            raise damaged(f"{name!r} is there twice", listed_in, "wanted: every image once")
        files[name] = image, depth
    return pairs(files, Millimetres())


def open_rgbd(folder: Path) -> Opened:
    """Open rgb/ and depth/, split by train.txt, test.txt and, if present, val.txt."""
    train, val, test = splits_by_list(folder, "rgb", "depth", Millimetres())
    return Opened(train=train, val=val, test=test)


def open_7scenes(folder: Path) -> Opened:
    """Open a scene of 7-Scenes as published: seq-XX/frame-NNNNNN.{color,depth}.png.

    TrainSplit.txt and TestSplit.txt list sequences ("sequence1"). Depth is not registered to colour
    in this data set; it is used as published.
    """
    train, test = (_sequences(folder, folder / f"{split}Split.txt") for split in ("Train", "Test"))
    check_apart(train=train, test=test, where=folder)
    return Opened(
        train=train,
        test=test,
        notes=("depth is not registered to colour",),
    )


def _sequences(folder: Path, listed_in: Path) -> Split:
    files: dict[str, tuple[Path, Path]] = {}
    for line in read_lines(listed_in):
        number = re.fullmatch(r"seq(?:uence|-)?\s*(\d+)", line)
        if number is None:
            raise damaged(f"the line {line!r}", listed_in, "wanted: sequence1")
        sequence = folder / f"seq-{int(number[1]):02d}"
        frames = paired(list_files(sequence, ".color.png"), list_files(sequence, ".depth.png"))
        files |= {f"{sequence.name}/{name}": paths for name, paths in frames.items()}
    return pairs(files, Millimetres())
