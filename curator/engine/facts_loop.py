"""Making facts: the one loop that feeds items to workers and acknowledges what comes back.

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
from curator.core.stopping import StopRequest
from curator.engine.executors import Done, Executor, Failed, Work
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Making(Generic[I, R]):
    """How one kind of fact is made: where it goes, who makes it, how an outcome is recorded.

    `review` may change the records of a batch. `refuse` may answer for a batch in place of the
    workers, who then never see it. `forget` is told of a shard that is finished, so that nobody
    has to remember more than the shards at work.
    """

    facts: Facts
    build: Callable[[], Work[I, R]]
    to_records: Callable[[Done[I, R] | Failed[I]], list[Record]]
    executor: Executor
    batch_size: int
    review: Callable[[str, list[Record]], list[Record]] = lambda _shard, records: records
    refuse: Callable[[str, Sequence[I]], list[Record]] = lambda _shard, _items: []
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
    desk = _Desk(making, advance)
    try:
        run = making.executor.run(making.build, desk.batches(shards), probe=probe, stop=stop)
        with closing(run) as outcomes:  # whatever happens below, the workers end with it
            for batch in outcomes:
                shard = batch[0].item.shard
                records = [record for outcome in batch for record in making.to_records(outcome)]
                desk.acknowledge(shard, making.review(shard, records), len(batch))
                desk.finish()
        desk.finish()  # shards with nothing to do, or with nothing that was done by a worker
        stop.check(f"{desk.tally.made:,} new facts are kept")
    finally:
        desk.close()
    return desk.tally


class _Desk(Generic[I, R]):
    """Gives out the batches, writes down what comes back, and knows which shards are through."""

    def __init__(self, making: Making[I, R], advance: Advance) -> None:
        self.tally = Tally()
        self._making = making
        self._advance = advance
        self._writers: dict[str, FactWriter] = {}
        self._remaining: dict[str, int] = {}
        self._ended: deque[str] = deque()

    def batches(self, shards: Iterable[tuple[str, Sequence[I]]]) -> Iterator[Sequence[I]]:
        size = self._making.batch_size
        for shard, items in shards:
            self._open(shard, len(items))
            for start in range(0, len(items), size):
                rest = items[start:]
                if refused := self._making.refuse(shard, rest):
                    self.acknowledge(shard, refused, len(rest))
                    break
                yield rest[:size]

    def _open(self, shard: str, num_items: int) -> None:
        facts = self._making.facts
        left_over = facts.journal(shard, self._making.stage).exists()
        if num_items or left_over:
            self._writers[shard] = writer = facts.writer(shard, self._making.stage)
            if writer.torn_bytes:
                progress.say(
                    f"{shard}: cut {writer.torn_bytes} bytes of a record that a crash tore off; "
                    "it is made again"
                )
        if not num_items and left_over:  # an old journal to turn into a file
            self._ended.append(shard)
        self._remaining[shard] = num_items

    def acknowledge(self, shard: str, records: list[Record], num_items: int) -> None:
        """Durable when this returns."""
        self._writers[shard].add(records)
        self.tally.add(records)
        progress.quarantined(Counter(r["failure"] for r in records if r.get("failure")))
        self._advance(num_items)
        self._remaining[shard] -= num_items
        _check_share(self.tally, self._making.max_failed_share)
        if not self._remaining[shard]:
            self._ended.append(shard)

    def finish(self) -> None:
        """Turn the journals of the shards that are through into files."""
        while self._ended:
            shard = self._ended.popleft()
            self._writers.pop(shard).finish()
            self._making.forget(shard)

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()


def _check_share(tally: Tally, limit: float) -> None:
    done = tally.made + tally.num_failed
    if done >= _MIN_OUTCOMES_FOR_LIMIT and tally.num_failed > limit * done:
        worst = max(tally.failures, key=lambda reason: tally.failures[reason])
        raise QuarantineLimitError(
            f"{tally.num_failed} of {done} items failed, mostly {worst}",
            did="what was made is kept",
            hint="look with `curator quarantine list`, or raise --max-quarantine",
        )
