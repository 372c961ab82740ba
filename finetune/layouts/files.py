"""Match images with label files, and read their pixels as arrays.

Images are decoded by `curator.core.images`. Labels are PNGs as their authors stored them, because
every other common format changes numbers. A label's size is compared with its image's before
decoding, and its values with the allowed ones afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL.PngImagePlugin import PngImageFile

from curator.core.errors import DamageError, Unusable
from curator.core.images import Limits, decode
from finetune.layouts import Array, Boxes, LabelledImage, Split, no_items

_IMAGES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"))
# Labelled images were chosen on purpose, so the limits on the shape of web images do not apply.
_LIMITS = Limits(formats=("JPEG", "PNG", "WEBP", "BMP", "TIFF"), min_side_px=1, max_aspect=100_000)
_PNG_HEAD = b"\x89PNG\r\n\x1a\n"

Target = Array | Boxes
Size = tuple[int, int]  # height, width
ReadTarget = Callable[[Path, Size], Target]
"""A label file and the height and width of its image -> the target of an item."""


@dataclass(frozen=True, slots=True)
class FilePairs:
    """Reads items by name from an image file and a label file."""

    files: Mapping[str, tuple[Path, Path]]
    read_target: ReadTarget

    def __call__(self, name: str) -> LabelledImage:
        """Decode both files."""
        image_path, label_path = self.files[name]
        image_HW3 = read_image(image_path)
        height, width = image_HW3.shape[:2]
        return LabelledImage(
            name=name, image=image_HW3, target=self.read_target(label_path, (height, width))
        )

    def label(self, name: str) -> Target:
        """Decode the label only, without comparing its size with the image's."""
        path = self.files[name][1]
        return self.read_target(path, _png_size(path))


def pairs(files: Mapping[str, tuple[Path, Path]], read_target: ReadTarget) -> Split:
    """Return a split whose items are an image file and a label file each."""
    return Split(tuple(sorted(files)), FilePairs(files, read_target))


def damaged(what: str, path: Path, allowed: str) -> DamageError:
    """Return the error for a file that does not fit the layout: finding, file, what is allowed."""
    return DamageError(what, where=path, hint=allowed, reason="dense.file")


# -- which files belong together -------------------------------------------------------------------


