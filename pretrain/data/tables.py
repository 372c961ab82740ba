"""Where images and their texts come from: the contract of tables, shard by shard.

    pretrain.data.version   a version in a store: decisions joined to the index, no image read
    pretrain.data.tars      shards without a store: an exported version, or any WebDataset
    pretrain.data.captions_table  captions from a table of the user's, for the images of either

A table is read when its shard is next and let go afterwards. Counts stand apart from the tables,
so that a dataset can be opened, and its order known, without reading them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import polars as pl

from curator.core import progress
from pretrain.data.rng import Ints

ROWS = pl.Schema(
    {
        "key": pl.String(),
        "image_sha256": pl.String(),
        "offset": pl.Int64(),
        "length": pl.Int64(),
        "texts": pl.List(pl.String()),
        "weights": pl.List(pl.Float32()),
        "written_by": pl.List(pl.String()),
    }
)
"""One row a sample: where the encoded image lies in the shard (bytes), and its texts by slot with
their sampling weights (adding up to 1) and who wrote them: `alt_text`, or a generator's name."""

SHARDS_AT_ONCE = 4
"""Threads of a pass over all tables: reading and joining release the GIL."""

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class ShardTable:
    """The samples of one shard, `rows` in the columns of ROWS.

    With `verify` the file was touched since its images were indexed (same size, other time), and
    each image has to be hashed when it is read.
    """

    path: Path
    rows: pl.DataFrame
    verify: bool = False


class Tables(Protocol):
    """Tables of the shards `shards`, numbered from 0."""

    @property
    def shards(self) -> tuple[str, ...]:
        """Names of the shards."""
        ...

    def counts(self) -> Ints:
        """Samples in each table (num_shards,). From manifests where they say it, else a pass."""
        ...

    def read(self, shard: int) -> ShardTable:
        """The table of one shard; has as many rows as counted. Safe in threads."""
        ...

    def images(self, shard: int) -> pl.Series:
        """sha256 of all images of the shard that could be used, chosen here or not."""
        ...


def over_all(
    tables: Tables, what: str, look: Callable[[int], Found], *, shards: Iterable[int] | None = None
) -> list[Found]:
    """`look` at every shard (or at `shards`), in threads, with a bar."""
    numbers = list(range(len(tables.shards)) if shards is None else shards)
    found: list[Found] = []
    with (
        progress.bar(what, len(numbers), "shards") as advance,
        ThreadPoolExecutor(SHARDS_AT_ONCE) as pool,
    ):
        try:
            for one in pool.map(look, numbers):
                found.append(one)
                advance(1)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return found


def count_all(tables: Tables) -> Ints:
    """The counts of tables that have to be read for it."""
    counts = over_all(tables, "count samples", lambda shard: len(tables.read(shard).rows))
    return np.array(counts, np.int64)
