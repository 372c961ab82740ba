"""Tables that name images: JSON Lines, CSV, COCO captions, Parquet. See `curator.pack.sources`.

All but COCO are read in pieces, so memory does not grow with the table; a COCO file is one JSON
object with the captions apart from the images, and is held as a whole (about 6 times its size).
Rows come in the order of the table.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from curator import outputs, progress
from curator.errors import DamageError, Unusable, UsageError
from curator.pack.sources import (
    CAPTION_COLUMNS,
    IMAGE_COLUMNS,
    ImageRoot,
    Item,
    SourceOptions,
    make_item,
    pick_column,
    to_captions,
)
from curator.strictjson import MAX_JSON_BYTES, check_depth, parse_object
from curator.tarfiles import printable

_BATCH_ROWS = 64  # a batch of image bytes is in memory at once
_BUFFER_BYTES = 1 << 20


def read_jsonl(source: Path, options: SourceOptions) -> Iterator[Item]:
    """One JSON object a line. The columns are looked for in each line; captions may be a list."""
    root = ImageRoot(options.images or source.parent)
    image_names = (options.image_column,) if options.image_column else IMAGE_COLUMNS
    names = CAPTION_COLUMNS if options.caption_column is None else (options.caption_column,)
    with source.open("rb") as file:
        for number, line in _lines(file):
            where = f"{source.name}#{number}"
            if not line.strip():
                continue
            try:
                row = parse_object(line)
            except Unusable as problem:
                yield Item(origin=where, problem=Unusable("row.invalid", problem.detail))
                continue
            image_name = next((name for name in image_names if name in row), "")
            caption_name = next((name for name in names if name in row), "")
            yield _row_item(row, image_name, caption_name, where=where, root=root)


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, line); of a line above the limit, what is enough to refuse it."""
    number = 0
    while line := file.readline(MAX_JSON_BYTES + 2):
        number += 1
        yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        while len(line) == MAX_JSON_BYTES + 2 and not line.endswith(b"\n"):
            line = file.readline(MAX_JSON_BYTES + 2)


def read_csv(source: Path, options: SourceOptions) -> Iterator[Item]:
    """Comma-separated with a header; separated by tabs if the name ends in .tsv."""
    root = ImageRoot(options.images or source.parent)
    csv.field_size_limit(MAX_JSON_BYTES)
    delimiter = "\t" if source.suffix.lower() == ".tsv" else ","
    # surrogateescape: what is no UTF-8 goes through to the caption file unchanged
    with source.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            header = next(reader, [])
        except csv.Error as error:
            raise UsageError(
                f"the header cannot be read ({error})", where=source, reason="input.format"
            ) from error
        image, caption = _columns(header, source, options)
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                problem = Unusable("row.invalid", str(error))
                yield Item(origin=f"{source.name}#{reader.line_num}", problem=problem)
                continue
            where = f"{source.name}#{reader.line_num}"
            if row and len(row) != len(header):
                detail = f"{len(row)} fields, the header has {len(header)}: quotes missing?"
                yield Item(origin=where, problem=Unusable("row.invalid", detail))
            elif row:
                values = dict(zip(header, row, strict=True))
                yield _row_item(values, image, caption, where=where, root=root)


