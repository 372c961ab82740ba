"""Facts: captions, scores and failures of models, keyed by their input. Append-only, made once.

A caption fact is keyed by (image sha256, candidate number) under its generator, a score fact by
(image sha256, text sha256) under its scorer. A failure is a fact too (`failure` is the reason), so
that a second run does not ask again; a retry adds a row with a higher `attempt`.

New facts go to a journal, acknowledged batch by batch; when its shard is finished, the journal
becomes one Parquet file named by its content. A journal may be shared by many small shards, each of
which gets a file of its own (column `shard` of its records; without it, the shard that the journal
is named after). Readers see both, as they were when first
read: a Parquet file never changes, and the rows of a journal are kept in memory, since another
process may at any moment turn it into a file and start a new journal under its name.

The keys of known facts are kept in memory as 64-bit hashes (`keyindex`), 16 bytes per fact.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from curator.core.errors import DamageError
from curator.store import fsops, parquet
from curator.store.journal import Journal, replay
from curator.store.keyindex import CLAIMED, NOWHERE, KeyIndex, Keys, Places, hex64, split_places
from curator.store.listing import Listing, Mark, listing_of
from curator.store.schemas import CAPTION_SCHEMA, CAPTIONS, SCORE_SCHEMA, SCORES
from curator.store.store import Store

__all__ = ["CAPTIONS", "SCORES"]

REOPENED = "retry.pending"
SHARD = "shard"
_FILES_AT_ONCE = min(8, os.cpu_count() or 1)
"""Threads that scan files; more than the number of cores would only use more memory."""
_FILES_AHEAD = 32


@dataclass(frozen=True, slots=True)
class _Kind:
    schema: pa.Schema
    key: tuple[str, str]


_KINDS = {
    CAPTIONS: _Kind(CAPTION_SCHEMA, ("image_sha256", "candidate")),
    SCORES: _Kind(SCORE_SCHEMA, ("image_sha256", "text_sha256")),
}


def key64(frame: pl.DataFrame, kind: str) -> Keys:
    """Return the 64-bit key of each row of a frame that has the key columns of `kind`."""
    first = hex64(frame["image_sha256"])
    if kind == CAPTIONS:
        first = first + frame["candidate"].to_numpy().astype(np.uint64)
    else:
        first = first ^ hex64(frame["text_sha256"])
    return first


class FactFile(NamedTuple):
    """A fact file to write."""

    path: Path
    rows: pl.DataFrame
    data: bytes


class _Scanned(NamedTuple):
    """What is kept in memory about a file."""

    keys: Keys
    num_candidates: int
    reopened: pl.DataFrame


def _num_candidates(rows: pl.DataFrame) -> int:
    """Return the highest candidate number plus one; 0 for scores."""
    highest = rows["candidate"].max() if "candidate" in rows.columns else None
    assert highest is None or isinstance(highest, int)
    return 0 if highest is None else highest + 1


class Facts:
    """All facts of one maker (a generator or a scorer) in a store."""

    def __init__(self, store: Store, kind: str, maker: str) -> None:
        self.store = store
        self.kind = kind
        self.maker = maker
        self.schema = _KINDS[kind].schema
        self.key = list(_KINDS[kind].key)
        self._empty = parquet.empty(self.schema)
        self._folder = store.facts_dir(kind, maker)
        self._journals = store.journal_path(kind, maker, "x").parent
        self._listing = listing_of(store, kind, maker)
        self._files: list[Path] | None = None
        self._journaled: dict[Path, pl.DataFrame] = {}
        self._index = KeyIndex()
        self._num_candidates = 1
        self._reopened = np.empty(0, np.uint64)
        self._num_listed = 0
        self._known: set[Path] = set()

    def files(self) -> list[Path]:
        """Return all Parquet files and journals that existed when first asked."""
        if self._files is None:
            self._listing.check()
            self._num_listed = len(self._listing.listed())
            # Journals first, completely. Their process writes the Parquet file before it removes
            # the journal: if one is gone when read, its file is in the listing that follows.
            for path in sorted(self._journals.rglob("*.jnl")):
                self._journaled[path] = self.from_records(replay(path).records)
            self._files = [*self.parquet_files(), *self._journaled]
            self._known.update(self._files)
            reopened: list[pl.DataFrame] = []
            self._index.add_files(self._scanned(self._files, reopened))
            if reopened and len(asked := pl.concat(reopened)):
                still = self.read(asked, ["failure"]).filter(pl.col("failure") == REOPENED)
                self._reopened = key64(still, self.kind)
        return self._files

    def _scanned(
        self, files: Sequence[Path], reopened: list[pl.DataFrame]
    ) -> Iterator[tuple[Keys, int]]:
        """Yield (keys, number) of each file, and note its candidates and reopened failures."""
        # In threads: reading and hashing release the GIL. A few files ahead: 8 bytes a fact.
        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            for first in range(0, len(files), _FILES_AHEAD):
                some = pool.map(self._scan, files[first : first + _FILES_AHEAD])
                for number, file in enumerate(some, first):
                    self._num_candidates = max(self._num_candidates, file.num_candidates)
                    if len(file.reopened):
                        reopened.append(file.reopened)
                    yield file.keys, number

    def refresh(self, shard: str) -> None:
        """See what other processes stored since `files` was first asked; `shard` was just taken.

        Of journals only the records of this shard count. Those may be in the journal of another
        one: a process that died left them there, and whoever took that shard has it open.
        """
        files = self.files()
        found: list[Path] = []
        name = json.dumps(shard, ensure_ascii=False).encode()
        for path in self._journals.rglob("*.jnl"):  # journals first, as in `files`
            own = path.relative_to(self._journals).with_suffix("").as_posix()
            is_own = own == shard or own.startswith(f"{shard}+")  # "+" begins a stage
            with contextlib.suppress(FileNotFoundError):
                # Most journals do not name the shard: their JSON is not parsed.
                if not is_own and name not in path.read_bytes():
                    continue
            records = [
                one
                for one in replay(path).records
                if (one[SHARD] == shard if SHARD in one else is_own)
            ]
            if records:
                # A name of its own: rows that are known keep their places.
                again = path.with_name(f"{path.name}+{len(files) + len(found)}")
                self._journaled[again] = self.from_records(records)
                found.append(again)
        new = self._listing.listed(self._num_listed)
        self._num_listed += len(new)
        found += [path for path in new if path.suffix == ".parquet" and path not in self._known]
        for path in filter(self._is_there, found):
            scanned = self._scan(path)
            files.append(path)
            self._known.add(path)
            self._index.add(scanned.keys, len(files) - 1)
            self._num_candidates = max(self._num_candidates, scanned.num_candidates)
            # A retry that another process made is not made here again.
            self._reopened = np.setdiff1d(self._reopened, scanned.keys)

    def _is_there(self, path: Path) -> bool:
        return path in self._journaled or path.exists()

    def parquet_files(self) -> list[Path]:
        """Return the fact files on disk."""
        return sorted(self._folder.rglob("*.parquet"))

    def any_there(self) -> bool:
        """Whether this maker has made facts; reads no Parquet file. Lost files count as there."""
        if self._listing.num_listed(".parquet") or self.parquet_files():
            return True
        return any(replay(path).records for path in self._journals.rglob("*.jnl"))

    def _scan(self, path: Path) -> _Scanned:
        if path not in self._journaled:
            check_file(path, self.schema)
        rows = self.rows_of(path, [*self.key, "failure"])
        reopened = rows.filter(pl.col("failure") == REOPENED).select(self.key)
        return _Scanned(key64(rows, self.kind), _num_candidates(rows), reopened)

    def pending(self, wanted: pl.DataFrame) -> pl.DataFrame:
        """Return and claim the rows of `wanted` (with the key columns) that must be made now.

        Those are facts that nobody made yet, and failures that were reopened. This object does not
        return a claimed row again, so an image in several shards is processed once. Column
        `attempt` is added: 0, or one more than the last.
        """
        self.files()
        keys = key64(wanted, self.kind)
        _, first = np.unique(keys, return_index=True)
        fresh = np.zeros(len(keys), bool)
        fresh[first] = True
        again = fresh & np.isin(keys, self._reopened)
        todo = again | (fresh & ~self._index.contains(keys))
        if todo.any():
            self._index.add(keys[todo], CLAIMED)
            self._reopened = np.setdiff1d(self._reopened, keys[again])
        chosen = wanted.filter(pl.Series(todo))
        if not again.any():
            return chosen.with_columns(attempt=pl.lit(0, pl.Int16))
        last = self.read(chosen, ["attempt"]).select(*self.key, last="attempt")
        joined = chosen.join(last, on=self.key, how="left", maintain_order="left")
        return joined.with_columns(attempt=(pl.col("last") + 1).fill_null(0)).drop("last")

    def reopen(self, reasons: Collection[str]) -> int:
        """Mark failures with these reasons for retry by the next run; return their number."""
        reopened = 0
        for path in list(self.files()):
            rows = self.rows_of(path, [*self.key, "failure"])
            failed = rows.filter(pl.col("failure").is_in(sorted(reasons)))
            best = self.read(failed).filter(pl.col("failure").is_in(sorted(reasons)))
            if path.suffix == ".jnl" or best.is_empty():
                continue  # the run of a journal has not ended: skip it for now
            writer = self.writer(shard_of(path, self._folder))
            changed = best.with_columns(failure=pl.lit(REOPENED), attempt=pl.col("attempt") + 1)
            writer.add(changed.to_dicts())
            writer.finish()
            reopened += len(best)
        return reopened

    def read(self, wanted: pl.DataFrame, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Return the best fact of each distinct row of `wanted` that has one, with key columns."""
        wanted = wanted.select(self.key).unique(maintain_order=True)
        names = dict.fromkeys(["failure", "attempt", *(columns or self.schema.names)])
        found = self.match(wanted, [name for name in names if name not in self.key])
        return pl.concat([wanted, found], how="horizontal").drop_nulls("attempt")

    def match(self, wanted: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
        """Return the best fact for each row of `wanted`, in its order; all null without one.

        Among several facts with one key the latest attempt wins; among equally late ones (two
        processes made the same fact) a success wins.
        """
        self.files()
        columns = list(columns)
        position, place = self._index.find(key64(wanted, self.kind))
        taken = np.full(len(wanted), NOWHERE, np.int64)
        taken[position] = place
        if np.count_nonzero(taken != NOWHERE) < len(place):
            taken = self._best(position, place, wanted)
        rows = self._rows_at(taken, [*dict.fromkeys([*self.key, *columns])])
        if not (same := self._same_keys(rows, wanted)).all():
            rows = rows.with_columns(pl.when(same).then(pl.all()))
        return rows.select(columns)

    def _rows_at(self, places: Places, columns: Sequence[str]) -> pl.DataFrame:
        """Return the rows at `places`, in order; all null for NOWHERE."""
        files = self.files()
        number, row = split_places(places)
        parts, num_rows = [self.empty(columns)], 0
        at = np.full(len(places), NOWHERE, np.int64)
        for file in np.unique(number[number >= 0]).tolist():
            here = np.flatnonzero(number == file)
            parts.append(self.rows_of(files[file], columns)[row[here]])
            at[here] = np.arange(num_rows, num_rows + len(here))
            num_rows += len(here)
        found = parts[-1] if len(parts) <= 2 else pl.concat(parts)  # noqa: PLR2004 - none or one
        if num_rows == len(places) == len(parts[-1]):
            return found
        is_there = pl.Series(at != NOWHERE)
        return found.select(pl.all().gather(pl.when(is_there).then(pl.Series(at))))

    def _same_keys(self, rows: pl.DataFrame, wanted: pl.DataFrame) -> pl.Series:
        """Whether each row has the full key looked for, not just the same 64 bits."""
        same = pl.repeat(True, len(rows), eager=True)
        for name in self.key:
            same &= rows[name].is_null() | rows[name].eq_missing(wanted[name])
        return same

    def _best(self, position: Places, place: Places, wanted: pl.DataFrame) -> Places:
        """Return, for each row of `wanted`, the place of its best fact, or NOWHERE."""
        rows = self._rows_at(place, [*self.key, "attempt", "failure"])
        same = self._same_keys(rows, wanted[position])
        known = rows.select(
            "attempt", "failure", position=pl.Series(position), place=pl.Series(place)
        )
        best_last = [pl.col("attempt"), pl.col("failure").is_null(), -pl.col("place")]
        best = known.filter(same).sort(best_last).group_by("position").agg(pl.col("place").last())
        taken = np.full(len(wanted), NOWHERE, np.int64)
        taken[best["position"].to_numpy()] = best["place"].to_numpy()
        return taken

    def candidates(self, wanted: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
        """Return the facts of every candidate caption of the images of `wanted`.

        Args:
            wanted: rows with a column image_sha256; other columns are kept.
            columns: columns of the captions to return.

        Returns:
            One row per row of `wanted` and candidate, in this order, with column `candidate`.
        """
        self.files()
        numbers = pl.DataFrame({"candidate": range(self._num_candidates)}, {"candidate": pl.Int16})
        asked = wanted.join(numbers, how="cross", maintain_order="left_right")
        found = self.match(asked, list(dict.fromkeys([*columns, "attempt"])))
        there = found["attempt"].is_not_null()
        return pl.concat([asked, found.select(columns)], how="horizontal").filter(there)

    def writer(self, shard: str, stage: str = "") -> FactWriter:
        """Open the journal of one shard; see `FactWriter`.

        `stage` separates the journals of two stages that use the same maker one after the other:
        what a crash left of the second must not be finished by the first.
        """
        return FactWriter(self, shard, self.journal(shard, stage), self._listing)

    def journal(self, shard: str, stage: str) -> Path:
        """Return the path of a shard's journal while a stage works on it."""
        return self.store.journal_path(self.kind, self.maker, f"{shard}{stage}")

    def written(self, path: Path, frame: pl.DataFrame) -> None:
        """Register a file that this process just wrote."""
        files = self.files()
        files.append(path)
        self._known.add(path)
        self._index.add(key64(frame, self.kind), len(files) - 1)
        self._num_candidates = max(self._num_candidates, _num_candidates(frame))

    def empty(self, columns: Sequence[str]) -> pl.DataFrame:
        """Return an empty frame with these columns."""
        return self._empty.select(columns)

    def rows_of(self, path: Path, columns: Sequence[str]) -> pl.DataFrame:
        """Return all rows of one of `files`; those of a journal as they were when first read."""
        if (journaled := self._journaled.get(path)) is not None:
            return journaled.select(columns)
        # Without threads: files are read in threads, or are a few columns of a shard.
        return parquet.read(path, self.schema, columns, use_threads=False)

    def files_of(self, shard: str, records: Sequence[Mapping[str, Any]]) -> list[FactFile]:
        """Return the fact files for the records of the journal named after `shard`."""
        by_shard: dict[str, list[Mapping[str, Any]]] = {}
        for record in records:
            by_shard.setdefault(record.get(SHARD, shard), []).append(record)
        files = []
        for name, some in sorted(by_shard.items()):
            rows = self.from_records(some).sort([*self.key, "attempt", "created"])
            data = parquet.to_bytes(parquet.to_table(rows, self.schema))
            digest = hashlib.sha256(data).hexdigest()[:12]
            files.append(FactFile(self._folder / f"{name}.{digest}.parquet", rows, data))
        return files

    def from_records(self, records: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
        """Convert journal records to a frame with this kind's schema."""
        names = self.schema.names
        rows = [{name: record.get(name) for name in names} for record in records]
        return parquet.from_rows(rows, self.schema)


class FactWriter:
    """Writes new facts of one maker over one shard. One process at a time (ConflictError)."""

    def __init__(self, facts: Facts, shard: str, journal: Path, listing: Listing) -> None:
        self._facts = facts
        self._shard = shard
        self._listing = listing
        if not journal.exists():
            listing.check()
        self._journal = Journal(journal)
        try:
            listing.add([("there", journal)], found=facts.parquet_files())
        except BaseException:
            self._journal.close()
            raise
        self._records = list(self._journal.records)
        self.torn_bytes = self._journal.torn_bytes

    def add(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Acknowledge facts: they are on disk when this returns."""
        self._journal.append(dict(record) for record in records)
        self._records.extend(dict(record) for record in records)

    def finish(self) -> None:
        """Turn the journal into a Parquet file; only cleans up if it is empty."""
        try:
            self._finish()
        finally:
            self._journal.close()  # also on a full disk, or its lock would remain

    def _finish(self) -> None:
        done: list[tuple[Mark, Path]] = [("done", self._journal.path)]
        if self._records:
            files = self._facts.files_of(self._shard, self._records)
            fsops.write_many((file.path, file.data) for file in files)
            for file in files:
                self._facts.written(file.path, file.rows)
            done = [*(("there", file.path) for file in files), *done]
        self._listing.add(done)
        self._journal.discard()

    def close(self) -> None:
        """Close the journal and leave it for the next run."""
        self._journal.close()


def check_file(path: Path, schema: pa.Schema) -> None:
    """Check that a fact file matches the digest in its name.

    Raises:
        DamageError: it is missing, or its content differs.
    """
    name = path.stem.rpartition(".")[2]
    try:
        parquet.check_sha256(path, name)
    except DamageError:
        # The first version of the tool named files by their table content.
        if not path.exists() or not parquet.content_digest(
            parquet.to_table(parquet.read(path, schema), schema)
        ).startswith(name):
            raise


def shard_of(path: Path, folder: Path) -> str:
    """Return the shard that a fact file was made for, from its name."""
    return re.sub(r"\.[0-9a-f]{12}\.parquet$", "", path.relative_to(folder).as_posix())
