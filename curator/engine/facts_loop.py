"""The facts loop: feed items to workers and store their outcomes.

A maker (`curator.engine.makers`) is a configured model, a worker (`curator.engine.worker`) is its
function inside a worker process, an executor runs workers, and the loop stores their outcomes.

Results are journaled and fsynced batch by batch, so a kill loses at most the batches in flight;
when all items of a shard have an outcome, they are written as one Parquet file. Small shards share
a journal, their batches, and the fsyncs of both and of their files: these took most of the time of
shards with 10 samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from curator.captioners import LENGTH, TRIMMED
from curator.core import progress
from curator.core.errors import QuarantineLimitError
from curator.core.progress import Advance
from curator.core.run_options import DEFAULTS, RunOptions
from curator.core.stopping import StopRequest
from curator.engine.executors import Done, Executor, Failed, Worker
from curator.engine.worker import probe
from curator.store.facts import SHARD, Facts, FactWriter

_MIN_OUTCOMES_FOR_LIMIT = 200
_ITEMS_A_JOURNAL = 1000
"""A journal with this many items is not shared with one more shard."""


class _HasShard(Protocol):
    @property
    def shard(self) -> str: ...


# I for item, R for result, as in curator.engine.executors.
I = TypeVar("I", bound=_HasShard)  # noqa: E741
R = TypeVar("R")
Record = Mapping[str, Any]


@dataclass(slots=True)
class Tally:
    """Counts of a stage's outcomes. `failures` counts failed ones by reason.

    Of the captions made, `truncated` reached the token limit and end in the middle of a sentence;
    `trimmed` reached it too and were cut back to their last whole sentence.
    """

    made: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    truncated: int = 0
    trimmed: int = 0

    @property
    def num_failed(self) -> int:
        """Return the number of failures."""
        return sum(self.failures.values())

    def plus(self, other: Tally) -> Tally:
        """Return the sum of two tallies."""
        return Tally(
            made=self.made + other.made,
            failures=dict(Counter(self.failures) + Counter(other.failures)),
            truncated=self.truncated + other.truncated,
            trimmed=self.trimmed + other.trimmed,
        )

    def add(self, records: Iterable[Record]) -> None:
        """Count acknowledged records."""
        for record in records:
            reason = record.get("failure")
            if reason is None:
                self.made += 1
                self.truncated += record.get("finish_reason") == LENGTH
                self.trimmed += record.get("finish_reason") == TRIMMED
            else:
                self.failures[reason] = self.failures.get(reason, 0) + 1


def crash_reason(outcome: Failed[Any]) -> str:
    """Return the reason code for an item that crashed or stalled its worker."""
    if outcome.in_probe:
        return "image.decoder_crashed" if outcome.crashed else "image.decode_timeout"
    return "engine.crashed" if outcome.crashed else "vlm.stalled"


@dataclass(slots=True, kw_only=True)
class FactsLoop(Generic[I, R]):
    """Makes the facts of one maker: runs its workers and stores their outcomes. For one run.

    Attributes:
        build: builds the worker, called in the worker process.
        review: can change the records of a batch.
        refuse: can return records for the rest of a shard, which then no worker gets.
        forget: called with each finished shard, so that callers can free its state.
        stage: suffix that separates the journals of two loops over the same facts.
        items_a_journal: a journal with this many items or more takes no more shards.
    """

    facts: Facts
    build: Callable[[], Worker[I, R]]
    to_records: Callable[[Done[I, R] | Failed[I]], list[Record]]
    executor: Executor
    batch_size: int
    advance: Advance
    run_options: RunOptions = DEFAULTS
    review: Callable[[str, list[Record]], list[Record]] = lambda _shard, records: records
    refuse: Callable[[str, Sequence[I]], list[Record]] = lambda _shard, _items: []
    forget: Callable[[str], object] = lambda _shard: None
    stage: str = ""
    items_a_journal: int = _ITEMS_A_JOURNAL
    tally: Tally = field(default_factory=Tally, init=False)
    _writers: dict[str, FactWriter] = field(default_factory=dict, init=False)
    _remaining: dict[str, int] = field(default_factory=dict, init=False)
    _shards: dict[str, list[str]] = field(default_factory=dict, init=False)
    _journal_of: dict[str, str] = field(default_factory=dict, init=False)
    _open: str | None = field(default=None, init=False)

    def run(self, shards: Iterable[tuple[str, Sequence[I]]], *, stop: StopRequest) -> Tally:
        """Make the facts for (shard, items) pairs.

        Raises:
            StoppedError: a signal arrived. QuarantineLimitError: too many items failed.
            EngineError, DamageError: from the workers. Acknowledged facts are kept in every case.
        """
        try:
            run = self.executor.run(self.build, self._batches(shards), probe=probe, stop=stop)
            with closing(run) as outcomes:  # end the workers whatever happens below
                for batch in outcomes:
                    made: dict[str, list[Record]] = {}
                    for outcome in batch:
                        made.setdefault(outcome.item.shard, []).extend(self.to_records(outcome))
                    reviewed = {shard: self.review(shard, some) for shard, some in made.items()}
                    self._acknowledge(reviewed, len(batch))
                    self._finish()
            self._finish()  # shards for which no worker had to do anything
            stop.check(f"{self.tally.made:,} new facts are kept")
        finally:
            for writer in self._writers.values():
                writer.close()
        return self.tally

    def _batches(self, shards: Iterable[tuple[str, Sequence[I]]]) -> Iterator[Sequence[I]]:
        """Open a journal for each shard, or for a few small ones, and yield its batches."""
        batch: list[I] = []
        size = 0
        for shard, items in shards:
            left_over = self.facts.journal(shard, self.stage).exists()
            if left_over and self._open is not None:
                self._open = None
                if batch:
                    yield batch
                    batch = []
            if not items and not left_over:
                self.forget(shard)
                continue
            if self._open is None:
                self._begin(shard)
                size = 0
            assert self._open is not None
            size += len(items)
            self._shards[self._open].append(shard)
            self._journal_of[shard] = self._open
            self._remaining[self._open] += len(items)
            start = 0
            while start < len(items):
                if refused := self.refuse(shard, items[start:]):
                    self._acknowledge({shard: refused}, len(items) - start)
                    break
                taken = items[start : start + self.batch_size - len(batch)]
                batch += taken
                start += len(taken)
                is_full = start == len(items) and size >= self.items_a_journal
                if is_full:
                    self._open = None  # before its last batch: it ends when that is acknowledged
                if is_full or len(batch) == self.batch_size:
                    yield batch
                    batch = []
            if self._open is not None and size >= self.items_a_journal:  # its rest was refused
                self._open = None
                if batch:
                    yield batch
                    batch = []
        self._open = None
        if batch:
            yield batch

    def _begin(self, shard: str) -> None:
        """Open the journal named after a shard, which others may share."""
        self._open = shard
        self._shards[shard], self._remaining[shard] = [], 0
        self._writers[shard] = writer = self.facts.writer(shard, self.stage)
        if writer.torn_bytes:
            progress.say(
                f"{shard}: removed {writer.torn_bytes} bytes of a record left unfinished by a "
                "crash; it is made again"
            )

    def _acknowledge(self, found: Mapping[str, list[Record]], num_items: int) -> None:
        """Store the records of shards that share a journal; durable when this returns."""
        journal = self._journal_of[next(iter(found))]
        records = [
            record if shard == journal else {**record, SHARD: shard}
            for shard, some in found.items()
            for record in some
        ]
        self._writers[journal].add(records)
        self.tally.add(records)
        progress.quarantined(Counter(r["failure"] for r in records if r.get("failure")))
        self.advance(num_items)
        self._remaining[journal] -= num_items
        done, failed = self.tally.made + self.tally.num_failed, self.tally.num_failed
        if done >= _MIN_OUTCOMES_FOR_LIMIT and failed > self.run_options.max_quarantine * done:
            worst = max(self.tally.failures, key=lambda reason: self.tally.failures[reason])
            raise QuarantineLimitError(
                f"{failed} of {done} items failed, mostly {worst}",
                did="all facts made so far are kept",
                hint="`curator quarantine list` shows them; or raise --max-quarantine",
            )

    def _finish(self) -> None:
        """Convert journals that get no more items to Parquet files."""
        done = [name for name, rest in self._remaining.items() if not rest and name != self._open]
        for journal in done:
            self._writers.pop(journal).finish()
            del self._remaining[journal]
            for shard in self._shards.pop(journal):
                del self._journal_of[shard]
                self.forget(shard)
