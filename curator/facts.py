"""Facts: what a model said, keyed by what it is about. Append-only, and never made twice.

A caption fact is keyed by (image sha256, candidate number) under its generator, a score fact by
(image sha256, text sha256) under its scorer. A failure is a fact as well (`failure` names the
reason), so that a second run does not ask again; a retry adds a row with a higher `attempt`.

New facts go to a journal of their shard, acknowledged batch by batch; when the shard is done the
journal becomes one Parquet file named after its content. Readers see both.

What is known is remembered as 64-bit keys, 12 bytes a fact (about 1.2 GB for 100 million): two
different facts share a key with a chance of about n^2 / 2^65, 3e-4 at 100 million.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from curator import fsops, tables
from curator.journal import Journal, replay
from curator.store import Store

REOPENED = "retry.pending"
CAPTIONS = "captions"
SCORES = "scores"

CAPTION_SCHEMA = pa.schema(
    [
        ("image_sha256", pa.large_string()),
        ("candidate", pa.int16()),
        ("text", pa.large_string()),
        ("text_sha256", pa.large_string()),
        ("finish_reason", pa.large_string()),
        ("num_tokens", pa.int32()),
        ("seed", pa.int64()),
        ("failure", pa.large_string()),
        ("detail", pa.large_string()),
        ("attempt", pa.int16()),
        ("created", pa.float64()),
    ]
)
SENTENCE = pa.struct([("start", pa.int32()), ("end", pa.int32()), ("score", pa.float32())])
MEASURE = pa.struct([("name", pa.large_string()), ("value", pa.float32())])
SCORE_SCHEMA = pa.schema(
    [
        ("image_sha256", pa.large_string()),  # "" where only the text was judged
        ("text_sha256", pa.large_string()),
        ("score", pa.float32()),
        ("num_tokens", pa.int32()),
        ("truncated", pa.bool_()),
        ("sentences", pa.large_list(SENTENCE)),
        ("flags", pa.large_list(pa.large_string())),
        ("measures", pa.large_list(MEASURE)),
        ("failure", pa.large_string()),
        ("detail", pa.large_string()),
        ("attempt", pa.int16()),
        ("created", pa.float64()),
    ]
)


@dataclass(frozen=True, slots=True)
class _Kind:
    schema: pa.Schema
    key: tuple[str, str]


_KINDS = {
    CAPTIONS: _Kind(CAPTION_SCHEMA, ("image_sha256", "candidate")),
    SCORES: _Kind(SCORE_SCHEMA, ("image_sha256", "text_sha256")),
}


def key64(frame: pl.DataFrame, kind: str) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """The 64-bit key of each row of a frame that has the key columns of `kind`."""
    first = hex64(frame["image_sha256"])
    if kind == CAPTIONS:
        first = first + frame["candidate"].to_numpy().astype(np.uint64)
    else:
        first = first ^ hex64(frame["text_sha256"])
    return first


def hex64(column: pl.Series) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """The first 64 bits of hex digests; 0 for "" and null."""
    head = column.str.slice(0, 16).str.to_integer(base=16, dtype=pl.UInt64, strict=False)
    return head.fill_null(0).to_numpy()


@dataclass(slots=True)
class KeyIndex:
    """A growing map from 64-bit keys to file numbers: a few sorted runs, merged as they grow."""

    _runs: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = field(default_factory=list)

    def add(self, keys: np.ndarray[Any, Any], file_number: int) -> None:
        """Remember that `keys` lie in a file (or are claimed: a negative number)."""
        order = np.argsort(keys, kind="stable")
        run = (keys[order], np.full(len(keys), file_number, np.int32))
        while self._runs and len(self._runs[-1][0]) <= 2 * len(run[0]):
            older = self._runs.pop()
            merged = np.concatenate([older[0], run[0]])
            order = np.argsort(merged, kind="stable")
            run = (merged[order], np.concatenate([older[1], run[1]])[order])
        self._runs.append(run)

    def files(self, keys: np.ndarray[Any, Any]) -> set[int]:
        """All file numbers that hold one of `keys`."""
        found: set[int] = set()
        keys = np.unique(keys)  # in order: the search walks through the runs, it does not jump
        for known, numbers in self._runs:
            asked, place = keys, np.searchsorted(known, keys)
            while place.size:  # one round a copy of a key
                here = known[np.minimum(place, len(known) - 1)] == asked
                here &= place < len(known)
                asked, place = asked[here], place[here]
                found.update(np.unique(numbers[place]).tolist())
                place = place + 1
        return found

    def contains(self, keys: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """For each key, whether it is known."""
        hit = np.zeros(len(keys), bool)
        for known, _ in self._runs:
            place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
            hit |= known[place] == keys
        return hit


class _Scanned(NamedTuple):
    """What is remembered of a file."""

    keys: np.ndarray[Any, np.dtype[np.uint64]]
    num_candidates: int
    reopened: pl.DataFrame


def _num_candidates(rows: pl.DataFrame) -> int:
    """One more than the highest candidate number; 0 for scores."""
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
        self._folder = store.facts_dir(kind, maker)
        self._journals = store.journal_path(kind, maker, "x").parent
        self._files: list[Path] | None = None
        self._index = KeyIndex()
        self._num_candidates = 1
        self._reopened = np.empty(0, np.uint64)

    def files(self) -> list[Path]:
        """All Parquet files and journals that were there when first asked."""
        if self._files is None:
            self._files = sorted(self._folder.rglob("*.parquet"))
            self._files += sorted(self._journals.rglob("*.jnl"))
            reopened = []
            # In threads: reading and hashing let go of the GIL, and only 8 bytes a fact are kept.
            with ThreadPoolExecutor() as pool:
                for number, found in enumerate(pool.map(self._scan, self._files)):
                    self._note(found.keys, found.num_candidates, number)
                    reopened.append(found.reopened)
            if reopened and len(asked := pl.concat(reopened)):
                still = self.read(asked, ["failure"]).filter(pl.col("failure") == REOPENED)
                self._reopened = key64(still, self.kind)
        return self._files

    def _scan(self, path: Path) -> _Scanned:
        rows = self._read(path, [*self.key, "failure"])
        reopened = rows.filter(pl.col("failure") == REOPENED).select(self.key)
        return _Scanned(key64(rows, self.kind), _num_candidates(rows), reopened)

    def _note(self, keys: np.ndarray[Any, Any], num_candidates: int, file_number: int) -> None:
        if len(keys):
            self._index.add(keys, file_number)
        self._num_candidates = max(self._num_candidates, num_candidates)

    def pending(self, wanted: pl.DataFrame) -> pl.DataFrame:
        """The rows of `wanted` (with the key columns) that are to be made now, and claim them.

        Those are the ones nobody made yet, and failures that were reopened. A claimed row is not
        handed out again by this object, so an image that lies in several shards is worked on
        once. Column `attempt` is added: 0, or one more than the last.
        """
        self.files()
        keys = key64(wanted, self.kind)
        _, first = np.unique(keys, return_index=True)
        fresh = np.zeros(len(keys), bool)
        fresh[first] = True
        again = fresh & np.isin(keys, self._reopened)
        todo = again | (fresh & ~self._index.contains(keys))
        if todo.any():
            self._index.add(keys[todo], -1)
            self._reopened = np.setdiff1d(self._reopened, keys[again])
        chosen = wanted.filter(pl.Series(todo))
        if not again.any():
            return chosen.with_columns(attempt=pl.lit(0, pl.Int16))
        last = self.read(chosen, ["attempt"]).select(*self.key, last="attempt")
        joined = chosen.join(last, on=self.key, how="left", maintain_order="left")
        return joined.with_columns(attempt=(pl.col("last") + 1).fill_null(0)).drop("last")

    def reopen(self, reasons: Collection[str]) -> int:
        """Ask for failures with these reasons to be tried again by the next run; count them."""
        reopened = 0
        for path in list(self.files()):
            rows = self._read(path, [*self.key, "failure"])
            failed = rows.filter(pl.col("failure").is_in(sorted(reasons)))
            best = self.read(failed).filter(pl.col("failure").is_in(sorted(reasons)))
            if path.suffix == ".jnl" or best.is_empty():
                continue  # a journal belongs to a run that has not ended: its turn comes later
            writer = self.writer(shard_of(path, self._folder))
            changed = best.with_columns(failure=pl.lit(REOPENED), attempt=pl.col("attempt") + 1)
            writer.add(changed.to_dicts())
            writer.finish()
            reopened += len(best)
        return reopened

    def read(self, wanted: pl.DataFrame, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """The best fact for each row of `wanted` that has one.

        Of several rows with one key the latest attempt counts, and of several equally late ones
        (two processes made the same fact) a success.
        """
        files = self.files()
        needed = self._index.files(key64(wanted, self.kind)) - {-1}
        keep = [*dict.fromkeys([*self.key, "failure", "attempt", *(columns or self.schema.names)])]
        parts = [
            self._read(files[number], keep).join(
                wanted, on=self.key, how="semi", maintain_order="left"
            )
            for number in sorted(needed)
        ]
        if not parts:
            return self.empty(keep)
        found = pl.concat(parts)
        if found.select(self.key).n_unique() == len(found):
            return found
        order = [-pl.col("attempt"), pl.col("failure").is_not_null(), *map(pl.col, self.key)]
        return found.sort(order).unique(self.key, keep="first", maintain_order=True)

    def candidates(self, images: pl.Series, columns: Sequence[str]) -> pl.DataFrame:
        """The facts of every candidate of these images (hex digests); for captions."""
        self.files()
        numbers = pl.DataFrame(
            {"candidate": pl.Series(range(self._num_candidates), dtype=pl.Int16)}
        )
        wanted = pl.DataFrame({"image_sha256": images.drop_nulls().unique()})
        return self.read(wanted.join(numbers, how="cross"), columns)

    def writer(self, shard: str, stage: str = "") -> FactWriter:
        """Open the journal of one shard; see `FactWriter`.

        `stage` keeps the journals of two stages apart that use the same maker one after the
        other: what a crash left of the second must not be finished by the first.
        """
        return FactWriter(self, shard, self.journal(shard, stage))

    def journal(self, shard: str, stage: str) -> Path:
        """Where the journal of a shard lies while a stage works on it."""
        return self.store.journal_path(self.kind, self.maker, f"{shard}{stage}")

    def written(self, path: Path, frame: pl.DataFrame) -> None:
        """Take note of a file this process just wrote."""
        files = self.files()
        files.append(path)
        self._note(key64(frame, self.kind), _num_candidates(frame), len(files) - 1)

    def empty(self, columns: Sequence[str]) -> pl.DataFrame:
        """No facts, in these columns."""
        return tables.empty(self.schema).select(columns)

    def _read(self, path: Path, columns: Sequence[str]) -> pl.DataFrame:
        if path.suffix == ".jnl":
            return self.from_records(replay(path)[0]).select(columns)
        return tables.read(path, self.schema, columns)

    def from_records(self, records: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
        """Journal records as a frame of this kind's schema."""
        return tables.from_rows(records, self.schema)


