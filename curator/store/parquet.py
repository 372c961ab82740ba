"""Read and write Parquet: checksummed pages, one compression, errors that name the file.

Page checksums are written and verified, because a flipped bit in a compressed page otherwise reads
back as different text without an error. The cost is too small to measure.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from curator.core.errors import DamageError
from curator.store import fsops

_METADATA_KEY = b"curator"


def to_bytes(table: pa.Table, metadata: bytes = b"") -> bytes:
    """Return a table as one Parquet file; same bytes for the same content and library version."""
    if metadata:
        # Parquet has no checksum over its footer, which holds the metadata.
        sealed = hashlib.sha256(metadata).hexdigest().encode() + b"\n" + metadata
        table = table.replace_schema_metadata({_METADATA_KEY: sealed})
    sink = io.BytesIO()
    # No dictionaries: digests and texts hardly repeat. Zstd level 3 gives no smaller files in twice
    # the time (benchmarks/README.md).
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=1,
        use_dictionary=False,
        write_page_checksum=True,
    )
    return bytes(sink.getvalue())


def write(path: Path, table: pa.Table, metadata: bytes = b"") -> str:
    """Write a table atomically; return the SHA-256 (hex) of the file."""
    data = to_bytes(table, metadata)
    fsops.write_atomic(path, data)
    return hashlib.sha256(data).hexdigest()


def _for_arrow(path: Path) -> AbstractContextManager[Path | BinaryIO]:
    """Yield the path, or an open file if the path is not UTF-8, which Arrow cannot open."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return path.open("rb")
    return nullcontext(path)


def read(
    path: Path,
    schema: pa.Schema,
    columns: Sequence[str] | None = None,
    *,
    use_threads: bool = True,
) -> pl.DataFrame:
    """Read a table whose columns must be those of `schema`, with every page verified.

    `use_threads` reads columns in parallel; useless if the caller reads files in parallel already.

    Raises:
        DamageError: the file is missing, truncated or corrupt, or has other columns.
    """
    names = schema.names if columns is None else list(columns)
    try:
        # Not `pq.read_table`: it imports pandas, which takes half a second.
        with (
            _for_arrow(path) as source,
            pq.ParquetFile(source, page_checksum_verification=True) as file,
        ):
            table = file.read(None if columns is None else names, use_threads=use_threads)
    except FileNotFoundError as error:
        raise DamageError("the file is missing", where=path) from error
    except (pa.ArrowException, OSError) as error:
        raise DamageError(f"the table is unreadable ({_one_line(error)})", where=path) from error
    wanted = pa.schema([schema.field(name) for name in names])
    if sorted(table.column_names) == sorted(names):
        table = table.select(names)  # columns come in the order of the file
    if not table.schema.equals(wanted):
        raise DamageError("the table has other columns than were written", where=path)
    # The cast drops column types of foreign files, such as extension types.
    frame = pl.from_arrow(table.cast(wanted))
    assert isinstance(frame, pl.DataFrame)
    return frame


