"""Making facts: the one loop that feeds items to workers and acknowledges what comes back.

Results are journaled and fsynced batch by batch, so a kill costs at most the batches in flight;
a shard whose items are all answered becomes one Parquet file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from curator import progress
from curator.errors import QuarantineLimitError
from curator.executors import Done, Executor, Failed, Work
from curator.facts import Facts, FactWriter
from curator.progress import Advance
from curator.stopping import StopRequest
from curator.work import probe

_MIN_OUTCOMES_FOR_LIMIT = 200


class _Item(Protocol):
    @property
    def shard(self) -> str: ...


I = TypeVar("I", bound=_Item)  # noqa: E741 - I for item, R for result, as in curator.executors
R = TypeVar("R")
Record = Mapping[str, Any]


@dataclass(slots=True)
class Tally:
    """What a stage did: outcomes by kind. `failures` counts them by reason."""

    made: int = 0
    failures: dict[str, int] = field(default_factory=dict)

    @property
    def num_failed(self) -> int:
        """All outcomes without a result."""
        return sum(self.failures.values())

    def add(self, records: Iterable[Record]) -> None:
        """Count acknowledged records."""
        for record in records:
            reason = record.get("failure")
            if reason is None:
                self.made += 1
            else:
                self.failures[reason] = self.failures.get(reason, 0) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Making(Generic[I, R]):
    """How one kind of fact is made: where it goes, who makes it, how an outcome is recorded.

    `review` may change the records of a batch; `forget` is told of a shard that is finished, so
    that nobody has to remember more than the shards at work.
    """

    facts: Facts
    build: Callable[[], Work[I, R]]
    to_records: Callable[[Done[I, R] | Failed[I]], list[Record]]
    executor: Executor
    batch_size: int
    review: Callable[[str, list[Record]], list[Record]] = lambda _shard, records: records
    forget: Callable[[str], object] = lambda _shard: None
    max_failed_share: float = 1.0
    stage: str = ""


def crash_reason(outcome: Failed[Any]) -> str:
    """The reason code for an item that took its worker down or stalled it."""
    if outcome.in_probe:
        return "image.decoder_crashed" if outcome.crashed else "image.decode_timeout"
    return "engine.crashed" if outcome.crashed else "vlm.stalled"


def make(
    making: Making[I, R],
    shards: Iterable[tuple[str, Sequence[I]]],
    *,
    advance: Advance,
    stop: StopRequest,
) -> Tally:
    """Make the facts for (shard, items) pairs.

    Raises:
        StoppedError: a signal came. QuarantineLimitError: too many items failed.
        EngineError, DamageError: from the workers. In every case what was acknowledged stays.
    """
    tally = Tally()
    writers: dict[str, FactWriter] = {}
    remaining: dict[str, int] = {}
    ended: deque[str] = deque()
    source = _batches(making, shards, writers, remaining, ended)
    try:
        run = making.executor.run(making.build, source, probe=probe, stop=stop)
        with closing(run) as outcomes:  # whatever happens below, the workers end with it
            for batch in outcomes:
                shard = batch[0].item.shard
                records = [record for outcome in batch for record in making.to_records(outcome)]
                records = making.review(shard, records)
                writers[shard].add(records)
                tally.add(records)
                advance(len(batch))
                remaining[shard] -= len(batch)
                _check_share(tally, making.max_failed_share)
                if not remaining[shard]:
                    ended.append(shard)
                _finish(making, writers, ended)
        _finish(making, writers, ended)  # nothing to do, but an old journal to turn into a file
        stop.check(f"{tally.made:,} new facts are kept")
    finally:
        for writer in writers.values():
            writer.close()
    return tally


def _batches(
    making: Making[I, R],
    shards: Iterable[tuple[str, Sequence[I]]],
    writers: dict[str, FactWriter],
    remaining: dict[str, int],
    ended: deque[str],
) -> Iterator[Sequence[I]]:
    facts = making.facts
    for shard, items in shards:
        left_over = facts.journal(shard, making.stage).exists()
        if items or left_over:
            writers[shard] = writer = facts.writer(shard, making.stage)
            if writer.torn_bytes:
                progress.say(
                    f"{shard}: cut {writer.torn_bytes} bytes of a record that a crash tore off; "
                    "it is made again"
                )
        if not items and left_over:
            ended.append(shard)
        remaining[shard] = len(items)
        for start in range(0, len(items), making.batch_size):
            yield items[start : start + making.batch_size]


def _finish(making: Making[I, R], writers: dict[str, FactWriter], ended: deque[str]) -> None:
    while ended:
        shard = ended.popleft()
        writers.pop(shard).finish()
        making.forget(shard)


def _check_share(tally: Tally, limit: float) -> None:
    done = tally.made + tally.num_failed
    if done >= _MIN_OUTCOMES_FOR_LIMIT and tally.num_failed > limit * done:
        worst = max(tally.failures, key=lambda reason: tally.failures[reason])
        raise QuarantineLimitError(
            f"{tally.num_failed} of {done} items failed, mostly {worst}",
            did="what was made is kept",
            hint="look with `curator quarantine list`, or raise --max-quarantine",
        )
