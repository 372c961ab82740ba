"""The executor on a Ray cluster: one actor per worker, wherever the cluster has room.

Ray is transport only. Items carry places and no bytes: an actor builds its model once and reads the
shards itself, so they must be reachable from every node under the same name, and this package must
be installed there. Results come back to this process, which journals them. An actor or node that
dies costs the items it had; if this process dies, the actors end with it, and the next run goes on
from the facts.

Actors that the cluster has no room for yet wait, while the others work; they join in when nodes are
added. An actor that died is replaced. What was in the hands of one that died alone is tried again
item by item, and an item that also fails alone is `Failed`; what was on a node that died is simply
sent again. Nothing is retried by Ray itself, which cannot tell the two apart.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

import ray
from ray.exceptions import (
    GetTimeoutError,
    RayActorError,
    RayError,
    RayTaskError,
    TaskCancelledError,
    WorkerCrashedError,
)

from curator.core.errors import CuratorError, EngineError
from curator.core.progress import say
from curator.core.run_options import DEFAULTS
from curator.engine.executors import MAX_RESTARTS_IN_A_ROW, STOP_GRACE_SEC, Done, Failed, Worker
from curator.engine.executors.local import keep_freed_memory

T = TypeVar("T")
R = TypeVar("R")

_POLL_SEC = 0.2
_PROBE_TIMEOUT_SEC = 60.0
_CONNECT_TIMEOUT_SEC = 10.0
_PATIENCE_SEC = 20.0
_MAX_DEATHS = 2
_TASK_RETRIES = 3
_IN_FLIGHT = 2


@dataclass(slots=True)
class _Task:
    """Items that are sent together; `deaths` counts the actors that died with them."""

    items: Sequence[Any]
    deaths: int = 0


@dataclass(slots=True)
class _Lane:
    """One actor, its tasks in flight (oldest first), and the task it gets next.

    `node` is known once the actor runs. `since` is when the oldest task was begun.
    """

    actor: Any
    ready: Any
    node: str | None = None
    queue: deque[tuple[_Task, Any]] = field(default_factory=deque)
    upcoming: _Task | None = None
    since: float = 0.0


class RayExecutor:
    """Runs one actor per worker. `address` as in `ray.init`: None is the cluster of RAY_ADDRESS or
    of this machine, else one that is started for the run.

    `gpus` is the share of GPUs that an actor gets; None is one where the cluster has any.
    """

    def __init__(
        self,
        num_workers: int = DEFAULTS.workers,
        stall_timeout_sec: float = DEFAULTS.stall_timeout_sec,
        *,
        address: str | None = None,
        gpus: float | None = None,
    ) -> None:
        self.num_workers = num_workers
        self.stall_timeout_sec = stall_timeout_sec
        self.address = address
        self.gpus = gpus

    def run(
        self,
        build: Callable[[], Worker[T, R]],
        batches: Iterable[Sequence[T]],
        *,
        probe: Callable[[Any], object],
        stop: Callable[[], bool],
    ) -> Generator[list[Done[T, R] | Failed[T]]]:
        """See `curator.engine.executors.Executor`."""
        source = iter(batches)
        first = next(source, None)
        if first is None:
            return
        with connected(self.address):
            yield from _Run(self, build, probe).drive(_tasks(first, source), stop)


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to a cluster for the block; one that was started for it ends with it.

    Raises:
        EngineError: no cluster answers at `address`.
    """
    if ray.is_initialized():
        yield
        return
    # Ray replaces the handler of SIGTERM by one that ends the process at once.
    handler = signal.getsignal(signal.SIGTERM)
    try:
        _require_open(address or os.environ.get("RAY_ADDRESS", ""))
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        raise EngineError(
            f"no Ray cluster can be used ({str(error).splitlines()[0]})",
            where=address or "RAY_ADDRESS",
            did="nothing was started",
            hint="check --ray-address (`ray status` there), or drop it to start a local one",
            reason="engine.error",
        ) from error
    finally:
        signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        ray.shutdown()


def mapped(
    function: Callable[[T], R], items: Iterable[T], address: str | None
) -> Generator[tuple[T, R]]:
    """Yield (item, result) in order, computed on the cluster; a node that dies costs nothing.

    Raises:
        CuratorError: of the function. EngineError: no cluster answers.
    """
    with connected(address):
        task: Any = ray.remote(num_cpus=1, max_retries=_TASK_RETRIES)(_call)
        sent = ray.put(function)
        window = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
        source, flying = iter(items), deque[tuple[T, Any]]()
        while True:
            for item in islice(source, window - len(flying)):
                flying.append((item, task.remote(sent, item)))
            if not flying:
                return
            item, ref = flying.popleft()
            try:
                found: R = ray.get(ref)
            except RayTaskError as error:
                raise _cause(error) from None
            yield item, found


