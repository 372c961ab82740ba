"""Read the user's own captions from a table with a text, or a list of texts, for each image.

It is named as `DATASET@TABLE:COLUMN`, e.g. `shards@truth/*.parquet:detailed` or
`shards@captions.jsonl:blip2`. The table is a Parquet or JSON Lines file, or several by a pattern;
images are found by a column `image_sha256` (hex digest of the encoded bytes), or else by a column
`key`, which must then be unique in the dataset. All rows of an image, and all texts of a list, are
its captions, with equal weights. Images without a row, or whose text is empty (blank, `nan`,
`null`), are left out.

The whole column is held in memory and joined to each shard when its window is read: meant for
tables of up to some ten million rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path

import polars as pl

from curator.core.errors import DamageError, UsageError
from curator.core.text import BLANK
from curator.shards.patterns import find
from curator.store import parquet
from pretrain.data.rng import Ints
from pretrain.data.tables import ROWS, ShardTable, Tables, count_all

SUFFIXES = (".parquet", ".jsonl")
DEFAULT_COLUMN = "text"
_BY = ("image_sha256", "key")


class CaptionTables:
    """Tables of the images of `base` that have texts in `captions` (from `read_captions`)."""

    def __init__(self, base: Tables, captions: pl.DataFrame) -> None:
        self._base = base
        self._captions = captions
        self._by = captions.columns[0]
        self.shards = base.shards

    def counts(self) -> Ints:
        """See `Tables`."""
        return self._counted

    @cached_property
    def _counted(self) -> Ints:
        return count_all(self)

    def read(self, shard: int) -> ShardTable:
        """See `Tables`.

        Raises:
            DamageError: captions are found by key, and a key is not unique in the shard.
        """
        table = self._base.read(shard)
        if self._by == "key" and table.rows["key"].is_duplicated().any():
            raise DamageError("two samples have the same key", where=table.path)
        joined = table.rows.drop("texts", "weights", "written_by").join(
            self._captions, on=self._by, how="inner", maintain_order="left"
        )
        return ShardTable(table.path, joined.select(ROWS.names()), table.verify)

    def images(self, shard: int) -> pl.Series:
        """See `Tables`."""
        return self._base.images(shard)


def split_table(spec: str) -> tuple[str, str, str] | None:
    """Split `DATASET@TABLE.parquet:COLUMN` into its parts; None if it does not name a table."""
    dataset, at, rest = spec.rpartition("@")
    pattern, colon, column = rest.rpartition(":")
    if not colon:
        pattern, column = rest, DEFAULT_COLUMN
    if not at or not pattern.endswith(SUFFIXES):
        return None
    return dataset, pattern, column


def read_captions(pattern: str, column: str) -> tuple[pl.DataFrame, str]:
    """Read a column of captions.

    Returns (one row per image: `image_sha256` or `key`, texts, weights, written_by; their digest).

    Raises:
        UsageError: no such file or column, or no column that identifies images.
    """
    suffix = next(one for one in SUFFIXES if pattern.endswith(one))
    _, paths = find(pattern, suffix=suffix)
    schemas = {path: _schema(path) for path in paths}
    if not any(column in schema for schema in schemas.values()):
        raise _no_column(pattern, list(dict.fromkeys(chain(*schemas.values()))), column)
    # A file without the column counts as a file whose rows all lack a caption.
    frames = [_read(path, schema, column) for path, schema in schemas.items() if column in schema]
    if any(frame.schema != frames[0].schema for frame in frames):
        raise UsageError(
            f"the tables name images differently, or differ in the type of {column!r}",
            where=pattern,
        )
    rows = pl.concat(frames).drop_nulls()
    if isinstance(rows.schema["texts"], pl.List):
        rows = rows.explode("texts").drop_nulls()
    rows = rows.filter(~pl.col("texts").str.contains(BLANK))
    by = rows.columns[0]
    captions = (
        rows.with_columns(
            weights=(1 / pl.len().over(by)).cast(pl.Float32), written_by=pl.lit(column)
        )
        .group_by(by, maintain_order=True)
        .agg("texts", "weights", "written_by")
    )
    return captions, parquet.content_digest(captions.sort(by).to_arrow())


def _lazy(path: Path) -> pl.LazyFrame:
    # None: infer the schema from all lines. From the first hundred, later columns would be missed.
    is_parquet = path.suffix == ".parquet"
    return pl.scan_parquet(path) if is_parquet else pl.scan_ndjson(path, infer_schema_length=None)


def _schema(path: Path) -> pl.Schema:
    """Return all columns of one file."""
    try:
        return _lazy(path).collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _unreadable(path, error) from error


def _read(path: Path, schema: pl.Schema, column: str) -> pl.DataFrame:
    by = next((name for name in _BY if name in schema), None)
    if by is None:
        raise _no_column(path, schema.names(), column)
    # A column of nulls only is a column without texts.
    kinds = {pl.Null(): pl.String(), pl.List(pl.Null): pl.List(pl.String)}
    kind = kinds.get(schema[column], schema[column])
    if kind not in (pl.String, pl.List(pl.String)):
        raise UsageError(f"{column!r} holds {schema[column]}, not texts", where=path)
    chosen = pl.col(by).cast(pl.String), pl.col(column).cast(kind).alias("texts")
    try:
        return _lazy(path).select(chosen).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UsageError:
    first = str(error).splitlines()[0][:200]
    return UsageError(f"the table cannot be read ({first})", where=path)


def _no_column(where: object, names: Sequence[str], column: str) -> UsageError:
    return UsageError(
        f"there is no column {column!r}" if column not in names else "no column names the images",
        where=where,
        hint=f"columns: {', '.join(names)}; needed: {' or '.join(_BY)}, and one with texts",
        reason="option.value",
    )
