"""Browse one version: filter, count, histogram, and pages in any order.

There is one row per chosen text, and one for each sample without any. A filter takes milliseconds
over the compact columns (`curator.browse.columns`); a page reads its texts from the shards it
touches. The last few results are cached at 4 bytes a row.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock
from typing import Literal

import numpy as np
import polars as pl

from curator.browse.columns import SHARDS_AT_ONCE, Array, VersionColumns
from curator.browse.filters import Filter, Sort, check_sort
from curator.browse.sample import SampleReader, SampleView
from curator.browse.shelf import FactShelf
from curator.scorers.text import FLAGS
from curator.store import index, parquet
from curator.store.schemas import DECISION_SCHEMA
from curator.store.store import Store
from curator.store.versions import Version

Support = Literal["low", "middle", "high"]

_REMEMBERED = 6
_PAGE_COLUMNS = (
    *("row", "slot", "key", "image_sha256", "action", "text", "text_sha256"),
    *("source", "weight", "score", "because"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of results. `rows`: shard, the columns of a decision, alt_text, gain; one row a text.

    `gain` (score minus the alt text's score) is null unless the page is sorted by it or the column
    was loaded before. `total` counts the rows of all pages.
    """

    rows: pl.DataFrame
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """`counts[i]` texts score from `edges[i]` up to `edges[i + 1]`; the last edge is included."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facets:
    """The values that filters can be set to, with row counts where these cost nothing.

    `scores` is the lowest and highest score, None without scores; `flags` need not occur.
    """

    actions: dict[str, int]
    sources: dict[str, int]
    because: dict[str, int]
    shards: dict[str, int]
    flags: tuple[str, ...]
    scores: tuple[float, float] | None


class Catalog:
    """See the module. Thread-safe; never writes to the store."""

    def __init__(self, store: Store, version: Version, shelf: FactShelf | None = None) -> None:
        self.store = store
        self.version = version
        self.shelf = shelf or FactShelf(store)
        self.columns = VersionColumns(store, version, self.shelf)
        self._found: OrderedDict[object, Array] = OrderedDict()
        self._lock = Lock()

    def warm(self) -> None:
        """Load the slow columns (facts of models, texts) now, so that later calls do not wait."""
        _ = self.columns.searched, self.columns.gains, self.columns.flags
        if len(self.store.numbers()) > 1:
            _ = self.columns.signatures

    def count(self, filter_: Filter) -> int:
        """Return the number of rows that pass the filter."""
        if filter_.is_open:
            return len(self.columns.frame)
        return len(self._passing(filter_))

    def histogram(
        self, filter_: Filter, bins: int = 40, *, limits: tuple[float, float] | None = None
    ) -> Histogram | None:
        """Return a histogram of the scores that pass the filter without its score limits.

        The edges span `limits`, or the scores of the whole version, so that they stay fixed while
        conditions change. Returns None if no text of the version has a score.
        """
        limits = limits or self.facets().scores
        if limits is None or self.facets().scores is None:
            return None
        rows = self._passing(filter_.without_scores())
        scores = self.columns.scores[rows]
        low, high = limits if limits[0] < limits[1] else (limits[0], limits[0] + 1e-3)
        counts, edges = np.histogram(scores[np.isfinite(scores)], bins, (low, high))
        return Histogram(edges=tuple(edges.tolist()), counts=tuple(counts.tolist()))

    def page(
        self,
        filter_: Filter,
        sort: Sort = "shard",
        *,
        descending: bool = False,
        start: int = 0,
        count: int = 50,
    ) -> Page:
        """Return rows `start` to `start + count` of those that pass the filter, sorted.

        Rows without a value to sort by come last; ties are in order of the shards.

        Raises:
            UsageError: no such order.
        """
        check_sort(sort)
        rows = self._sorted(filter_, sort, descending)
        return Page(rows=self._read(rows[start : start + count]), total=len(rows))

    def facets(self) -> Facets:
        """Return the values that filters can be set to."""
        return self._facets

    @cached_property
    def _facets(self) -> Facets:
        frame, columns = self.columns.frame, self.columns
        scores = columns.scores[np.isfinite(columns.scores)]
        sizes = np.diff(columns.starts).tolist()
        return Facets(
            actions=_counts(frame["action"]),
            sources=_counts(frame["source"]),
            because=_counts(frame["because"]),
            shards=dict(zip([shard.name for shard in columns.shards], sizes, strict=True)),
            flags=tuple(FLAGS),
            scores=(float(scores.min()), float(scores.max())) if len(scores) else None,
        )

    def support(self, score: float) -> Support:
        """Rank a score among the version's texts: low and high are the bottom and top quarter."""
        low, high = self._quartiles
        return "low" if score < low else "high" if score > high else "middle"

    @cached_property
    def _quartiles(self) -> tuple[float, float]:
        scores = self.columns.scores[np.isfinite(self.columns.scores)]
        if not len(scores):
            return -np.inf, np.inf
        low, high = np.quantile(scores, (0.25, 0.75))
        return float(low), float(high)

    def sample(self, shard: str, row: int) -> SampleView:
        """Return everything known about one sample; see `curator.browse.sample`.

        Raises:
            UsageError: the version holds no such shard or row.
        """
        return SampleReader(self.store, self.version, self.shelf).read(shard, row)

    # -- finding ----------------------------------------------------------------------------------

    def _sorted(self, filter_: Filter, sort: Sort, descending: bool) -> Array:
        rows = self._passing(replace(filter_, seed=None))
        if sort == "shard":
            return rows[::-1] if descending else rows
        seed = filter_.seed or 0 if sort == "random" else 0

        def order() -> Array:
            if sort == "random":
                return np.random.default_rng(seed).permutation(rows)
            values = {
                "score": lambda: self.columns.scores,
                "gain": lambda: self.columns.gains,
                "length": lambda: self.columns.lengths,
            }[sort]()[rows]
            keys = -values if descending else values  # NaN stays last either way
            return rows[np.argsort(keys, kind="stable")]

        return self._remember((replace(filter_, seed=seed), sort, descending), order)

    def _passing(self, filter_: Filter) -> Array:
        """Return the rows (ascending, uint32) that pass the filter."""
        filter_ = replace(filter_, seed=None)
        return self._remember(filter_, lambda: self._find(filter_))

    def _find(self, filter_: Filter) -> Array:
        columns = self.columns
        passing = np.ones(len(columns.frame), np.bool_)
        for name, wanted in (
            ("action", filter_.actions),
            ("source", filter_.sources),
            ("because", filter_.because),
        ):
            if wanted:
                known = columns.frame[name].cast(pl.String).is_in(wanted)
                passing &= known.fill_null(False).to_numpy()
        if filter_.score_min is not None:
            passing &= columns.scores >= np.float32(filter_.score_min)
        if filter_.score_max is not None:
            passing &= columns.scores <= np.float32(filter_.score_max)
        low, high = filter_.percentile
        if (low, high) != Filter.percentile:
            passing &= (columns.percentiles >= low) & (columns.percentiles <= high)
        if filter_.changed_from is not None:
            passing &= columns.changed_from(filter_.changed_from) != filter_.unchanged
        for rows in self._listed(filter_):
            there = np.zeros(len(passing), np.bool_)
            there[rows] = True
            passing &= there
        return np.flatnonzero(passing).astype(np.uint32)

    def _listed(self, filter_: Filter) -> list[Array]:
        """Return the rows of each condition that is evaluated as a list of rows, not as a mask."""
        columns, found = self.columns, []
        if filter_.shards:
            parts = [
                np.arange(columns.starts[number], columns.starts[number + 1])
                for number in columns.shard_numbers(filter_.shards)
            ]
            found.append(np.concatenate([np.empty(0, np.int64), *parts]))
        if filter_.flags:
            carried = [columns.flags[flag] for flag in filter_.flags if flag in columns.flags]
            found.append(np.concatenate([np.empty(0, np.int64), *carried]))
        if filter_.text:
            found.append(
                self._remember(("text", filter_.text), lambda: columns.find_text(filter_.text))
            )
        if filter_.key:
            found.append(columns.find_key(filter_.key))
        return found

    # -- reading ----------------------------------------------------------------------------------

    def _read(self, rows: Array) -> pl.DataFrame:
        """Read these rows with their texts, in the given order."""
        columns = self.columns
        numbers = np.searchsorted(columns.starts, rows, side="right") - 1
        wanted = [(number, np.flatnonzero(numbers == number)) for number in np.unique(numbers)]
        local = [rows[here].astype(np.int64) - columns.starts[number] for number, here in wanted]
        with ThreadPoolExecutor(SHARDS_AT_ONCE) as pool:
            parts = list(pool.map(self._read_shard, (number for number, _ in wanted), local))
        place = np.empty(len(rows), np.int64)
        order = [np.empty(0, np.int64), *(here for _, here in wanted)]
        place[np.concatenate(order)] = np.arange(len(rows))
        found: pl.DataFrame = pl.concat([_no_rows(), *parts])[place]
        return found.with_columns(gain=self._known_gains(rows))

    def _read_shard(self, number: int, local: Array) -> pl.DataFrame:
        entry = self.columns.shards[number]
        decision = self.columns.decision(entry, _PAGE_COLUMNS)[local]
        # The shard may have been replaced and reindexed: the same row may now be another sample.
        keys = ["row", "image_sha256"]
        alt = index.read(self.store, entry.name, [*keys, "alt_text"])
        joined = decision.join(alt, on=keys, how="left", maintain_order="left", nulls_equal=True)
        return joined.select(pl.lit(entry.name).alias("shard"), pl.all())

    def _known_gains(self, rows: Array) -> pl.Series:
        known = self.columns.is_made("gains")  # never wait for the gains here
        values = self.columns.gains[rows] if known else np.full(len(rows), np.nan, np.float32)
        return pl.Series("gain", values, pl.Float32).fill_nan(None)

    def _remember(self, key: object, make: Callable[[], Array]) -> Array:
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
                return self._found[key]
        made = make()
        with self._lock:
            self._found[key] = made
            while len(self._found) > _REMEMBERED:
                self._found.popitem(last=False)
        return made


def _counts(names: pl.Series) -> dict[str, int]:
    """Name -> rows, most frequent first."""
    counted = names.drop_nulls().value_counts().cast({names.name: pl.String}).rows()
    return dict(sorted(counted, key=lambda item: (-item[1], item[0])))


def _no_rows() -> pl.DataFrame:
    empty = parquet.empty(DECISION_SCHEMA).select(_PAGE_COLUMNS)
    return empty.select(
        pl.lit(None, pl.String).alias("shard"), pl.all(), alt_text=pl.lit(None, pl.String)
    )