class FactWriter:
    """New facts of one maker over one shard. One process at a time (ConflictError)."""

    def __init__(self, facts: Facts, shard: str, journal: Path) -> None:
        self._facts = facts
        self._shard = shard
        self._journal = Journal(journal)
        self._records = list(self._journal.records)
        self.torn_bytes = self._journal.torn_bytes

    def add(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Acknowledge facts: they are on disk when this returns."""
        self._journal.append(dict(record) for record in records)
        self._records.extend(dict(record) for record in records)

    def finish(self) -> None:
        """Turn the journal into a Parquet file. Does nothing but clean up if it is empty."""
        if self._records:
            frame = self._facts.from_records(self._records).sort(
                [*self._facts.key, "attempt", "created"]
            )
            table = tables.to_table(frame, self._facts.schema)
            data = tables.to_bytes(table)
            name = f"{self._shard}.{hashlib.sha256(data).hexdigest()[:12]}.parquet"
            path = self._facts.store.facts_dir(self._facts.kind, self._facts.maker) / name
            fsops.write_atomic(path, data)
            self._facts.written(path, frame)
        self._journal.discard()

    def close(self) -> None:
        """Leave the journal for the next run."""
        self._journal.close()


def shard_of(path: Path, folder: Path) -> str:
    """The shard that a fact file was made for, from its name."""
    return re.sub(r"\.[0-9a-f]{12}\.parquet$", "", path.relative_to(folder).as_posix())
