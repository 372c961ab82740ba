"""Control arms: the same images with other texts, to find out why a version helps.

    shuffled        each sample gets another sample's texts: the effect of the images alone
    count-matched   as many samples as the reference version: quality versus quantity
    length-matched  texts cut to the lengths of the reference version: content versus length
    captions-only   only texts that are not alt texts: generated, or edited by hand
    filter-only     the samples that the version keeps, with their alt texts
    alt-only        all usable samples with their alt texts: the raw data

The first three change the tables of any source, the last three are choices from a version
(`pretrain.data.version`). All depend only on a seed and read one shard at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import polars as pl

from curator.core.errors import UsageError
from pretrain.data.rng import Floats, Hashes, Ints, hashes, uniforms
from pretrain.data.source import image_hashes
from pretrain.data.tables import ROWS, ShardTable, Tables, over_all

CHANGES = ("shuffled", "count-matched", "length-matched")
CHOICES = ("captions-only", "filter-only", "alt-only")

SHUFFLED_TOGETHER = 1000
"""Smallest number of samples among which texts are shuffled. Shards are grouped in order of their
names until a group has so many; larger shards are shuffled each by itself."""

LENGTH_SHARDS = 100
"""Number of shards, spread over a version, from which its text lengths are taken."""

_SHUFFLE, _MATCH, _LENGTH = 4, 5, 6  # purposes of draws
_ORDER = ("texts", "weights", "written_by")


def change(control: str, tables: Tables, reference: Tables | None, seed: int) -> Tables:
    """Apply one of CHANGES to `tables`; some of them need the tables of the reference version."""
    if control == "shuffled":
        return Shuffled(tables, seed)
    assert reference is not None, "checked by whoever opens the source"
    if control == "count-matched":
        return CountMatched(tables, int(reference.counts().sum()), seed)
    return LengthMatched(tables, reference, seed)


class Shuffled:
    """Tables in which each sample has the texts, and their weights, of another sample.

    No sample gets a first text equal to its own, as long as no text makes up more than half of the
    texts that are shuffled together.
    """

    def __init__(self, tables: Tables, seed: int) -> None:
        self._tables = tables
        self._seed = seed
        self.shards = tables.shards
        self._counts = tables.counts()
        self._groups = together(self._counts, SHUFFLED_TOGETHER)
        self._group_of = {shard: group for group in self._groups for shard in group}
        self._texts = lru_cache(maxsize=2)(self._shuffle)

    def counts(self) -> Ints:
        """See `Tables`."""
        return self._counts

    def read(self, shard: int) -> ShardTable:
        """See `Tables`. Reads all shards of this one's group."""
        table = self._tables.read(shard)
        group = self._group_of[shard]
        start = int(self._counts[group[0] : shard].sum())
        texts = self._texts(group).slice(start, len(table.rows))
        rows = table.rows.drop(_ORDER).hstack(texts.get_columns())
        return ShardTable(table.path, rows.select(ROWS.names()), table.verify)

    def images(self, shard: int) -> pl.Series:
        """See `Tables`."""
        return self._tables.images(shard)

    def _shuffle(self, group: tuple[int, ...]) -> pl.DataFrame:
        rows = pl.concat([self._tables.read(shard).rows for shard in group])
        first = rows["texts"].list.first().fill_null("").to_list()
        giver = derangement(first, hashes(self._seed, _SHUFFLE, group[0], np.arange(len(rows))))
        return rows.select(_ORDER)[giver]


def together(counts: Ints, at_least: int) -> list[tuple[int, ...]]:
    """Group neighbouring shards until each group has `at_least` samples."""
    groups: list[tuple[int, ...]] = []
    group, size = list[int](), 0
    for shard, count in enumerate(counts.tolist()):
        group.append(shard)
        size += count
        if size >= at_least:
            groups.append(tuple(group))
            group, size = [], 0
    if group:  # the remainder joins the last group
        groups.append((groups.pop() if groups else ()) + tuple(group))
    return groups