def check_sha256(path: Path, expected: str) -> None:
    """Check that a file's digest (hex) begins with `expected`.

    Page checksums cover neither the footer of a table, nor the replacement of a whole table.

    Raises:
        DamageError: the file is missing, or its digest differs.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise DamageError("the file is missing", where=path) from error
    if not found.startswith(expected):
        raise DamageError(f"sha256 is {found[:12]}, expected {expected[:12]}", where=path)


def read_sealed(path: Path) -> bytes:
    """Return the metadata given to `write` with its checksum, unverified.

    Raises:
        DamageError: there is no metadata.
    """
    try:
        with _for_arrow(path) as source:
            return bytes((pq.read_schema(source).metadata or {})[_METADATA_KEY])
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DamageError(f"no metadata ({_one_line(error)})", where=path) from error


def read_metadata(path: Path) -> bytes:
    """Return the metadata given to `write`, verified.

    Raises:
        DamageError: there is no metadata, or it is damaged.
    """
    return check_sealed(read_sealed(path), path)


def check_sealed(sealed: bytes, path: Path) -> bytes:
    """Return the metadata in what `read_sealed` returned for `path`, verified.

    Raises:
        DamageError: it is damaged.
    """
    expected, _, metadata = sealed.partition(b"\n")
    found = hashlib.sha256(metadata).hexdigest().encode()
    if found != expected:
        raise DamageError(
            f"checksum of the metadata is {found[:12]!r}, expected {expected[:12]!r}", where=path
        )
    return metadata


def to_table(frame: pl.DataFrame, schema: pa.Schema) -> pa.Table:
    """Convert a frame to a table with the columns of `schema`, in its order and types."""
    arrays = [frame[field.name].to_arrow().cast(field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def from_rows(rows: Sequence[Mapping[str, object]], schema: pa.Schema) -> pl.DataFrame:
    """Build a frame with the columns of `schema` from dicts; a missing key is null.

    Built by polars: pyarrow's constructor would import pandas, which takes a second.
    """
    return pl.DataFrame(rows, schema=pl.Schema(schema), orient="row")


def empty(schema: pa.Schema) -> pl.DataFrame:
    """Return an empty frame with the columns of `schema`."""
    return pl.DataFrame(schema=pl.Schema(schema))


def content_digest(table: pa.Table) -> str:
    """Return the SHA-256 (hex) of a table's values: independent of Parquet, chunks and libraries.

    Every column adds its name, its validity as bytes, and its values; strings and lists add their
    lengths first, so that different tables cannot give the same byte sequence.
    """
    sha = hashlib.sha256()
    for name, column in zip(table.column_names, table.columns, strict=True):
        sha.update(f"{name}\0{len(column)}\0".encode())
        _digest_array(sha, pa.concat_arrays(column.chunks or [pa.nulls(0, column.type)]))
    return sha.hexdigest()


def _digest_array(sha: hashlib._Hash, array: pa.Array) -> None:
    valid = _valid(array)
    sha.update(valid.data)
    kind = array.type
    if pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        _digest_strings(sha, array, valid == 0)
    elif pa.types.is_large_list(kind):
        sha.update(_numbers(array.value_lengths()).data)
        _digest_array(sha, array.flatten())
    elif pa.types.is_struct(kind):
        for part in array.flatten():
            _digest_array(sha, part)
    else:
        sha.update(_numbers(array.cast(pa.uint8()) if kind == pa.bool_() else array).data)


def _digest_strings(sha: hashlib._Hash, array: pa.Array, is_null: np.ndarray) -> None:
    """Hash the lengths, then the bytes, directly from the contiguous buffers."""
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int64, len(array) + 1, array.offset * 8)
    lengths = np.diff(ends)
    if lengths[is_null].any():  # Arrow allows bytes behind a null, which are not part of the value
        array = pl.from_arrow(array.cast(pa.large_binary())).fill_null(b"").to_arrow()
        _digest_strings(sha, array, np.zeros_like(is_null))
        return
    sha.update(lengths.data)
    sha.update(memoryview(data or b"")[ends[0] : ends[-1]])


def _valid(array: pa.Array) -> np.ndarray:
    """Return for each value 1, for each null 0."""
    if not array.null_count:
        return np.ones(len(array), np.uint8)
    return _numbers(array.is_valid().cast(pa.uint8()))


def _numbers(array: pa.Array) -> np.ndarray:
    """Return the values, 0 for null, by polars: `pa.Array.to_numpy` imports pandas."""
    if (
        pa.types.is_primitive(array.type) and not array.null_count
    ):  # the usual case, ten times faster
        _, data = array.buffers()
        width = array.type.bit_width // 8
        kind = np.dtype(array.type.to_pandas_dtype())
        return np.frombuffer(data or b"", kind, len(array), array.offset * width)
    series = pl.from_arrow(array)
    assert isinstance(series, pl.Series)
    return series.fill_null(0).to_numpy()


def _one_line(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
