"""A source: the samples with texts that a run trains on, and the pairs held out from it.

Held-out pairs are the images whose sha256 hashes lowest among all usable images of the dataset.
They are the same for every version and control; a version that leaves some of them out has fewer.
Copies of an image are held out together. Where a control shuffles or cuts texts, held-out pairs
keep the texts of the version, so that all arms are tested on the same pairs. Finding them reads
every table once, some 3 us per sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from curator.core.errors import UsageError
from pretrain.data.rng import Hashes, Ints, hashes
from pretrain.data.tables import ShardTable, Tables, over_all

_HELD_OUT = 3  # purpose of draws
_HEX_DIGITS = 15  # 60 bits fit into a signed integer


class Source:
    """The samples of `tables`. `about` describes in JSON values where they come from.

    `unchanged` are the tables before a control changed them, for held-out pairs.

    Raises:
        UsageError: there are no samples.
    """

    def __init__(
        self,
        tables: Tables,
        *,
        name: str,
        source_id: str,
        about: Mapping[str, Any],
        unchanged: Tables | None = None,
    ) -> None:
        self.name = name
        self.id = source_id
        self.tables = tables
        self.counts: Ints = tables.counts()
        self.num_samples = int(self.counts.sum())
        self._about = dict(about)
        self._unchanged = tables if unchanged is None else unchanged
        if self.num_samples == 0:
            raise UsageError(
                f"{name} has no sample to train on",
                hint="`curator show` says what happened to the samples of a version",
                reason="pretrain.no_samples",
            )

    def read(self, shard: int) -> ShardTable:
        """Read the samples of one shard."""
        return self.tables.read(shard)

    def describe(self) -> dict[str, Any]:
        """Return where the samples come from and how many there are, for a report."""
        return {
            "name": self.name,
            "id": self.id,
            "num_samples": self.num_samples,
            "num_shards": len(self.tables.shards),
            **self._about,
        }

    def split(self, held_out: int, seed: int = 0) -> tuple[Source, Source]:
        """Return (the source without its held-out pairs, the held-out pairs).

        Raises:
            UsageError: `held_out` is not positive, or leaves one side without samples.
        """
        if held_out < 1:
            raise UsageError(f"held_out is {held_out}", hint="allowed: 1 or more")

        def look(shard: int) -> _Lowest:
            return _lowest(self._unchanged, self.tables, shard, held_out, seed)

        looked = over_all(self.tables, "find held-out pairs", look)
        lowest: Hashes = np.empty(0, np.uint64)
        for one in looked:
            lowest = np.unique(np.concatenate([lowest, one.images]))[:held_out]
        limit = int(lowest[-1]) if len(lowest) else 0
        below = np.array([(one.samples <= limit).sum() for one in looked], np.int64)
        held = np.array([(one.unchanged <= limit).sum() for one in looked], np.int64)
        train = _Side(self.tables, self.counts - below, limit, seed, is_held=False)
        pairs = _Side(self._unchanged, held, limit, seed, is_held=True)
        about = self._about | {"held_out": int(held.sum())}
        return (
            Source(train, name=self.name, source_id=self.id, about=about),
            Source(pairs, name=f"{self.name}, held out", source_id=self.id, about=about),
        )


class _Lowest(NamedTuple):
    """Hashes in a shard that may be held out: of the dataset's images, and of the samples."""

    images: Hashes
    samples: Hashes
    unchanged: Hashes


def _lowest(unchanged: Tables, tables: Tables, shard: int, held_out: int, seed: int) -> _Lowest:
    images = np.unique(image_hashes(unchanged.images(shard), seed))[:held_out]
    limit = images[-1] if len(images) == held_out else np.uint64(2**64 - 1)

    def below(which: Tables) -> Hashes:
        found = image_hashes(which.read(shard).rows["image_sha256"], seed)
        return found[found <= limit]

    samples = below(tables)
    return _Lowest(images, samples, samples if unchanged is tables else below(unchanged))


class _Side:
    """Tables of the samples above the hash limit, or, with `is_held`, of those below."""

    def __init__(
        self, tables: Tables, counts: Ints, limit: int, seed: int, *, is_held: bool
    ) -> None:
        self._tables = tables
        self._counts = counts
        self._limit = limit
        self._seed = seed
        self._is_held = is_held
        self.shards = tables.shards

    def counts(self) -> Ints:
        return self._counts

    def read(self, shard: int) -> ShardTable:
        table = self._tables.read(shard)
        below: npt.NDArray[np.bool_] = (
            image_hashes(table.rows["image_sha256"], self._seed) <= self._limit
        )
        keep = below if self._is_held else ~below
        return ShardTable(table.path, table.rows.filter(pl.Series(keep)), table.verify)

    def images(self, shard: int) -> pl.Series:
        return self._tables.images(shard)


def image_hashes(sha256: pl.Series, seed: int) -> Hashes:
    """Return a hash for each image, which does not depend on its shard; each seed orders anew."""
    digits = sha256.str.head(_HEX_DIGITS).str.to_integer(base=16, dtype=pl.Int64)
    return hashes(seed, _HELD_OUT, digits.to_numpy())
