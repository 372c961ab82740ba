"""Parquet in and out: checksummed pages, one compression, errors that name the file.

Page checksums are written and verified because a flipped bit in a compressed Parquet page
otherwise reads back as different text without an error. What it costs: nothing measurable.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from curator import fsops
from curator.errors import DamageError

_METADATA_KEY = b"curator"


def to_bytes(table: pa.Table, metadata: bytes = b"") -> bytes:
    """One Parquet file; byte-identical for the same content and library version."""
    if metadata:
        # Parquet has no checksum over its footer, where the metadata lies.
        sealed = hashlib.sha256(metadata).hexdigest().encode() + b"\n" + metadata
        table = table.replace_schema_metadata({_METADATA_KEY: sealed})
    sink = io.BytesIO()
    # No dictionaries: digests and texts hardly repeat. Level 3 writes nothing smaller, in twice the
    # time (benchmarks/README.md).
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


def read(path: Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Read a table whose columns must be those of `schema`, with every page checked.

    Raises:
        DamageError: missing, cut, flipped bits, or other columns than were written.
    """
    names = schema.names if columns is None else list(columns)
    try:
        # Not `pq.read_table`: it imports pandas, which takes half a second.
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read(None if columns is None else names)
    except FileNotFoundError as error:
        raise DamageError("the file is missing", where=path) from error
    except (pa.ArrowException, OSError) as error:
        raise DamageError(f"the table is not readable ({_one_line(error)})", where=path) from error
    wanted = pa.schema([schema.field(name) for name in names])
    if sorted(table.column_names) == sorted(names):
        table = table.select(names)  # it comes in the order of the file
    if not table.schema.equals(wanted):
        raise DamageError("the table has other columns than were written", where=path)
    # The cast drops what a foreign file may say about its columns, such as extension types.
    frame = pl.from_arrow(table.cast(wanted))
    assert isinstance(frame, pl.DataFrame)
    return frame


def read_metadata(path: Path) -> bytes:
    """The metadata given to `write`.

    Raises:
        DamageError: there is none, or it is not what was written.
    """
    try:
        sealed = bytes((pq.read_schema(path).metadata or {})[_METADATA_KEY])
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DamageError(f"no metadata ({_one_line(error)})", where=path) from error
    expected, _, metadata = sealed.partition(b"\n")
    found = hashlib.sha256(metadata).hexdigest().encode()
    if found != expected:
        raise DamageError(
            f"checksum of the metadata is {found[:12]!r}, expected {expected[:12]!r}", where=path
        )
    return metadata


def to_table(frame: pl.DataFrame, schema: pa.Schema) -> pa.Table:
    """The columns of `schema`, in its order and types."""
    arrays = [frame[field.name].to_arrow().cast(field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def from_rows(rows: Sequence[Mapping[str, object]], schema: pa.Schema) -> pl.DataFrame:
    """A frame with the columns of `schema` from dicts; a missing key is null.

    Built by polars: pyarrow's own way in would import pandas, which takes a second.
    """
    return pl.DataFrame(rows, schema=pl.Schema(schema), orient="row")


def empty(schema: pa.Schema) -> pl.DataFrame:
    """No rows, in the columns of `schema`."""
    return pl.DataFrame(schema=pl.Schema(schema))


def content_digest(table: pa.Table) -> str:
    """SHA-256 (hex) over the values of a table: independent of Parquet, chunks and libraries.

    Every column adds its name, its validity as bytes, and its values; strings and lists add
    their lengths first, so that no two tables run together to the same bytes.
    """
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    sha = hashlib.sha256()
    for series in frame.rechunk():
        sha.update(f"{series.name}\0{len(series)}\0".encode())
        _digest_series(sha, series)
    return sha.hexdigest()


def _digest_series(sha: hashlib._Hash, series: pl.Series) -> None:
    sha.update(series.is_not_null().cast(pl.UInt8).to_numpy().data)
    if series.dtype in (pl.String, pl.Binary):
        raw = series.cast(pl.Binary).fill_null(b"")
        sha.update(raw.bin.size().cast(pl.Int64).to_numpy().data)
        array = raw.to_arrow()
        offsets = memoryview(array.buffers()[1]).cast("q")
        start, end = offsets[array.offset], offsets[array.offset + len(array)]
        sha.update(memoryview(array.buffers()[2] or b"")[start:end])
    elif isinstance(series.dtype, pl.List):
        sha.update(series.list.len().fill_null(0).cast(pl.Int64).to_numpy().data)
        filled = series.filter(series.list.len().fill_null(0) > 0)
        _digest_series(sha, filled.explode())
    elif isinstance(series.dtype, pl.Struct):
        for name in series.struct.fields:
            _digest_series(sha, series.struct.field(name))
    elif series.dtype == pl.Boolean:
        sha.update(series.fill_null(False).cast(pl.UInt8).to_numpy().data)
    else:
        sha.update(series.fill_null(0).to_numpy().data)


def _one_line(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
