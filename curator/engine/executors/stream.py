"""An executor for models behind servers: worker processes prepare items, one event loop asks.

No batch waits for another: an item is prepared (read, decoded, packed) while earlier ones are with
the servers, and its outcome is handed on when it comes. What is prepared is bounded by what the
servers have room for, so memory does not grow with the number of items. A decoder that hangs or
crashes costs its item, since it runs in the processes of `ProcessExecutor`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, TypeVar

from curator.captioners import CaptionFailure
from curator.core import progress
from curator.engine.executors import STOP_GRACE_SEC, Done, Failed, Worker
from curator.engine.executors.local import ProcessExecutor
from curator.engine.worker import CaptionStream

T = TypeVar("T")
R = TypeVar("R")
_Outcome = Done[Any, Any] | Failed[Any]

_GATHER_SEC = 0.25
_GATHER = 64


class StreamExecutor:
    """Prepares items in the processes of an executor and has them answered by a stream.

    The workers that `build` makes return bytes, or a `CaptionFailure` as the outcome.
    """

    def __init__(
        self, processes: ProcessExecutor, connect: Callable[[Callable[[], bool]], CaptionStream]
    ) -> None:
        self._processes = processes
        self._connect = connect

    def run(
        self,
        build: Callable[[], Worker[T, R]],
        batches: Iterable[Sequence[T]],
        *,
        probe: Callable[[Any], object],
        stop: Callable[[], bool],
    ) -> Generator[list[Done[T, Any] | Failed[T]]]:
        """See `curator.engine.executors.Executor`; each list is of one shard, in any order.

        Outcomes are gathered for a quarter of a second or until there are 64.
        """
        steps = self._processes.steps(build, batches, probe=probe, stop=stop)
        with closing(steps):
            first = next(filter(None, steps), None)
            if first is None:
                return
            with _Loop(self._connect(stop)) as asking:
                asking.add(first)
                yield from self._drive(steps, asking, stop)
                for line in asking.stream.summary():
                    progress.say(line)

    def _drive(
        self, steps: Iterator[list[Any]], asking: _Loop, stop: Callable[[], bool]
    ) -> Iterator[list[Any]]:
        is_more = True
        gathered: list[_Outcome] = []
        since, deadline = time.monotonic(), None
        while True:
            if stop() and deadline is None:
                deadline = time.monotonic() + STOP_GRACE_SEC
            if is_more and asking.has_room:
                prepared = next(steps, None)
                is_more = prepared is not None
                asking.add(prepared or [])
            elif asking.num_unfinished:
                asking.wait(_GATHER_SEC)
            gathered += asking.finished()
            now = time.monotonic()
            is_over = not (is_more or asking.num_unfinished) or (
                deadline is not None and (now > deadline or not asking.stream.num_flying)
            )
            if is_over or asking.error or len(gathered) >= _GATHER or now - since >= _GATHER_SEC:
                gathered += asking.finished() if is_over else []
                yield from _by_shard(gathered)
                gathered, since = [], now
            if asking.error is not None:
                raise asking.error
            if is_over:
                return


def _by_shard(outcomes: Iterable[_Outcome]) -> Iterator[list[_Outcome]]:
    """Split outcomes into lists of one shard: each is stored with an fsync."""
    shards: defaultdict[str, list[_Outcome]] = defaultdict(list)
    for outcome in outcomes:
        shards[outcome.item.shard].append(outcome)
    yield from shards.values()


class _Loop:
    """An event loop in a thread, in which a stream answers groups of items."""

    def __init__(self, stream: CaptionStream) -> None:
        self.stream = stream
        self.error: BaseException | None = None
        self.num_unfinished = 0
        self._finished: list[_Outcome] = []
        self._news = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="servers", daemon=True)

    def __enter__(self) -> _Loop:
        self._thread.start()
        self._call(self.stream.__aenter__())
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self._call(self._end())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    @property
    def has_room(self) -> bool:
        """Whether more items should be prepared."""
        return self.num_unfinished < self.stream.room

    def add(self, prepared: Sequence[_Outcome]) -> None:
        """Have prepared items answered; those that failed before are finished."""
        images: dict[Any, bytes] = {}
        for outcome in prepared:
            if isinstance(outcome, Failed) or isinstance(outcome.result, CaptionFailure):
                with self._news:
                    self._finished.append(outcome)
            else:
                images[outcome.item] = outcome.result
        for group in self.stream.group(list(images)):
            self.num_unfinished += 1
            self._loop.call_soon_threadsafe(self._begin, group, images[group[0]])

    def finished(self) -> list[_Outcome]:
        """Return the outcomes that have come since the last call."""
        with self._news:
            found, self._finished = self._finished, []
            return found

    def wait(self, seconds: float) -> None:
        """Wait until something has finished, but no longer than this."""
        with self._news:
            if not self._finished and self.error is None:
                self._news.wait(seconds)

    def _begin(self, group: Sequence[Any], image: bytes) -> None:
        task = self._loop.create_task(self._answer(group, image))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, group: Sequence[Any], image: bytes) -> None:
        found: list[_Outcome] = []
        error: BaseException | None = None
        try:
            results = await self.stream.answer(group, image)
            found = [Done(item, result) for item, result in zip(group, results, strict=True)]
        except Exception as raised:  # noqa: BLE001 - raised again in the main thread
            error = raised
        with self._news:
            self._finished += found
            self.error = self.error or error
            self.num_unfinished -= 1
            self._news.notify()

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.stream.__aexit__(None, None, None)

    def _call(self, work: Coroutine[Any, Any, Any]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()
