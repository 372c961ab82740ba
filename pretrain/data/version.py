"""Tables of a version in a store: the decision on each shard joined to the index of its bytes.

Nothing is exported and no image is copied. Opening reads only the version's manifest if that has
the number of samples (`chosen`, `generated`); the other choices need a pass over the tables.
Reading a table takes some 3 us per sample.

A shard is trusted if it has the size and the time that it was indexed with. If the time differs, as
after copying a dataset, every image of the shard is hashed when it is read. Hashing always would
cost a few percent of decoding and find nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from curator.core import hashing
from curator.core.errors import DamageError
from curator.export.shards import EXPORTED
from curator.policy.decider import read_decision
from curator.policy.model import ALT_TEXT
from curator.shards.dataset import ShardRef
from curator.shards.digest import short
from curator.shards.places import changed, is_same, stamp
from curator.store import index
from curator.store.store import Store
from curator.store.versions import ShardEntry, Version, shards_of
from pretrain.data.rng import Ints
from pretrain.data.tables import ROWS, ShardTable, count_all

_PLACES = ("row", "key", "offset", "length", "image_sha256", "alt_text", "reason")
_BAD_IMAGE = "image."
_RESTORE = "restore the shard from a backup, or index it and decide again"


class IndexTables:
    """Tables of all usable images of indexed shards, with their alt text or without a text."""

    def __init__(self, store: Store, refs: Sequence[ShardRef]) -> None:
        self._store = store
        self._refs = tuple(refs)
        self.shards = tuple(ref.name for ref in refs)

    def counts(self) -> Ints:
        """Read the counts from the headers of the indexes, a millisecond per shard."""
        facts = [index.shard_facts(self._store, shard) for shard in self.shards]
        return np.array([one.num_samples - one.num_unusable for one in facts], np.int64)

    def digest(self) -> str:
        """Return the identity of the shards, by their bytes."""
        facts = {shard: index.shard_facts(self._store, shard).digest for shard in self.shards}
        return hashing.digest(facts)

    def read(self, shard: int) -> ShardTable:
        """See `Tables`."""
        usable = self.places(shard).filter(pl.col("reason").is_null())
        return self.table(shard, with_alt_texts(usable))

    def images(self, shard: int) -> pl.Series:
        """See `Tables`."""
        columns = ["image_sha256", "reason"]
        rows = index.read(self._store, self.shards[shard], columns)
        return rows.filter(pl.col("reason").is_null())["image_sha256"]

    def places(self, shard: int) -> pl.DataFrame:
        """Read all samples of a shard, usable or not, by row."""
        return index.read(self._store, self.shards[shard], _PLACES)

    def table(self, shard: int, rows: pl.DataFrame, *, digest: str | None = None) -> ShardTable:
        """Return the table of `rows`, after checking that the shard is the indexed one.

        Raises:
            DamageError: the shard or its index has changed (source.changed).
        """
        facts = index.shard_facts(self._store, self.shards[shard])
        path = self._refs[shard].path
        found = stamp(path)
        if found is None:
            raise changed(path, "it is gone", hint=_RESTORE)
        if digest is not None and not is_same(path, digest, facts.digest):
            raise changed(
                path,
                f"its digest was {short(digest)}, but the index is of {short(facts.digest)}",
                hint=_RESTORE,
            )
        if found.size_bytes != facts.size_bytes:
            raise changed(
                path, f"{found.size_bytes:,} bytes instead of {facts.size_bytes:,}", hint=_RESTORE
            )
        moved = not found.is_same(facts.stamp)
        return ShardTable(path, rows.select(ROWS.names()).cast(ROWS), verify=moved)


@dataclass(frozen=True, slots=True)
class CaptionChoice:
    """A choice of samples and texts. `count` reads a manifest entry; if None, a pass counts."""

    rows: Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame]
    count: Callable[[ShardEntry], int] | None = None


class VersionTables:
    """Tables of one choice (a key of CHOICES) from the samples and texts of a version."""

    def __init__(
        self, store: Store, version: Version, refs: Sequence[ShardRef], choice: str
    ) -> None:
        self._store = store
        self._entries = version.shards
        self._index = IndexTables(store, list(shards_of(version, refs).values()))
        self._choice = CHOICES[choice]
        self.shards = self._index.shards

    def counts(self) -> Ints:
        """See `Tables`."""
        return self._counted

    @cached_property
    def _counted(self) -> Ints:
        count = self._choice.count
        if count is None:
            return count_all(self)
        return np.array([count(entry) for entry in self._entries], np.int64)

    def read(self, shard: int) -> ShardTable:
        """See `Tables`.

        Raises:
            DamageError: decision, index or shard differ from those that the version was made from.
        """
        entry = self._entries[shard]
        rows = self._choice.rows(read_decision(self._store, entry), self._index.places(shard))
        if self._choice.count is not None and len(rows) != self._choice.count(entry):
            raise DamageError(
                f"the manifest counts {self._choice.count(entry)} samples, {len(rows)} were found",
                where=self._store.root / entry.file,
                hint="`curator fsck` lists everything damaged",
            )
        return self._index.table(shard, rows, digest=entry.digest)

    def images(self, shard: int) -> pl.Series:
        """See `Tables`."""
        return self._index.images(shard)


def with_alt_texts(places: pl.DataFrame) -> pl.DataFrame:
    """Return samples with their alt text, if any, as their only text."""
    has = pl.col("alt_text").is_not_null()
    return places.with_columns(
        texts=pl.when(has).then(pl.concat_list("alt_text")).otherwise(pl.lit([], ROWS["texts"])),
        weights=pl.when(has)
        .then(pl.lit([1.0], ROWS["weights"]))
        .otherwise(pl.lit([], ROWS["weights"])),
        written_by=pl.when(has)
        .then(pl.lit([ALT_TEXT], ROWS["written_by"]))
        .otherwise(pl.lit([], ROWS["written_by"])),
    )


def _with_texts(decided: pl.DataFrame, places: pl.DataFrame) -> pl.DataFrame:
    """Return the chosen texts of each sample by slot, with weights that sum to 1.

    If all weights are 0 (a policy that weighs a source with 0 and finds no other), they count as
    equal.
    """
    grouped = decided.group_by("row", maintain_order=True).agg(
        texts=pl.col("text"),
        weights=pl.when(pl.col("weight").sum() > 0)
        .then(pl.col("weight") / pl.col("weight").sum())
        .otherwise(1 / pl.len()),
        written_by=pl.col("source"),
    )
    return grouped.join(places, on="row", how="inner", maintain_order="left")


def _chosen(decided: pl.DataFrame, places: pl.DataFrame) -> pl.DataFrame:
    return _with_texts(decided.filter(pl.col("action").is_in(EXPORTED)), places)


def _generated(decided: pl.DataFrame, places: pl.DataFrame) -> pl.DataFrame:
    by_models = pl.col("action").is_in(EXPORTED) & (pl.col("source") != ALT_TEXT)
    return _with_texts(decided.filter(by_models), places)


def _filtered(decided: pl.DataFrame, places: pl.DataFrame) -> pl.DataFrame:
    kept = decided.filter(pl.col("action").is_in(EXPORTED)).select("row").unique()
    mine = places.join(kept, on="row", how="semi", maintain_order="left")
    return with_alt_texts(mine.filter(pl.col("alt_text").is_not_null()))


def _images(decided: pl.DataFrame, places: pl.DataFrame) -> pl.DataFrame:
    """Return usable images, without those that made a model fail: some damage shows on decoding."""
    broken = (pl.col("action") == "quarantined") & pl.col("because").str.starts_with(_BAD_IMAGE)
    usable = places.filter(pl.col("reason").is_null())
    return with_alt_texts(usable.join(decided.filter(broken), on="row", how="anti"))


def _alt_texts(decided: pl.DataFrame, places: pl.DataFrame) -> pl.DataFrame:
    return _images(decided, places).filter(pl.col("alt_text").is_not_null())


CHOICES: Mapping[str, CaptionChoice] = {
    "chosen": CaptionChoice(
        _chosen, lambda entry: sum(entry.counts[action] for action in EXPORTED)
    ),
    "captions-only": CaptionChoice(_generated, lambda entry: entry.counts["captioned"]),
    "filter-only": CaptionChoice(_filtered),
    "alt-only": CaptionChoice(_alt_texts),
    "images": CaptionChoice(_images),
}
"""Name -> choice. `chosen` is the version as it is, `images` all its usable images."""
