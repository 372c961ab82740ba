"""Read tables that name images: JSON Lines, CSV, COCO captions, Parquet; see `pack.sources`.

All but COCO are streamed, so memory does not grow with the table; a COCO file is one JSON object
with captions separate from images, and is held as a whole (about 6 times its size in memory).
Rows come in the order of the table.

In JSON Lines, CSV and Parquet a column counts as missing only if no row of the table has it (a
JSON Lines file may be read to its end to find out); nothing is packed then.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from curator.core import progress
from curator.core.errors import DamageError, Unusable, UsageError
from curator.core.strictjson import MAX_JSON_BYTES, check_depth, parse_object
from curator.pack.sources import (
    CAPTION_COLUMNS,
    IMAGE_COLUMNS,
    ImageRoot,
    PackItem,
    SourceOptions,
    make_item,
    pick_columns,
    to_captions,
)
from curator.shards.tar import printable
from curator.store import outputs

_BATCH_ROWS = 64  # a batch of image bytes is in memory at once
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row of a table: its values by column, or the reason for none. `where` is `table#row`."""

    where: str
    values: Mapping[str, object] | Unusable


@dataclass(frozen=True, slots=True)
class ColumnNames:
    """The columns of the image and the captions, preferred ones first; empty for no captions."""

    image: Sequence[str]
    caption: Sequence[str]

    def split(self, row: Mapping[str, object]) -> tuple[object, object, dict[str, object]]:
        """Split the values of a row into (image, caption or captions, all other values)."""
        image, caption = (_first(row, names) for names in (self.image, self.caption))
        meta = {name: value for name, value in row.items() if name not in (image, caption)}
        return row.get(image), row.get(caption), meta


def _first(row: Mapping[str, object], names: Sequence[str]) -> str:
    """Return the first of the columns that has a value in this row."""
    there = [name for name in names if name in row]
    return next((name for name in there if row[name] is not None), there[0] if there else "")


def read_jsonl(source: Path, options: SourceOptions) -> Iterator[PackItem]:
    """Read one JSON object per line; captions may be a list."""
    return _items(source, options, jsonl_rows(source), jsonl_columns(source, options))


def read_csv(source: Path, options: SourceOptions) -> Iterator[PackItem]:
    """Read comma-separated values with a header; tab-separated if the name ends in .tsv."""
    return _items(source, options, csv_rows(source), csv_columns(source, options))


def _items(
    source: Path, options: SourceOptions, rows: Iterator[TableRow], columns: ColumnNames
) -> Iterator[PackItem]:
    root = ImageRoot(options.images or source.parent)
    return (_row_item(row, columns, root) for row in rows)


def jsonl_rows(source: Path) -> Iterator[TableRow]:
    """Yield the lines that are not blank as rows."""
    with source.open("rb") as file:
        for number, line in _lines(file):
            if not line.strip():
                continue
            try:
                values: Mapping[str, object] | Unusable = parse_object(line)
            except Unusable as problem:
                values = Unusable("row.invalid", problem.detail)
            yield TableRow(f"{source.name}#{number}", values)


def jsonl_columns(source: Path, options: SourceOptions) -> ColumnNames:
    """Find the columns of all lines; reads only until all needed columns are found.

    Raises:
        UsageError: no line has a column for images, or for captions.
    """
    names: dict[str, None] = {}
    for row in jsonl_rows(source):
        if isinstance(row.values, Unusable):
            continue
        names.update(dict.fromkeys(row.values))
        if _is_enough(names, options):
            break
    if not names:  # no line is a valid row: each reports its own reason
        return ColumnNames((), ())
    found = _columns(list(names), source, options)
    # Other lines may use another of the usual names, such as `text` where this one has `caption`.
    return ColumnNames(
        (options.image_column,) if options.image_column else IMAGE_COLUMNS,
        CAPTION_COLUMNS if options.caption_column is None else found.caption,
    )