def read_coco(source: Path, options: SourceOptions) -> Iterator[Item]:
    """COCO captions: `images` with id and file_name, `annotations` with image_id and caption.

    Images come in the order of the file, their captions in the order of the annotations. An
    annotation of an image that is not listed is an item of its own.

    Raises:
        UsageError: the file is something else.
    """
    root = ImageRoot(options.images or source.parent)
    try:
        data = json.loads(source.read_bytes())
        pictures, notes = list(data["images"]), list(data["annotations"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UsageError(
            f"no COCO captions file: {error!r:.200}",
            where=source,
            hint="it has `images` and `annotations`; --format jsonl is for one object a line",
            reason="input.format",
        ) from error
    captions: dict[object, list[object]] = defaultdict(list)
    for number, note in enumerate(notes):
        if isinstance(note, Mapping) and "caption" in note and "image_id" in note:
            captions[json.dumps(note["image_id"])].append(note["caption"])
        else:
            problem = Unusable("row.invalid", "no image_id or no caption")
            yield Item(origin=f"{source.name}#annotations/{number}", problem=problem)
    for number, picture in enumerate(pictures):
        where = f"{source.name}#images/{number}"
        try:
            check_depth(picture)
            if not isinstance(picture, Mapping):
                raise Unusable("row.invalid", "no object")
        except Unusable as problem:
            yield Item(origin=where, problem=problem)
            continue
        texts = captions.pop(json.dumps(picture.get("id")), None)
        name = picture.get(options.image_column or "file_name")
        origin = printable(name) if isinstance(name, str) else where
        yield make_item(origin, image=name, captions=texts, meta=picture, root=root)
    for image_id, texts in captions.items():
        unlisted = Unusable("image.missing", f"image {image_id} is not listed"[:500])
        known = [text for text in texts if isinstance(text, str)]
        yield Item(
            origin=f"{source.name}#annotations", captions=to_captions(known), problem=unlisted
        )


def read_parquet(source: Path, options: SourceOptions) -> Iterator[Item]:
    """Parquet with image bytes, Hugging Face's struct of bytes and path, or paths.

    A folder is read file by file in sorted order. Hidden folders are left aside (a store is one),
    and what `curator pack` or `export` have written below it.

    Raises:
        DamageError: a file cannot be read; what was packed before it is kept.
    """
    files = _tables_below(source) if source.is_dir() else [source]
    top = source if source.is_dir() else source.parent
    root = ImageRoot(options.images or top)
    for path in files:
        name = printable(path.relative_to(top).as_posix())
        try:
            yield from _parquet_rows(path, name, root, options)
        except (pa.ArrowException, OSError) as error:
            first = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise DamageError(
                f"the table is not readable ({first})",
                where=path,
                did="the shards that are finished are kept",
                hint="restore the file, then run the same command again",
                reason="input.damaged",
            ) from error


def _tables_below(source: Path) -> list[Path]:
    found, outs = [], dict[Path, bool]()
    for path in sorted(source.rglob("*.parquet")):
        inside = path.relative_to(source).parts
        folders = path.parents[: len(inside) - 1]
        for folder in folders:
            if folder not in outs:
                outs[folder] = outputs.is_output(folder)
                if outs[folder]:
                    progress.say(f"left out: {folder} was written by curator pack or export")
        if not any(part.startswith(".") for part in inside) and not any(map(outs.get, folders)):
            found.append(path)
    return found


def _parquet_rows(path: Path, name: str, root: ImageRoot, options: SourceOptions) -> Iterator[Item]:
    with pq.ParquetFile(
        path, pre_buffer=False, buffer_size=_BUFFER_BYTES, page_checksum_verification=True
    ) as file:
        image, caption = _columns(file.schema_arrow.names, path, options)
        number = 0
        # Group by group, so that damage in one does not take rows of the group before it.
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group]):
                for index, row in enumerate(_values(batch)):
                    where = f"{name}#{number + index}"
                    if isinstance(row, Unusable):
                        yield Item(origin=where, problem=row)
                    else:
                        yield _row_item(row, image, caption, where=where, root=root)
                number += batch.num_rows


def _values(batch: pa.RecordBatch) -> Iterator[dict[str, object] | Unusable]:
    """The rows of a batch. Parquet does not check that its strings are UTF-8: bytes that are not
    go through as surrogate escapes where `as_py` would raise.
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


def _columns(header: Sequence[str], source: Path, options: SourceOptions) -> tuple[str, str]:
    twice = sorted({name for name in header if list(header).count(name) > 1})
    if twice:
        raise UsageError(f"two columns are named {twice[0]!r}", where=source, reason="input.column")
    image = pick_column(
        header, wanted=options.image_column or None, usual=IMAGE_COLUMNS, option="--image-column"
    )
    caption = pick_column(
        header, wanted=options.caption_column, usual=CAPTION_COLUMNS, option="--caption-column"
    )
    return image or "", caption or ""


def _row_item(
    row: Mapping[str, object], image_name: str, caption_name: str, *, where: str, root: ImageRoot
) -> Item:
    """The item of a row of named values; what is neither image nor caption becomes metadata."""
    image = row.get(image_name)
    path = image.get("path") if isinstance(image, Mapping) else image
    origin = printable(path) if isinstance(path, str) and path else where
    meta = {name: value for name, value in row.items() if name not in (image_name, caption_name)}
    return make_item(origin, image=image, captions=row.get(caption_name), meta=meta, root=root)
