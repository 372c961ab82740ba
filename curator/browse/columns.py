"""Hold the columns of one version that filters and orders need, compact and for all shards.

Every row of the decision is one row here, in the order of shards and rows. Strings stay on disk:
a name becomes a small number, a text its length and a hash, so a million rows take 33 MB. Texts
for searching are kept up to a limit. A column is read on first use and then kept: for a million
rows the base columns take 0.15 s, those that need the facts of models (gain, flags) about 2 s.
Files are read with their checksums, by `curator.store.parquet`. Thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import polars as pl

from curator.browse.shelf import FactShelf
from curator.core.errors import DamageError
from curator.policy.model import ALT_TEXT
from curator.scorers import CHECKER
from curator.store import index, parquet
from curator.store.facts import SCORES
from curator.store.keyindex import hex64
from curator.store.schemas import DECISION_SCHEMA
from curator.store.store import Store
from curator.store.versions import ACTIONS, ShardEntry, Version

Array = np.ndarray[Any, np.dtype[Any]]
T = TypeVar("T")

SHARDS_AT_ONCE = 2
_MOST_SEARCHED_BYTES = 256 << 20
"""Size of decisions on disk; 94 MB hold a million short captions, which take 69 MB in memory."""
_BASE = ("row", "slot", "action", "source", "because", "score")


class VersionColumns:
    """See the module. `starts[i]` is the first row of shard i, `starts[-1]` the number of rows."""

    def __init__(self, store: Store, version: Version, shelf: FactShelf) -> None:
        self.store = store
        self.version = version
        self.shards = version.shards
        self._shelf = shelf
        self._guard = Lock()
        self._locks: dict[str, Lock] = {}
        self._made: dict[str, Any] = {}

    def _once(self, name: str, make: Callable[[], T]) -> T:
        """Make a column on first use; concurrent callers wait for it.

        Each column has its own lock, because making one may need others from other threads.
        """
        with self._guard:
            lock = self._locks.setdefault(name, Lock())
        with lock:
            if name not in self._made:
                self._made[name] = make()
            found: T = self._made[name]
            return found

    def is_made(self, name: str) -> bool:
        """Whether a column is already loaded, so that using it costs nothing."""
        return name in self._made

    # -- the decision itself ----------------------------------------------------------------------

    @property
    def frame(self) -> pl.DataFrame:
        """One row per text: row, slot, action, source, because (categories), score."""
        return self._base()[0]

    @property
    def starts(self) -> Array:
        """The first row of each shard; the last element is the total number of rows."""
        return self._base()[1]

    def _base(self) -> tuple[pl.DataFrame, Array]:
        def make() -> tuple[pl.DataFrame, Array]:
            parts = self.each(lambda _, entry: _compact(self.decision(entry, _BASE)))
            starts = np.cumsum([0, *map(len, parts)])
            frame = pl.concat([*parts, _compact(parquet.empty(DECISION_SCHEMA).select(_BASE))])
            return frame.rechunk(), starts

        return self._once("base", make)

    def decision(self, entry: ShardEntry, columns: Sequence[str]) -> pl.DataFrame:
        """Read columns of the decision about one shard.

        Raises:
            DamageError: the file is missing or was changed after it was written.
        """
        path = self.store.root / entry.file
        return parquet.read(path, DECISION_SCHEMA, columns, use_threads=False)

    def each(self, work: Callable[[int, ShardEntry], T]) -> list[T]:
        """Call `work(number, shard)` for every shard, a few in parallel; results are in order."""
        with ThreadPoolExecutor(SHARDS_AT_ONCE) as pool:
            return list(pool.map(work, range(len(self.shards)), self.shards))

    def shard_numbers(self, names: Sequence[str]) -> list[int]:
        """Return the numbers of shards in the version; unknown names are left out."""
        return [number for number, shard in enumerate(self.shards) if shard.name in names]

    # -- derived from the decision ----------------------------------------------------------------

    @property
    def scores(self) -> Array:
        """float32, NaN for a text without a score."""
        return self._once("scores", lambda: self.frame["score"].fill_null(np.nan).to_numpy())

    @property
    def percentiles(self) -> Array:
        """float32: percentage of the scored texts of the same source that score lower."""

        def make() -> Array:
            score = pl.col("score").fill_nan(None)
            below = (score.rank("min") - 1).over("source")
            share = below / score.count().over("source") * 100
            found = self.frame.select(share.cast(pl.Float32).fill_null(np.nan)).to_series()
            return found.to_numpy()

        return self._once("percentiles", make)

    @property
    def lengths(self) -> Array:
        """int32: characters per text, 0 without a text."""

        def make() -> Array:
            read = self.each(
                lambda _, entry: (
                    self.decision(entry, ["text"])["text"]
                    .str.len_chars()
                    .fill_null(0)
                    .cast(pl.Int32)
                    .to_numpy()
                )
            )
            return _joined(read, np.int32)

        return self._once("lengths", make)

    # -- from the facts of models -----------------------------------------------------------------

    @property
    def scorer(self) -> str | None:
        """The maker of the version's scores; None if its texts were never scored."""
        found = self.version.policy.get("scores_by")
        return str(found) if found in self.store.makers(SCORES) else None

    @property
    def checker(self) -> str | None:
        """The maker of text flags: the one used by the version's policy, else any in the store."""
        makers = self.store.makers(SCORES)
        found = self.version.policy.get("checker_facts")
        if found in makers:
            return str(found)
        recipes = ((name, self.store.recipe(SCORES, name)) for name in makers)
        return next((name for name, recipe in recipes if recipe.get("scorer") == CHECKER), None)

    @property
    def gains(self) -> Array:
        """float32: score minus the score of the sample's alt text; NaN where either is missing."""

        def make() -> Array:
            if self.scorer is None:
                return np.full(len(self.frame), np.nan, np.float32)
            return _joined(self.each(self._gains_of), np.float32)

        return self._once("gains", make)

    def _gains_of(self, number: int, entry: ShardEntry) -> Array:
        assert self.scorer is not None
        rows = self.decision(entry, ["row", "image_sha256", "source"])
        keys = ["row", "image_sha256"]
        alt = index.read(self.store, entry.name, [*keys, "alt_sha256"])
        asked = rows.join(alt, on=keys, how="left", maintain_order="left").select(
            "source", "image_sha256", text_sha256="alt_sha256"
        )
        facts = self._shelf.get(SCORES, self.scorer)
        before = facts.match(asked, ["score"])["score"].fill_null(np.nan).to_numpy()
        score = self.scores[self.starts[number] : self.starts[number + 1]]
        same = (asked["source"] == ALT_TEXT).fill_null(False).to_numpy()
        return np.where(same, score - score, score - before)  # NaN stays NaN

    @property
    def flags(self) -> dict[str, Array]:
        """Flag -> the rows (ascending) whose text or image carries it."""

        def make() -> dict[str, Array]:
            found: dict[str, list[Array]] = {}
            for number, shard in enumerate(self.each(lambda _, entry: self._flags_of(entry))):
                for flag, rows in shard.items():
                    found.setdefault(flag, []).append(rows + self.starts[number])
            return {flag: np.concatenate(rows) for flag, rows in sorted(found.items())}

        return self._once("flags", make)

    def _flags_of(self, entry: ShardEntry) -> Mapping[str, Array]:
        rows = self.decision(entry, ["row", "text_sha256"]).with_row_index("place")
        image = index.read(self.store, entry.name, ["row", "flags"])
        carried = [rows.join(image, on="row", how="left").select("place", "flags")]
        if self.checker is not None:
            asked = rows.select(pl.lit("").alias("image_sha256"), "text_sha256")
            of_text = self._shelf.get(SCORES, self.checker).match(asked, ["flags"])
            carried.append(pl.concat([rows.select("place"), of_text], how="horizontal"))
        flat = pl.concat(
            part.filter(pl.col("flags").list.len() > 0).explode("flags").drop_nulls("flags")
            for part in carried
        )
        by_flag = flat.unique().sort("place").partition_by("flags", as_dict=True)
        return {str(key[0]): part["place"].to_numpy() for key, part in by_flag.items()}

    # -- another version --------------------------------------------------------------------------

    def changed_from(self, number: int) -> Array:
        """Return for each row (bool) whether its sample has other texts than in that version.

        A shard whose bytes differ between the two versions counts as changed as a whole.
        """

        def make() -> Array:
            before = {entry.name: entry for entry in self.store.version(number).shards}
            signed = self.signatures

            def of_shard(place: int, entry: ShardEntry) -> Array:
                rows = self.frame["row"][self.starts[place] : self.starts[place + 1]].to_numpy()
                then = before.get(entry.name)
                if then is None or then.digest != entry.digest:
                    return np.ones(len(rows), np.bool_)
                if then.rows_digest == entry.rows_digest:
                    return np.zeros(len(rows), np.bool_)
                changed: Array = (signed[place] != self._signatures_of(then))[rows]
                return changed

            return _joined(self.each(of_shard), np.bool_)

        return self._once(f"changed from {number}", make)

    @property
    def signatures(self) -> list[Array]:
        """For each shard a 64-bit hash of every sample's set of texts; 0 without texts."""
        return self._once(
            "signatures", lambda: self.each(lambda _, entry: self._signatures_of(entry))
        )

    def _signatures_of(self, entry: ShardEntry) -> Array:
        rows = self.decision(entry, ["row", "text_sha256"])
        found = np.zeros(entry.num_samples, np.uint64)
        np.add.at(found, rows["row"].to_numpy(), hex64(rows["text_sha256"]))
        return found

    # -- texts ------------------------------------------------------------------------------------

    def find_text(self, wanted: str) -> Array:
        """Return rows (ascending) whose text, or alt text if none was chosen, contains `wanted`.

        Case is ignored.
        """
        low, kept = wanted.lower(), self.searched

        def containing(number: int, entry: ShardEntry) -> Array:
            texts = self._searched_of(entry) if kept is None else kept[number]
            return np.flatnonzero(texts.str.contains(low, literal=True).fill_null(False).to_numpy())

        return self._in_all(self.each(containing))

    @property
    def searched(self) -> list[pl.Series] | None:
        """The searchable texts of each shard in lower case; None if too large to keep in memory.

        Searching a million texts takes 0.3 s from disk, and a third of that from memory.
        """

        def make() -> list[pl.Series] | None:
            _ = self.frame  # raises the error that names a missing file
            size_bytes = sum((self.store.root / entry.file).stat().st_size for entry in self.shards)
            if size_bytes > _MOST_SEARCHED_BYTES:
                return None
            return self.each(lambda _, entry: self._searched_of(entry))

        return self._once("searched", make)

    def _searched_of(self, entry: ShardEntry) -> pl.Series:
        rows = self.decision(entry, ["row", "text"])
        text = rows["text"]
        if text.null_count():
            alt = index.read(self.store, entry.name, ["alt_text"])["alt_text"]
            text = text.zip_with(text.is_not_null(), alt[rows["row"]])
        return text.str.to_lowercase()

    def find_key(self, start: str) -> Array:
        """Return rows (ascending) whose key begins with `start`."""
        found = self.each(
            lambda _, entry: (
                self.decision(entry, ["key"])["key"].str.starts_with(start).arg_true().to_numpy()
            )
        )
        return self._in_all(found)

    def _in_all(self, found: Sequence[Array]) -> Array:
        return _joined(
            [rows + start for rows, start in zip(found, self.starts, strict=False)], np.int64
        )


def _compact(rows: pl.DataFrame) -> pl.DataFrame:
    unknown = set(rows["action"].unique()) - set(ACTIONS)
    if unknown:
        raise DamageError(f"a decision has the action {sorted(map(str, unknown))[0]!r}")
    names = pl.col("source", "because").cast(pl.Categorical)
    return rows.with_columns(pl.col("action").cast(pl.Enum(ACTIONS)), names)


def _joined(parts: Sequence[Array], kind: Any) -> Array:
    joined: Array = np.concatenate([np.empty(0, kind), *parts]).astype(kind, copy=False)
    return joined
