"""Control arms: the same images with other texts, to tell what it is in a version that helps.

    shuffled        every sample gets the texts of another: what the images alone teach
    count-matched   as many samples as the reference version: quality against quantity
    length-matched  texts cut to the lengths of the reference version: content against length
    captions-only   texts that are no alt texts: generated, or edited by hand
    filter-only     the samples that the version keeps, with their alt texts
    alt-only        all usable samples with their alt texts: the raw data

The last three are choices from a version (`pretrain.data.version`), the first three change
tables of any source. All are functions of a seed, and read one shard at a time.
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
"""Samples among which texts are shuffled at least: shards in order of their names are put together
until they have so many. Larger shards are shuffled each by itself."""

LENGTH_SHARDS = 100
"""Shards from which the lengths of a version are taken, spread over all of it."""

_SHUFFLE, _MATCH, _LENGTH = 4, 5, 6  # purposes of draws
_ORDER = ("texts", "weights", "written_by")


def change(control: str, tables: Tables, reference: Tables | None, seed: int) -> Tables:
    """`tables` under one of CHANGES; some of them need the reference version's."""
    if control == "shuffled":
        return Shuffled(tables, seed)
    assert reference is not None, "checked by whoever opens the source"
    if control == "count-matched":
        return CountMatched(tables, int(reference.counts().sum()), seed)
    return LengthMatched(tables, reference, seed)


class Shuffled:
    """Every sample gets the texts of another one, with their weights.

    No sample keeps a first text equal to its own, as long as no text makes up more than half of
    those that are shuffled together.
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
        """See `Tables`. Reads all shards that are shuffled with this one."""
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
    """Neighbouring shards put together until they have `at_least` samples."""
    groups: list[tuple[int, ...]] = []
    group, size = list[int](), 0
    for shard, count in enumerate(counts.tolist()):
        group.append(shard)
        size += count
        if size >= at_least:
            groups.append(tuple(group))
            group, size = [], 0
    if group:  # what is left over goes to the last group
        groups.append((groups.pop() if groups else ()) + tuple(group))
    return groups


def derangement(texts: Sequence[str], draws: Hashes) -> Ints:
    """For each place the place whose text it gets: another text, where that can be.

    Places are laid in a ring, equal texts side by side, the different texts in random order, and
    the ring is turned by the number of the most frequent text. Then nobody meets an equal text
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
    """`num_samples` of the samples: each shard gives its share, the images that hash lowest.

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
                f"the reference has {num_samples:,} samples, this only {counts.sum():,}",
                hint="count-match the larger one, with the smaller one as the reference",
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
    """`total` dealt out in proportion to `counts`, by largest remainder; none above its count."""
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
    """Texts cut to as many words as the reference has at the same rank of length.

    A text of this version that is longer than a share q of all texts is cut to the length that is
    longer than a share q of the reference's texts; a text that is shorter than that stays. So the
    lengths come out as the reference's wherever this version is the longer one. Texts of equal
    length take their ranks by lot. Lengths count words between white space, each text by its
    sampling weight, in LENGTH_SHARDS shards of either version.
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
        """The words left of texts of `lengths` words; `draws` in [0, 1) place equal ones."""
        inside = np.minimum(lengths, len(self._own) - 1)
        below = np.concatenate([[0.0], np.cumsum(self._own)])[inside]
        rank = below + draws * self._own[inside]
        # Rounding must not lead past the longest text.
        theirs = np.searchsorted(self._theirs, np.minimum(rank, self._theirs[-1] - 1e-12), "right")
        cut: Ints = np.minimum(lengths, np.maximum(theirs, 1))
        return cut


def length_shares(tables: Tables) -> Floats:
    """Share of the texts that have 0, 1, 2, ... words, by sampling weight; adds up to 1.

    Raises:
        UsageError: there is no text.
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