def derangement(texts: Sequence[str], draws: Hashes) -> Ints:
    """Return for each place the place whose text it gets: a different text wherever possible.

    Places are arranged in a ring, equal texts side by side, the different texts in random order.
    The ring is turned by the count of the most frequent text. Then no place gets an equal text,
    unless one text has more than half of the places.
    """
    if not texts:
        return np.empty(0, np.int64)
    _, kind, count = np.unique(np.array(texts, object), return_inverse=True, return_counts=True)
    place_of_kind = np.full(len(count), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(place_of_kind, kind, draws)
    ring = np.lexsort((draws, kind, place_of_kind[kind]))
    giver = np.empty(len(texts), np.int64)
    giver[ring] = np.roll(ring, int(count.max()))
    return giver


class CountMatched:
    """`num_samples` samples: from each shard in proportion, the images that hash lowest.

    Raises:
        UsageError: there are fewer than `num_samples`.
    """

    def __init__(self, tables: Tables, num_samples: int, seed: int) -> None:
        self._tables = tables
        self._seed = seed
        self.shards = tables.shards
        counts = tables.counts()
        if num_samples > counts.sum():
            raise UsageError(
                f"the reference has {num_samples:,} samples, this version only {counts.sum():,}",
                hint="count-match the larger version, with the smaller one as the reference",
                reason="option.value",
            )
        self._counts = shares(counts, num_samples)

    def counts(self) -> Ints:
        """See `Tables`."""
        return self._counts

    def read(self, shard: int) -> ShardTable:
        """See `Tables`."""
        table = self._tables.read(shard)
        draws = hashes(self._seed, _MATCH, image_hashes(table.rows["image_sha256"], self._seed))
        kept = np.sort(np.argsort(draws, kind="stable")[: self._counts[shard]])
        return ShardTable(table.path, table.rows[kept], table.verify)

    def images(self, shard: int) -> pl.Series:
        """See `Tables`."""
        return self._tables.images(shard)


def shares(counts: Ints, total: int) -> Ints:
    """Divide `total` in proportion to `counts`, by largest remainder; none exceeds its count."""
    whole = int(counts.sum())
    if whole == 0:
        return counts
    exact = [int(count) * total for count in counts]  # Python integers: no overflow, no rounding
    dealt = np.array([one // whole for one in exact], np.int64)
    remainders = np.array([one % whole / whole for one in exact])
    left = total - int(dealt.sum())
    dealt[np.argsort(-remainders, kind="stable")[:left]] += 1
    return dealt


class LengthMatched:
    """Tables whose texts are cut to the length of the reference's texts at the same quantile.

    A text at quantile q of this version's lengths is cut to the length at quantile q of the
    reference's; a text that is already shorter stays as it is. So the two distributions agree
    wherever this version is the longer one. Ties in length are ranked at random. Lengths are words
    separated by white space, each text counted by its sampling weight, in LENGTH_SHARDS shards of
    either version.
    """

    def __init__(self, tables: Tables, reference: Tables, seed: int) -> None:
        self._tables = tables
        self._seed = seed
        self.shards = tables.shards
        self._own = length_shares(tables)
        self._theirs = np.cumsum(length_shares(reference))

    def counts(self) -> Ints:
        """See `Tables`."""
        return self._tables.counts()

    def read(self, shard: int) -> ShardTable:
        """See `Tables`."""
        table = self._tables.read(shard)
        rows = table.rows
        owners = np.repeat(np.arange(len(rows)), rows["texts"].list.len().to_numpy())
        slots = np.arange(len(owners)) - np.searchsorted(owners, owners)
        draws = uniforms(
            self._seed, _LENGTH, image_hashes(rows["image_sha256"], self._seed)[owners], slots
        )
        texts = rows["texts"].explode(empty_as_null=False).to_list()
        words = [text.split() for text in texts]
        lengths = self.cut_lengths(np.array([len(one) for one in words], np.int64), draws)
        cut = [
            text if length >= len(one) else " ".join(one[:length])
            for text, one, length in zip(texts, words, lengths.tolist(), strict=True)
        ]
        lists = pl.DataFrame({"owner": owners, "text": cut}, schema_overrides={"text": pl.String})
        grouped = lists.group_by("owner", maintain_order=True).agg("text")
        return ShardTable(table.path, rows.with_columns(texts=grouped["text"]), table.verify)

    def images(self, shard: int) -> pl.Series:
        """See `Tables`."""
        return self._tables.images(shard)

    def cut_lengths(self, lengths: Ints, draws: Floats) -> Ints:
        """Return the words to keep of texts of `lengths` words; `draws` in [0, 1) break ties."""
        inside = np.minimum(lengths, len(self._own) - 1)
        below = np.concatenate([[0.0], np.cumsum(self._own)])[inside]
        rank = below + draws * self._own[inside]
        # Rounding must not index past the longest text.
        theirs = np.searchsorted(self._theirs, np.minimum(rank, self._theirs[-1] - 1e-12), "right")
        cut: Ints = np.minimum(lengths, np.maximum(theirs, 1))
        return cut


def length_shares(tables: Tables) -> Floats:
    """Return the fraction of texts with 0, 1, 2, ... words, by sampling weight; sums to 1.

    Raises:
        UsageError: there are no texts.
    """
    filled = np.flatnonzero(tables.counts())
    if not len(filled):
        raise UsageError("there are no texts to take lengths from", reason="option.value")
    if len(filled) > LENGTH_SHARDS:
        filled = filled[np.linspace(0, len(filled) - 1, LENGTH_SHARDS).astype(np.int64)]

    def look(shard: int) -> Floats:
        rows = tables.read(shard).rows.select("texts", "weights")
        flat = rows.explode("texts", "weights", empty_as_null=False)
        words = flat["texts"].str.count_matches(r"\S+").to_numpy()
        return np.bincount(words, flat["weights"].to_numpy()).astype(np.float64)

    found = over_all(tables, "count words", look, shards=filled.tolist())
    shares = np.zeros(max(map(len, found)))
    for one in found:
        shares[: len(one)] += one
    total: Floats = shares / shares.sum()
    return total