def list_files(folder: Path, suffix: str | None = None, *, pattern: str = "*") -> dict[str, Path]:
    """Return name -> path of the images in a folder, or of the files that end in `suffix`.

    The name is the file name without the suffix. Hidden files are skipped. `pattern` is a glob for
    files in subfolders, whose names must be unique too.

    Raises:
        DamageError: two files have the same name, or there are no files.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.glob(pattern)):
        name = path.stem if suffix is None else path.name.removesuffix(suffix)
        fits = path.suffix.lower() in _IMAGES if suffix is None else name != path.name
        if path.name.startswith(".") or not fits:
            continue
        if name in found:
            raise damaged(f"{found[name].name} and {path.name} share a name", folder, "keep one")
        found[name] = path
    if not found:
        wanted = suffix or ", ".join(sorted(_IMAGES))
        raise damaged("no such file", folder, f"wanted: files that end in {wanted}")
    return found


def paired(images: Mapping[str, Path], labels: Mapping[str, Path]) -> dict[str, tuple[Path, Path]]:
    """Pair images and labels by name.

    Raises:
        DamageError: one has no partner; names the first and gives their number.
    """
    for here, there, kind in ((images, labels, "label"), (labels, images, "image")):
        if alone := sorted(here.keys() - there.keys()):
            raise damaged(
                f"no {kind} for {alone[0]} ({len(alone)} of {len(here)} have none)",
                here[alone[0]],
                f"the {kind} lies in {next(iter(there.values())).parent}",
            )
    return {name: (images[name], labels[name]) for name in images}


def choose(
    listed_in: Path, images: Mapping[str, Path], labels: Mapping[str, Path]
) -> dict[str, tuple[Path, Path]]:
    """Select the images and labels listed in a text file with one name per line.

    Raises:
        DamageError: a name has no image or no label; names the list.
    """
    names = read_lines(listed_in)
    for files, kind in ((images, "image"), (labels, "label")):
        if lacking := [name for name in names if name not in files]:
            raise damaged(
                f"{lacking[0]!r} has no {kind} ({len(lacking)} of {len(names)} have none)",
                listed_in,
                f"the {kind}s lie in {next(iter(files.values())).parent}",
            )
    return {name: (images[name], labels[name]) for name in names}


def check_apart(*, train: Split, test: Split, val: Split | None = None, where: Path) -> None:
    """Refuse splits that share an image, whose score would be meaningless.

    Raises:
        DamageError: names the first such image.
    """
    for (one, first), (other, second) in combinations(
        (("train", train), ("val", val or no_items()), ("test", test)), 2
    ):
        if shared := sorted(set(first.names) & set(second.names)):
            raise damaged(
                f"{shared[0]!r} is in {one} and in {other} ({len(shared)} images are)",
                where,
                "wanted: splits that share no image",
            )


def read_lines(path: Path) -> list[str]:
    """Read the non-empty lines of a list.

    Raises:
        DamageError: not a text file, a line occurs twice, or there are no lines.
    """
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise damaged(f"not readable ({error})", path, "wanted: a text file, a name a line") from (
            error
        )
    found = [line for line in lines if line]
    if not found:
        raise damaged("an empty list", path, "wanted: a name a line")
    if len(set(found)) < len(found):
        twice = next(line for line in found if found.count(line) > 1)
        raise damaged(f"{twice!r} is there twice", path, "wanted: every name once")
    return found


def inside(folder: Path, written: str, listed_in: Path) -> Path:
    """Return a path from a list or a label file, as a path in `folder`.

    Raises:
        DamageError: the path leads out of the folder.
    """
    parts = PurePosixPath(written.lstrip("/")).parts
    if not parts or ".." in parts or re.match("[A-Za-z]:|.*\\\\", written):
        raise damaged(f"the path {written!r}", listed_in, "wanted: a path below the folder, with /")
    return folder.joinpath(*parts)


# -- the two usual ways to split into train and test -----------------------------------------------


class Splits(NamedTuple):
    """Three splits; `val` is empty if the folder has none."""

    train: Split
    val: Split
    test: Split


def splits_by_folder(folder: Path, images: str, labels: str, read: ReadTarget) -> Splits:
    """Open {train,val,test}/IMAGES and /LABELS; val/ may be missing."""
    parts = (folder / split for split in Splits._fields)
    return Splits(
        *(
            pairs(paired(list_files(part / images), list_files(part / labels, ".png")), read)
            if part.name != "val" or part.is_dir()
            else no_items()
            for part in parts
        )
    )


def splits_by_list(folder: Path, images: str, labels: str, read: ReadTarget) -> Splits:
    """Open IMAGES/ and LABELS/ with {train,val,test}.txt; val.txt may be missing."""
    image_files, label_files = list_files(folder / images), list_files(folder / labels, ".png")
    lists = (folder / f"{split}.txt" for split in Splits._fields)
    splits = Splits(
        *(
            pairs(choose(listed_in, image_files, label_files), read)
            if listed_in.name != "val.txt" or listed_in.is_file()
            else no_items()
            for listed_in in lists
        )
    )
    check_apart(**splits._asdict(), where=folder)
    return splits


# -- pixels ----------------------------------------------------------------------------------------


def read_image(path: Path) -> Array:
    """Read an image as (H, W, 3) uint8, upright.

    Raises:
        DamageError: it cannot be decoded, or is truncated.
    """
    try:
        return np.array(decode(_read_bytes(path), limits=_LIMITS).image)
    except Unusable as error:
        raise damaged(
            f"an image that cannot be used ({error.reason}: {error.detail})", path, "copy it again"
        ) from error


def read_numbers(path: Path, size: Size, bits: int) -> Array:
    """Read the stored numbers of a one-channel PNG: (H, W) uint8 (`bits` 8) or uint16 (16).

    A palette is not applied: the palette indices are the numbers.

    Raises:
        DamageError: not a PNG, in colour, of another bit depth or size than expected, or truncated.
    """
    data = _read_bytes(path)
    if not data.startswith(_PNG_HEAD):
        raise damaged(f"starts with {data[:8]!r}", path, "wanted: a PNG; others change numbers")
    modes = ("I;16",) if bits == 16 else ("L", "P", "1")  # noqa: PLR2004 - the two there are
    try:
        image = PngImageFile(BytesIO(data))
        if image.mode not in modes:
            raise damaged(
                f"pixels of mode {image.mode}", path, f"wanted: one channel of {bits} bits"
            )
        check_size(path, (image.height, image.width), size)
        image.load()
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's errors for a truncated PNG
        raise damaged(f"a PNG that cannot be decoded ({error})", path, "copy it again") from error
    return np.array(image, dtype=np.uint8 if bits < 16 else np.uint16)  # noqa: PLR2004 - as above


def _png_size(path: Path) -> Size:
    """Read the size in a PNG's header; arbitrary for other files, which `read_numbers` refuses."""
    head = _read_bytes(path)[:24]
    return int.from_bytes(head[20:24], "big"), int.from_bytes(head[16:20], "big")


def check_size(path: Path, found: Size, size: Size) -> None:
    """Refuse a label whose size differs from its image's.

    Raises:
        DamageError: the sizes differ; names both.
    """
    if found == size:
        return
    turned = " (the other way round: does the image carry an EXIF orientation?)"
    raise damaged(
        f"a label of {found[1]} x {found[0]} px",
        path,
        f"the image has {size[1]} x {size[0]}{turned if found == size[::-1] else ''}",
    )


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise damaged(f"not readable ({error.strerror})", path, "copy it again") from error
