"""The facts loop: feed items to workers and store their outcomes.

A maker (`curator.engine.makers`) is a configured model, a worker (`curator.engine.worker`) is its
function inside a worker process, an executor runs workers, and the loop stores their outcomes.

Results are journaled and fsynced batch by batch, so a kill loses at most the batches in flight;
when all items of a shard have an outcome, they are written as one Parquet file.
"""

from __future__ import annotations

from collections import Counter, deque
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
from curator.store.facts import Facts, FactWriter

_MIN_OUTCOMES_FOR_LIMIT = 200


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
    tally: Tally = field(default_factory=Tally, init=False)
    _writers: dict[str, FactWriter] = field(default_factory=dict, init=False)
    _remaining: dict[str, int] = field(default_factory=dict, init=False)
    _ended: deque[str] = field(default_factory=deque, init=False)

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
                    shard = batch[0].item.shard
                    records = [record for outcome in batch for record in self.to_records(outcome)]
                    self._acknowledge(shard, self.review(shard, records), len(batch))
                    self._finish()
            self._finish()  # shards for which no worker had to do anything
            stop.check(f"{self.tally.made:,} new facts are kept")
        finally:
            for writer in self._writers.values():
                writer.close()
        return self.tally

    def _batches(self, shards: Iterable[tuple[str, Sequence[I]]]) -> Iterator[Sequence[I]]:
        for shard, items in shards:
            self._open(shard, len(items))
            for start in range(0, len(items), self.batch_size):
                rest = items[start:]
                if refused := self.refuse(shard, rest):
                    self._acknowledge(shard, refused, len(rest))
                    break
                yield rest[: self.batch_size]

    def _open(self, shard: str, num_items: int) -> None:
        left_over = self.facts.journal(shard, self.stage).exists()
        if num_items or left_over:
            self._writers[shard] = writer = self.facts.writer(shard, self.stage)
            if writer.torn_bytes:
                progress.say(
                    f"{shard}: removed {writer.torn_bytes} bytes of a record left unfinished by a "
                    "crash; it is made again"
                )
        if not num_items and left_over:  # convert an old journal to a file
            self._ended.append(shard)
        self._remaining[shard] = num_items

    def _acknowledge(self, shard: str, records: list[Record], num_items: int) -> None:
        """Store records; they are durable when this returns."""
        self._writers[shard].add(records)
        self.tally.add(records)
        progress.quarantined(Counter(r["failure"] for r in records if r.get("failure")))
        self.advance(num_items)
        self._remaining[shard] -= num_items
        done, failed = self.tally.made + self.tally.num_failed, self.tally.num_failed
        if done >= _MIN_OUTCOMES_FOR_LIMIT and failed > self.run_options.max_quarantine * done:
            worst = max(self.tally.failures, key=lambda reason: self.tally.failures[reason])
            raise QuarantineLimitError(
                f"{failed} of {done} items failed, mostly {worst}",
                did="all facts made so far are kept",
                hint="`curator quarantine list` shows them; or raise --max-quarantine",
            )
        if not self._remaining[shard]:
            self._ended.append(shard)

    def _finish(self) -> None:
        """Convert the journals of finished shards to Parquet files."""
        while self._ended:
            shard = self._ended.popleft()
            self._writers.pop(shard).finish()
            self.forget(shard)
