"""The facts loop: it feeds items to workers and acknowledges what comes back.

A maker (`curator.engine.makers`) is who makes facts, a worker (`curator.engine.worker`) is its
function inside a worker process, an executor runs workers, and the loop keeps their outcomes.

Results are journaled and fsynced batch by batch, so a kill costs at most the batches in flight;
a shard whose items are all answered becomes one Parquet file.
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


class _Item(Protocol):
    @property
    def shard(self) -> str: ...


I = TypeVar("I", bound=_Item)  # noqa: E741 - I for item, R for result, as in curator.engine.executors
R = TypeVar("R")
Record = Mapping[str, Any]


@dataclass(slots=True)
class Tally:
    """What a stage did: outcomes by kind. `failures` counts them by reason.

    Of the captions made, `truncated` end in the middle of a sentence, because the token limit came;
    `trimmed` came to it as well and were cut back to their last whole sentence.
    """

    made: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    truncated: int = 0
    trimmed: int = 0

    @property
    def num_failed(self) -> int:
        """All outcomes without a result."""
        return sum(self.failures.values())

    def plus(self, other: Tally) -> Tally:
        """What both did."""
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
    """The reason code for an item that took its worker down or stalled it."""
    if outcome.in_probe:
        return "image.decoder_crashed" if outcome.crashed else "image.decode_timeout"
    return "engine.crashed" if outcome.crashed else "vlm.stalled"


@dataclass(slots=True, kw_only=True)
class FactsLoop(Generic[I, R]):
    """One kind of fact: where it goes, who makes it, how an outcome is recorded. For one run.

    Attributes:
        build: makes the worker, in its process.
        review: may change the records of a batch.
        refuse: may answer for a batch in place of the workers, who then never see it.
        forget: is told of a shard that is finished, so that nobody has to remember more than the
            shards at work.
        stage: tells the journals of two loops over the same facts apart.
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
            StoppedError: a signal came. QuarantineLimitError: too many items failed.
            EngineError, DamageError: from the workers. In every case what was acknowledged stays.
        """
        try:
            run = self.executor.run(self.build, self._batches(shards), probe=probe, stop=stop)
            with closing(run) as outcomes:  # whatever happens below, the workers end with it
                for batch in outcomes:
                    shard = batch[0].item.shard
                    records = [record for outcome in batch for record in self.to_records(outcome)]
                    self._acknowledge(shard, self.review(shard, records), len(batch))
                    self._finish()
            self._finish()  # shards with nothing to do, or with nothing that was done by a worker
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
                    f"{shard}: cut {writer.torn_bytes} bytes of a record that a crash tore off; "
                    "it is made again"
                )
        if not num_items and left_over:  # an old journal to turn into a file
            self._ended.append(shard)
        self._remaining[shard] = num_items

    def _acknowledge(self, shard: str, records: list[Record], num_items: int) -> None:
        """Durable when this returns."""
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
                did="what was made is kept",
                hint="look with `curator quarantine list`, or raise --max-quarantine",
            )
        if not self._remaining[shard]:
            self._ended.append(shard)

    def _finish(self) -> None:
        """Turn the journals of the shards that are through into files."""
        while self._ended:
            shard = self._ended.popleft()
            self._writers.pop(shard).finish()
            self.forget(shard)