def _require_open(address: str) -> None:
    """Raise OSError unless something listens at HOST:PORT; Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "//" not in address:
        socket.create_connection((host, int(port)), _CONNECT_TIMEOUT_SEC).close()


def _tasks(first: Sequence[Any], rest: Iterator[Sequence[Any]]) -> Iterator[_Task]:
    yield _Task(first)
    for batch in rest:
        yield _Task(batch)


class _Run:
    """The lanes of one run, and what has to be sent again."""

    def __init__(
        self, options: RayExecutor, build: Callable[[], Any], probe: Callable[[Any], object]
    ) -> None:
        self._options, self._probe = options, probe
        self._again: deque[_Task] = deque()
        self._restarts = 0
        self._waiting_since: float | None = time.monotonic()
        self._label = getattr(getattr(build, "func", build), "__name__", "worker")
        gpus = options.gpus
        if gpus is None:
            gpus = 1.0 if ray.cluster_resources().get("GPU") else 0.0
        self._gpus = gpus
        # num_cpus is what an actor is counted as, for its whole life.
        self._class = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=0)(_Actor).options(
            scheduling_strategy="SPREAD"
        )
        self._build = ray.put(build)

    def drive(
        self, source: Iterator[_Task], stop: Callable[[], bool]
    ) -> Generator[list[Done[Any, Any] | Failed[Any]]]:
        lanes = [self._opened() for _ in range(self._options.num_workers)]
        deadline: float | None = None
        try:
            while True:
                if stop() and deadline is None:
                    deadline = time.monotonic() + STOP_GRACE_SEC
                if deadline is None:
                    while any([self._feed(lane, source) for lane in lanes]):  # one each in turn
                        pass
                flying = [lane.queue[0][1] for lane in lanes if lane.queue]
                pending = [lane.ready for lane in lanes if lane.node is None]
                if not flying and (deadline is not None or not self._has_more(lanes, source)):
                    return
                if deadline is not None and time.monotonic() > deadline:
                    return
                refs = flying + pending
                found, _ = ray.wait(refs, num_returns=1, timeout=_POLL_SEC)
                for number, lane in enumerate(lanes):
                    yield from self._outcomes(lanes, number, lane, set(found))
                self._say_waiting(lanes)
        finally:
            for lane in lanes:
                ray.kill(lane.actor)

    def _opened(self) -> _Lane:
        actor: Any = self._class.remote(self._build)
        return _Lane(actor, actor.node.remote())

    def _has_more(self, lanes: Sequence[_Lane], source: Iterator[_Task]) -> bool:
        """Whether anything is left to be sent; what is found waits for its turn."""
        if self._again or any(lane.upcoming for lane in lanes):
            return True
        task = next(source, None)
        if task is not None:
            self._again.append(task)
        return task is not None

    def _next(self, source: Iterator[_Task]) -> _Task | None:
        return self._again.popleft() if self._again else next(source, None)

    def _feed(self, lane: _Lane, source: Iterator[_Task]) -> bool:
        """Give an actor its next task, if it runs and has room; reserve the one after it."""
        if lane.node is None or len(lane.queue) >= _IN_FLIGHT:
            return False
        task = lane.upcoming or self._next(source)
        if task is None:
            return False
        lane.upcoming = self._next(source)
        items = lane.upcoming.items if lane.upcoming else ()
        named = lane.actor.work.options(name=f"{self._label}: {len(task.items)} items")
        if not lane.queue:
            lane.since = time.monotonic()
        lane.queue.append((task, named.remote(task.items, items)))
        return True

    def _outcomes(
        self, lanes: list[_Lane], number: int, lane: _Lane, found: set[Any]
    ) -> Iterator[list[Done[Any, Any] | Failed[Any]]]:
        """Yield what a lane has finished; put another actor in its place if it died or hangs."""
        if lane.node is None:
            if lane.ready in found:
                self._joined(lanes, number, lane)
            return
        while lane.queue and lane.queue[0][1] in found:
            task, ref = lane.queue[0]
            try:
                results = ray.get(ref)
            except RayTaskError as error:
                raise _cause(error) from None
            except RayActorError as error:
                yield from self._lost(lanes, number, lane, crashed=True, preempted=error.preempted)
                return
            lane.queue.popleft()
            lane.since = time.monotonic()
            self._restarts = 0
            yield [Done(item, result) for item, result in zip(task.items, results, strict=True)]
            found = found | set(_finished(lane))
        if lane.queue and time.monotonic() - lane.since > self._options.stall_timeout_sec:
            yield from self._lost(lanes, number, lane, crashed=False, preempted=False)

    def _joined(self, lanes: list[_Lane], number: int, lane: _Lane) -> None:
        """Note where an actor runs; one whose node died before it started is asked for again."""
        try:
            lane.node = ray.get(lane.ready)
        except RayActorError as error:
            self._restarts += 1
            if error.actor_init_failed or self._restarts > MAX_RESTARTS_IN_A_ROW:
                said = str(error).strip().splitlines()[-1]
                raise EngineError(
                    f"a worker cannot be started on the Ray cluster ({said})",
                    did="all stored facts are kept",
                    hint="install this package, of the same version, on every node",
                    reason="engine.error",
                ) from error
            lanes[number] = self._opened()

    def _lost(
        self, lanes: list[_Lane], number: int, lane: _Lane, *, crashed: bool, preempted: bool
    ) -> Iterator[list[Done[Any, Any] | Failed[Any]]]:
        """Replace an actor; what it had is sent again, or has failed for good."""
        innocent = preempted or (crashed and not _is_alive(lane.node))
        ray.kill(lane.actor)
        lanes[number] = self._opened()
        (suspect, _), *behind = lane.queue
        rest = [task for task, _ in behind] + ([lane.upcoming] if lane.upcoming else [])
        self._again.extendleft(reversed(rest))
        if innocent:
            self._again.appendleft(suspect)
            return
        suspect.deaths += 1
        if len(suspect.items) > 1:
            singles = [_Task([item], suspect.deaths) for item in suspect.items]
            self._again.extendleft(reversed(singles))
        elif suspect.deaths < _MAX_DEATHS:
            self._again.appendleft(suspect)
        else:
            yield [self._verdict(suspect.items[0], crashed=crashed)]

    def _verdict(self, item: Any, *, crashed: bool) -> Failed[Any]:
        """Decide whether the item (its probe fails too) or the engine is at fault."""
        timeout = self._options.stall_timeout_sec
        how = "died" if crashed else f"did not answer for {timeout:.0f} s"
        task: Any = ray.remote(num_cpus=0, max_retries=0)(_call)
        probed = task.remote(self._probe, item)
        try:
            ray.get(probed, timeout=_PROBE_TIMEOUT_SEC)
        except WorkerCrashedError:
            return Failed(item, True, True, "died")
        except (GetTimeoutError, TaskCancelledError):
            ray.cancel(probed, force=True)
            return Failed(item, False, True, f"did not answer for {_PROBE_TIMEOUT_SEC:.0f} s")
        except RayTaskError as error:
            raise _cause(error) from None
        self._restarts += 1
        if self._restarts > MAX_RESTARTS_IN_A_ROW:
            raise EngineError(
                f"the worker process {how}, {self._restarts} times in a row",
                did="all stored facts are kept",
                hint="try --batch-size 1, another --device or a smaller model",
                reason="engine.crashed",
            )
        return Failed(item, crashed, False, f"the worker process {how}")

    def _say_waiting(self, lanes: Sequence[_Lane]) -> None:
        """Say once that no actor runs, if it takes long; the user may wait for a full cluster."""
        if any(lane.node is not None for lane in lanes):
            self._waiting_since = None
        elif self._waiting_since and time.monotonic() - self._waiting_since > _PATIENCE_SEC:
            self._waiting_since = None
            free, there = ray.available_resources(), ray.cluster_resources()
            say(
                f"waiting for room on the Ray cluster: a worker takes 1 CPU and {self._gpus:g} "
                f"GPUs, free are {free.get('CPU', 0):g} of {there.get('CPU', 0):g} CPUs and "
                f"{free.get('GPU', 0):g} of {there.get('GPU', 0):g} GPUs"
            )


def _finished(lane: _Lane) -> Sequence[Any]:
    """Return the oldest task of a lane, if it is finished."""
    if not lane.queue:
        return ()
    done: Sequence[Any] = ray.wait([lane.queue[0][1]], timeout=0)[0]
    return done


def _is_alive(node: str | None) -> bool:
    return any(one["NodeID"] == node and one["Alive"] for one in ray.nodes())


def _cause(error: RayTaskError) -> BaseException:
    """Return the error as the worker raised it; Ray wraps it in one of its own."""
    cause: BaseException = error.cause
    return cause if isinstance(cause, CuratorError) else error


# -- on a node ------------------------------------------------------------------------------------


def _call(function: Callable[[T], R], item: T) -> R:
    return function(item)  # Ray takes functions, not what `functools.partial` makes


class _Actor:
    """Runs one worker, built at its first batch so that its errors reach the driver."""

    def __init__(self, build: Callable[[], Worker[Any, Any]]) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's
        keep_freed_memory()
        self._build = build
        self._worker: Worker[Any, Any] | None = None

    def node(self) -> str:
        """Return the id of the node that the actor runs on."""
        node: str = ray.get_runtime_context().get_node_id()
        return node

    def work(self, batch: Sequence[Any], upcoming: Sequence[Any]) -> list[Any]:
        """Return one result per item; prefetch the batch after it."""
        self._worker = self._worker or self._build()
        prefetch = getattr(self._worker, "prefetch", None)
        if prefetch is not None and upcoming:
            prefetch(upcoming)
        return self._worker(batch)
