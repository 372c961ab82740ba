"""Read the sources of `pack` row by row: folders of images, and tables that name images.

A source is an iterator of `PackItem`s in a fixed order. Nothing is decoded here and no image file
is opened. A row that cannot be used is still an item, with the reason, so that rows in = rows out.

A path from the source must be inside one folder, the images root, after all links are resolved: an
untrusted table or unpacked archive cannot pull in other files of this machine.

The formats are in `curator.pack.folder` and `curator.pack.tables`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from curator.core.errors import Unusable, UsageError, nearest, not_there
from curator.core.hashing import canonical_json
from curator.core.registry import Registry, Spec
from curator.shards.scan import IMAGE_EXT
from curator.shards.tar import printable

IMAGE_COLUMNS = ("image", "path", "file_name", "filepath", "image_path", "filename")
CAPTION_COLUMNS = ("caption", "text", "alt_text", "title")

FORMATS = Registry(
    "format",
    {
        "folder": Spec("curator.pack.folder:read_folder"),
        "jsonl": Spec("curator.pack.tables:read_jsonl"),
        "csv": Spec("curator.pack.tables:read_csv"),
        "coco": Spec("curator.pack.tables:read_coco"),
        "parquet": Spec("curator.pack.tables:read_parquet"),
    },
)
_FORMAT_OF_SUFFIX = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "coco",
    ".parquet": "parquet",
}
_SNIFFED_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """How to read a source.

    `images` is the images root: relative paths start there, and no path may leave it; by default
    the source folder, or the folder of the table. The columns default to the first of
    `IMAGE_COLUMNS` and `CAPTION_COLUMNS` that exists; `caption_column=""` means no captions.
    """

    images: Path | None = None
    image_column: str | None = None
    caption_column: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PackItem:
    """One row of a source.

    `origin` identifies it in messages: a path below the source, or `table#row`. `image` is a file
    or the encoded bytes. `captions` are the texts as unchanged bytes; the first is the alt text.
    `problem` is the reason why the row cannot be used; `image` is then None.
    """

    origin: str
    image: Path | bytes | None = None
    captions: tuple[bytes, ...] = ()
    meta: Mapping[str, object] = field(default_factory=dict)
    problem: Unusable | None = None

    def digest(self) -> bytes:
        """Hash the row, without the content of its image."""
        size = len(self.image) if isinstance(self.image, bytes) else None
        captions = [caption.hex() for caption in self.captions]
        row = [self.origin, size, captions, plain(self.meta), self.problem is None]
        return hashlib.sha256(canonical_json(row)).digest()


Reader = Callable[[Path, SourceOptions], Iterator[PackItem]]


def detect(source: Path) -> str:
    """Detect the format of a source: a name of `FORMATS`.

    Raises:
        NotFoundError: the source does not exist. UsageError: it has none of the formats.
    """
    if source.is_dir():
        return _detect_folder(source)
    if not source.is_file():
        raise not_there("file or folder", source, reason="input.none_found")
    with source.open("rb") as file:
        head = file.read(_SNIFFED_BYTES)
    if head.startswith(b"PAR1"):
        return "parquet"
    suffix = source.suffix.lower()
    if suffix not in _FORMAT_OF_SUFFIX:
        raise UsageError(
            "the format cannot be told from the file's name",
            where=source,
            hint=f"name it: --format {'|'.join(FORMATS)}",
            reason="input.format",
        )
    return "jsonl" if suffix == ".json" and _is_json_lines(head) else _FORMAT_OF_SUFFIX[suffix]


def _detect_folder(source: Path) -> str:
    seen: set[str] = set()
    for _, folders, names in os.walk(source):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found = {Path(name).suffix.lower()[1:] for name in names}
        if found & IMAGE_EXT:
            return "folder"
        seen |= found
    if "parquet" in seen:
        return "parquet"
    if "tar" in seen:
        raise UsageError(
            "these are shards already",
            where=source,
            hint=f"no packing is needed: curator index {source}",
            reason="input.format",
        )
    raise UsageError("no image and no Parquet file", where=source, reason="input.none_found")


def _is_json_lines(head: bytes) -> bool:
    """Whether the first line is a complete object; a COCO file is one object on many lines."""
    try:
        first = json.loads(head.partition(b"\n")[0])
    except ValueError:
        return False
    return isinstance(first, dict) and "annotations" not in first


class ImageRoot:
    """The one folder that images may come from."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def locate(self, name: str) -> Path:
        """Resolve a path from the source, absolute or relative to the root, to a file.

        Raises:
            Unusable: path.traversal, or image.missing if there is no such file.
        """
        if "://" in name:
            raise Unusable("image.missing", "it is a URL; pack downloads nothing")
        try:
            path = (self.root / name).resolve()
            if not path.is_relative_to(self.root):
                raise Unusable(
                    "path.traversal",
                    "outside the folder of the images; name a wider one with --images",
                )
            if not path.is_file():
                raise Unusable("image.missing", "no such file")
        except (OSError, ValueError, RuntimeError) as error:  # too long, NUL, a loop of links
            raise Unusable("image.missing", str(error)) from error
        return path


