"""Read the labelled part of NYU Depth v2: nyu_depth_v2_labeled.mat and splits.mat.

1,449 images in one HDF5 file (MATLAB 7.3), 795 for training and 654 for test by the official
split. Depth is `rawDepths`, the sensor's readings projected to the image. In `depths` the holes are
filled by colorization, and invented metres should be neither trained nor tested on.

The file is opened for each item, because an open HDF5 handle must not be shared by processes, and
opening costs little compared with reading an image of 640 x 480.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from finetune.layouts import Array, LabelledImage, Opened, Split
from finetune.layouts.depth import NYUV2_RANGE_M
from finetune.layouts.files import damaged

_MAT = "nyu_depth_v2_labeled.mat"
# scipy's errors for a file that is truncated, not a matrix, or of MATLAB 7.3.
_UNREADABLE = (OSError, ValueError, TypeError, LookupError, NotImplementedError, MatReadError)
_WANTED = "wanted: the file as it is handed out, images (N, 3, W, H) and rawDepths (N, W, H)"


@dataclass(frozen=True, slots=True)
class Rows:
    """Reads image NNNN of the file, numbered from 1 as in splits.mat."""

    path: Path

    def __call__(self, name: str) -> LabelledImage:
        """Read one image and its depth."""
        try:
            with h5py.File(self.path, "r") as mat:
                image_3WH: Array = mat["images"][int(name) - 1]
        except OSError as error:
            raise damaged(f"not readable ({error})", self.path, "copy it again") from error
        # MATLAB is column-major, so height and width are swapped.
        image_HW3 = np.ascontiguousarray(image_3WH.transpose(2, 1, 0))
        return LabelledImage(name=name, image=image_HW3, target=self.label(name))

    def label(self, name: str) -> Array:
        """Read one depth map: (H, W) float32 metres, 0 where there is no reading."""
        try:
            with h5py.File(self.path, "r") as mat:
                depth_WH: Array = mat["rawDepths"][int(name) - 1]
        except OSError as error:
            raise damaged(f"not readable ({error})", self.path, "copy it again") from error
        depth_HW = np.ascontiguousarray(depth_WH.T, dtype=np.float32)
        # An infinite reading would be the farthest, and the loss would not be finite.
        return np.where(np.isfinite(depth_HW), depth_HW, np.float32(0))


def open_nyuv2_mat(folder: Path) -> Opened:
    """Open the 1,449 labelled images with the official split."""
    path = folder / _MAT
    count = _count(path)
    splits = _splits(folder / "splits.mat", count)
    train, test = (
        Split(tuple(f"{number:04d}" for number in sorted(splits[key])), Rows(path))
        for key in ("trainNdxs", "testNdxs")
    )
    return Opened(
        train=train,
        test=test,
        depth_m=NYUV2_RANGE_M,
        notes=("depth as measured (rawDepths), no hole filled",),
    )


def _count(path: Path) -> int:
    try:
        with h5py.File(path, "r") as mat:
            shapes: list[tuple[int, ...]] = [
                getattr(mat.get(name), "shape", ()) for name in ("images", "rawDepths")
            ]
    except OSError as error:
        raise damaged(f"not readable ({error})", path, _WANTED) from error
    images, depths = shapes
    if len(images) != 4 or images[1] != 3 or depths != (images[0], *images[2:]):  # noqa: PLR2004 - N, RGB, W, H
        raise damaged(f"images of shape {images}, rawDepths {depths}", path, _WANTED)
    return int(images[0])


def _splits(path: Path, count: int) -> dict[str, list[int]]:
    try:
        found: dict[str, Any] = loadmat(path, variable_names=("trainNdxs", "testNdxs"))
    except _UNREADABLE as error:
        raise damaged(f"not readable ({error})", path, "copy it again") from error
    splits = {
        key: [int(n) for n in np.ravel(found.get(key, ()))] for key in ("trainNdxs", "testNdxs")
    }
    numbers = splits["trainNdxs"] + splits["testNdxs"]
    fits = len(set(numbers)) == len(numbers) and all(1 <= n <= count for n in numbers)
    if not all(splits.values()) or not fits:
        raise damaged(
            " and ".join(f"{len(found)} numbers in {key}" for key, found in splits.items()),
            path,
            f"wanted: each image at most once, from 1 to {count}",
        )
    return splits