def _is_enough(names: Mapping[str, None], options: SourceOptions) -> bool:
    images = (options.image_column,) if options.image_column else IMAGE_COLUMNS
    wanted = options.caption_column
    captions = CAPTION_COLUMNS if wanted is None else (wanted,)
    return any(one in names for one in images) and (
        wanted == "" or any(one in names for one in captions)
    )


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield (line number from 1, line); a line above the limit is cut just beyond the limit."""
    number = 0
    while line := file.readline(MAX_JSON_BYTES + 2):
        number += 1
        yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        while len(line) == MAX_JSON_BYTES + 2 and not line.endswith(b"\n"):
            line = file.readline(MAX_JSON_BYTES + 2)


def csv_columns(source: Path, options: SourceOptions) -> ColumnNames:
    """Find the columns in the header.

    Raises:
        UsageError: it cannot be read, or has no column for images or captions.
    """
    with _open_csv(source) as file:
        try:
            header = next(csv.reader(file, delimiter=_delimiter(source), strict=True), [])
        except csv.Error as error:
            raise UsageError(
                f"the header cannot be read ({error})", where=source, reason="input.format"
            ) from error
    return _columns(header, source, options)


def csv_rows(source: Path) -> Iterator[TableRow]:
    """Yield the rows below the header."""
    with _open_csv(source) as file:
        reader = csv.reader(file, delimiter=_delimiter(source), strict=True)
        header = next(reader, [])
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                problem = Unusable("row.invalid", str(error))
                yield TableRow(f"{source.name}#{reader.line_num}", problem)
                continue
            where = f"{source.name}#{reader.line_num}"
            if row and len(row) != len(header):
                detail = f"{len(row)} fields, the header has {len(header)}: quotes missing?"
                yield TableRow(where, Unusable("row.invalid", detail))
            elif row:
                yield TableRow(where, dict(zip(header, row, strict=True)))


def _open_csv(source: Path) -> IO[str]:
    csv.field_size_limit(MAX_JSON_BYTES)
    # surrogateescape: bytes that are not UTF-8 reach the caption file unchanged
    return source.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


def _delimiter(source: Path) -> str:
    return "\t" if source.suffix.lower() == ".tsv" else ","


def read_coco(source: Path, options: SourceOptions) -> Iterator[PackItem]:
    """Read COCO captions: `images` (id, file_name) and `annotations` (image_id, caption).

    Images come in the order of the file, their captions in the order of the annotations. An
    annotation of an image that is not listed is a separate item.

    Raises:
        UsageError: the file is not COCO, or no annotation has a caption.
    """
    root = ImageRoot(options.images or source.parent)
    try:
        data = json.loads(source.read_bytes())
        pictures, notes = list(data["images"]), list(data["annotations"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UsageError(
            f"not a COCO captions file: {error!r:.200}",
            where=source,
            hint="COCO has `images` and `annotations`; --format jsonl reads one object per line",
            reason="input.format",
        ) from error
    wanted = "caption" if options.caption_column is None else options.caption_column
    _check_annotations(notes, wanted, source)
    captions: dict[object, list[object]] = defaultdict(list)
    for number, note in enumerate(notes):
        if isinstance(note, Mapping) and wanted == "":
            continue
        if isinstance(note, Mapping) and wanted in note and "image_id" in note:
            captions[json.dumps(note["image_id"])].append(note[wanted])
        else:
            problem = Unusable("row.invalid", f"image_id or {wanted} is missing")
            yield PackItem(origin=f"{source.name}#annotations/{number}", problem=problem)
    for number, picture in enumerate(pictures):
        where = f"{source.name}#images/{number}"
        try:
            check_depth(picture)
            if not isinstance(picture, Mapping):
                raise Unusable("row.invalid", "not an object")
        except Unusable as problem:
            yield PackItem(origin=where, problem=problem)
            continue
        texts = captions.pop(json.dumps(picture.get("id")), None)
        name = picture.get(options.image_column or "file_name")
        origin = printable(name) if isinstance(name, str) else where
        yield make_item(origin, image=name, captions=texts, meta=picture, root=root)
    for image_id, texts in captions.items():
        unlisted = Unusable("image.missing", f"image {image_id} is not listed"[:500])
        known = [text for text in texts if isinstance(text, str)]
        yield PackItem(
            origin=f"{source.name}#annotations", captions=to_captions(known), problem=unlisted
        )


def _check_annotations(notes: Sequence[object], wanted: str, source: Path) -> None:
    names = dict.fromkeys(name for note in notes if isinstance(note, Mapping) for name in note)
    if notes and wanted:  # an instances file has boxes but no captions
        pick_columns(list(names), source, wanted=wanted, usual=(), option="--caption-column")


def read_parquet(source: Path, options: SourceOptions) -> Iterator[PackItem]:
    """Read Parquet with image bytes, Hugging Face's struct of bytes and path, or paths.

    A folder is read file by file in sorted order, as one table. Hidden folders (such as a store)
    and outputs of `curator pack` and `export` below it are skipped.

    Raises:
        DamageError: a file cannot be read; rows packed before it are kept.
    """
    files = _tables_below(source) if source.is_dir() else [source]
    top = source if source.is_dir() else source.parent
    root = ImageRoot(options.images or top)
    columns = parquet_columns(files, source, options)
    rows = chain.from_iterable(parquet_rows(path, top) for path in files)
    return (_row_item(row, columns, root) for row in rows)


def parquet_columns(files: Sequence[Path], source: Path, options: SourceOptions) -> ColumnNames:
    """Find the columns of all files together.

    Raises:
        UsageError: no file has a column for images, or for captions.
    """
    names: dict[str, None] = {}
    for path in files:
        try:
            header = pq.read_schema(path).names
        except (pa.ArrowException, OSError):  # reported when its rows are read
            continue
        _check_names(header, path)
        names.update(dict.fromkeys(header))
    return _columns(list(names), source, options) if names else ColumnNames((), ())


def _tables_below(source: Path) -> list[Path]:
    found, outs = [], dict[Path, bool]()
    for path in sorted(source.rglob("*.parquet")):
        inside = path.relative_to(source).parts
        folders = path.parents[: len(inside) - 1]
        for folder in folders:
            if folder not in outs:
                outs[folder] = outputs.is_output(folder)
                if outs[folder]:
                    progress.say(f"skipped: {folder} was written by curator pack or export")
        if not any(part.startswith(".") for part in inside) and not any(map(outs.get, folders)):
            found.append(path)
    return found


def parquet_rows(path: Path, top: Path) -> Iterator[TableRow]:
    """Yield the rows of one file, named by its path below `top`.

    Raises:
        DamageError: the file cannot be read; the rows already yielded are valid.
    """
    name = printable(path.relative_to(top).as_posix())
    try:
        with pq.ParquetFile(
            path, pre_buffer=False, buffer_size=_BUFFER_BYTES, page_checksum_verification=True
        ) as file:
            number = 0
            # Group by group, so that damage in one does not lose rows of the group before it.
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group]):
                    for index, values in enumerate(_values(batch)):
                        yield TableRow(f"{name}#{number + index}", values)
                    number += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        first = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DamageError(
            f"the table is not readable ({first})",
            where=path,
            did="finished shards are kept",
            hint="restore the file from a backup, then run the same command again",
            reason="input.damaged",
        ) from error


def _values(batch: pa.RecordBatch) -> Iterator[dict[str, object] | Unusable]:
    """Yield the rows of a batch.

    Parquet does not check that its strings are UTF-8: invalid bytes become surrogate escapes here,
    where `as_py` would raise.
    """
    texts = {field.name for field in batch.schema if _is_text(field.type)}
    columns = {
        name: column.cast(pa.large_binary()) if name in texts else column
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }
    for index in range(batch.num_rows):
        try:
            row = {name: column[index].as_py() for name, column in columns.items()}
        except (ValueError, OverflowError) as error:  # strings inside lists, dates after 9999
            yield Unusable("row.invalid", f"{type(error).__name__}: {error}"[:500])
            continue
        for name in texts:
            if row[name] is not None:
                row[name] = row[name].decode("utf-8", "surrogateescape")
        yield row


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _columns(header: Sequence[str], source: Path, options: SourceOptions) -> ColumnNames:
    """Pick the columns to use from `header`.

    Raises:
        UsageError: there are no such columns; lists the existing ones.
    """
    _check_names(header, source)
    image, caption = options.image_column or None, options.caption_column
    return ColumnNames(
        pick_columns(header, source, wanted=image, usual=IMAGE_COLUMNS, option="--image-column"),
        pick_columns(
            header, source, wanted=caption, usual=CAPTION_COLUMNS, option="--caption-column"
        ),
    )


def _check_names(header: Sequence[str], source: Path) -> None:
    twice = sorted({name for name in header if list(header).count(name) > 1})
    if twice:
        raise UsageError(f"two columns are named {twice[0]!r}", where=source, reason="input.column")


def _row_item(row: TableRow, columns: ColumnNames, root: ImageRoot) -> PackItem:
    """Make the item of a row; all values except image and captions become metadata."""
    if isinstance(row.values, Unusable):
        return PackItem(origin=row.where, problem=row.values)
    image, captions, meta = columns.split(row.values)
    path = image.get("path") if isinstance(image, Mapping) else image
    origin = printable(path) if isinstance(path, str) and path else row.where
    return make_item(origin, image=image, captions=captions, meta=meta, root=root)