def make_item(
    origin: str,
    *,
    image: object,
    captions: object,
    meta: Mapping[str, object],
    root: ImageRoot,
) -> PackItem:
    """Make an item from the values of a row.

    `image` is a path as text (resolved below `root`), bytes, Hugging Face's {bytes, path}, or a
    `Path` that is already resolved.
    """
    texts: tuple[bytes, ...] = ()
    try:
        texts = to_captions(captions)
        if isinstance(image, Mapping):
            image = image.get("bytes") or image.get("path")
        if image is None or image == "":
            raise Unusable("image.missing", "the row names no image")
        if not isinstance(image, str | bytes | Path):
            raise Unusable("row.invalid", f"the image is of type {type(image).__name__}")
        place = root.locate(image) if isinstance(image, str) else image
    except Unusable as problem:
        return PackItem(origin=origin, captions=texts, meta=meta, problem=problem)
    return PackItem(origin=origin, image=place, captions=texts, meta=meta)


def to_captions(value: object) -> tuple[bytes, ...]:
    """Convert a value to captions: text, bytes, a number, a list of these, or nothing.

    Raises:
        Unusable: row.invalid, the value has another type.
    """
    parts = value if isinstance(value, list | tuple) else (value,)
    return tuple(text for text in map(_to_caption, parts) if text is not None)


def _to_caption(value: object) -> bytes | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bytes):
        return value
    if isinstance(value, str | int | float):
        return _encode(str(value))
    raise Unusable("row.invalid", f"the caption is of type {type(value).__name__}")


def _encode(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")  # restores bytes that are not UTF-8
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")  # JSON can contain lone surrogates


def plain(value: object) -> object:
    """Convert a table's value to JSON that every reader accepts: no NaN, no lone surrogates."""
    result: object = str(value)  # dates, decimals, UUIDs
    if value is None or isinstance(value, bool | int):
        result = value
    elif isinstance(value, float):
        result = value if math.isfinite(value) else None
    elif isinstance(value, str):
        result = value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    elif isinstance(value, bytes):
        result = b64encode(value).decode()
    elif isinstance(value, Mapping):
        result = {str(plain(str(name))): plain(part) for name, part in value.items()}
    elif isinstance(value, Sequence):
        result = [plain(part) for part in value]
    return result


def pick_columns(
    columns: Sequence[str], source: Path, *, wanted: str | None, usual: Sequence[str], option: str
) -> tuple[str, ...]:
    """Return the column to use: `wanted`, else the first usual one; none if `wanted` is "".

    Raises:
        UsageError: there is no such column; lists the existing ones.
    """
    if wanted == "":
        return ()
    found = [name for name in ((wanted,) if wanted else usual) if name in columns]
    if not found:
        shown = [printable(name) for name in columns]
        raise UsageError(
            f"no column {wanted!r}" if wanted else f"no column among {', '.join(usual)}",
            where=source,
            did="nothing was packed",
            hint=f"{option} NAME; {nearest(wanted or usual[0], shown)}",
            reason="input.column",
        )
    return (found[0],)
