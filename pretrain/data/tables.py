"""The contract of tables, which list images and their texts shard by shard.

    pretrain.data.version         a version in a store: decisions joined to the index, reads no
    image pretrain.data.tars            shards without a store: an exported version, or any
    WebDataset pretrain.data.captions_table  captions from the user's own table, for the images of
    either

A table is read when its shard is needed and freed afterwards. Counts are separate from the tables,
so that a dataset can be opened, and its order computed, without reading them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import polars as pl

from curator.core import progress
from curator.shards.places import Place
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
"""One row per sample: where the encoded image is in the shard (bytes), and its texts by slot with
their sampling weights (adding up to 1) and who wrote them: `alt_text`, or a generator's name."""

SHARDS_AT_ONCE = 4
"""Number of threads for a pass over all tables; reading and joining release the GIL."""

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class ShardTable:
    """The samples of one shard, `rows` in the columns of ROWS.

    With `verify` the file's time has changed since its images were indexed (its size has not), and
    each image must be hashed when it is read.
    """

    path: Place
    rows: pl.DataFrame
    verify: bool = False


class Tables(Protocol):
    """Tables of the `shards`, numbered from 0."""

    @property
    def shards(self) -> tuple[str, ...]:
        """Return the names of the shards."""
        ...

    def counts(self) -> Ints:
        """Return samples per table (num_shards,), from manifests if possible, else by a pass."""
        ...

    def read(self, shard: int) -> ShardTable:
        """Read the table of one shard, with as many rows as counted. Thread-safe."""
        ...

    def images(self, shard: int) -> pl.Series:
        """Return the sha256 of all usable images of the shard, whether chosen here or not."""
        ...


def over_all(
    tables: Tables, what: str, look: Callable[[int], Found], *, shards: Iterable[int] | None = None
) -> list[Found]:
    """Call `look` for every shard (or for `shards`), in threads, with a progress bar."""
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
    """Count the samples of tables by reading them."""
    counts = over_all(tables, "count samples", lambda shard: len(tables.read(shard).rows))
    return np.array(counts, np.int64)
