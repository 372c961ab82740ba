"""Read tables beside the images of a folder: Hugging Face's metadata.jsonl, captions.csv, ...

A file named `metadata` or `captions` with the extension of a table describes the images in its
folder and below; a column (`file_name`, ...) has their paths relative to that folder. Several rows
for one image are several captions. The tables are held in memory as a whole.
"""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from curator.core.errors import Unusable, UsageError
from curator.pack.sources import ImageRoot, PackItem, SourceOptions, make_item, to_captions
from curator.pack.tables import (
    ColumnNames,
    TableRow,
    csv_columns,
    csv_rows,
    jsonl_columns,
    jsonl_rows,
    parquet_columns,
    parquet_rows,
)
from curator.shards.tar import printable

_NAMES = frozenset(("metadata", "captions"))
_SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")


@dataclass(slots=True)
class About:
    """The captions and metadata that tables have for one image. `where` is `table#row`."""

    where: str
    captions: list[bytes] = field(default_factory=list)
    meta: list[dict[str, object]] = field(default_factory=list)


class Sidecars:
    """The rows of all such tables below a folder, by the path of the image."""

    def __init__(self, top: Path, options: SourceOptions) -> None:
        self._top = top
        self._about: dict[str, About] = {}
        self._composed: dict[str, str] = {}
        self._broken: list[PackItem] = []
        self.tables: list[str] = []
        for path in _find(top) if options.caption_column != "" else ():
            self._read(path, options)

    def take(self, path: str) -> About | None:
        """Remove and return the entry of the image at this path below the folder; None if absent.

        Names with accents match in composed and decomposed Unicode: macOS decomposes them.
        """
        if path not in self._about:
            path = self._composed.get(unicodedata.normalize("NFC", path), path)
        return self._about.pop(path, None)

    def left_over(self, root: ImageRoot) -> Iterator[PackItem]:
        """Yield rows that cannot be read, and those of images that were not taken."""
        yield from self._broken
        for path, about in self._about.items():
            captions = tuple(about.captions)
            try:
                image = root.locate(str(self._top / path))
            except Unusable as problem:
                yield PackItem(origin=printable(path), captions=captions, problem=problem)
                continue
            # a file without an image extension
            meta = merged({}, about)
            yield make_item(printable(path), image=image, captions=captions, meta=meta, root=root)

    def _read(self, path: Path, options: SourceOptions) -> None:
        rows, columns = _open(path, options)
        self.tables.append(path.relative_to(self._top).as_posix())
        folder = path.parent.relative_to(self._top).as_posix()
        for row in rows:
            where = f"{folder}/{row.where}".removeprefix("./")
            try:
                self._add(folder, row, columns, where)
            except Unusable as problem:
                self._broken.append(PackItem(origin=where, problem=problem))

    def _add(self, folder: str, row: TableRow, columns: ColumnNames, where: str) -> None:
        if isinstance(row.values, Unusable):
            raise row.values
        name, captions, meta = columns.split(row.values)
        if isinstance(name, Mapping):
            name = name.get("path")
        if not isinstance(name, str) or not name:
            raise Unusable("image.missing", "the row names no image")
        texts = to_captions(captions)
        path = posixpath.normpath(posixpath.join(folder, name))
        about = self._about.setdefault(path, About(where))
        self._composed.setdefault(unicodedata.normalize("NFC", path), path)
        about.captions += texts
        about.meta.append(meta)


def merged(fields: Mapping[str, object], about: About) -> dict[str, object]:
    """Merge the fields of KEY.json and the table; a table field of the same name gets a prefix."""
    result = dict(fields)
    said: dict[str, object] = about.meta[0] if len(about.meta) == 1 else {"rows": about.meta}
    for name, value in said.items():
        result[f"table_{name}" if name in result else name] = value
    return result


def _find(top: Path) -> Iterator[Path]:
    """Yield the tables below a folder; hidden entries and linked folders are skipped."""
    for where, folders, names in os.walk(top):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found = [
            name
            for name in sorted(names)
            if Path(name).stem.lower() in _NAMES and Path(name).suffix.lower() in _SUFFIXES
        ]
        if len(found) > 1:
            raise UsageError(
                f"{' and '.join(found)} could both be the captions",
                where=where,
                did="nothing was packed",
                hint=f"move one of them away, or pack one by itself: curator pack {found[0]} OUT",
                reason="input.ambiguous",
            )
        yield from (Path(where, name) for name in found)


def _open(path: Path, options: SourceOptions) -> tuple[Iterator[TableRow], ColumnNames]:
    kind = path.suffix.lower()
    if kind == ".parquet":
        return parquet_rows(path, path.parent), parquet_columns([path], path, options)
    readers: tuple[
        Callable[[Path], Iterator[TableRow]], Callable[[Path, SourceOptions], ColumnNames]
    ]
    readers = (csv_rows, csv_columns) if kind in (".csv", ".tsv") else (jsonl_rows, jsonl_columns)
    return readers[0](path), readers[1](path, options)
