"""Executors for one machine: in this process, or in one supervised process per model.

A batch that crashes or stalls its worker is tried again item by item in a new worker; an item that
also fails alone is `Failed`, all others continue. Processes are supervised by pebble.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool

from curator.core.errors import EngineError
from curator.core.model_spec import ModelSpec
from curator.core.package import require
from curator.core.run_options import DEFAULTS, RunOptions
from curator.core.stopping import without_ctrl_c
from curator.engine.executors import (
    MAX_RESTARTS_IN_A_ROW,
    STOP_GRACE_SEC,
    Done,
    Executor,
    Failed,
    Worker,
)

T = TypeVar("T")
R = TypeVar("R")

_POLL_SEC = 0.2
_PROBE_TIMEOUT_SEC = 10.0
_IN_FLIGHT = 2


class InlineExecutor:
    """Runs everything in this process, unsupervised: for fakes, text checks and debugging."""

    def run(
        self,
        build: Callable[[], Worker[T, R]],
        batches: Iterable[Sequence[T]],
        *,
        probe: Callable[[Any], object],
        stop: Callable[[], bool],
    ) -> Generator[list[Done[T, R] | Failed[T]]]:
        """See `curator.engine.executors.Executor`; `probe` is not used."""
        worker: Worker[T, R] | None = None
        for batch in batches:
            if stop():
                return
            worker = worker or build()
            yield [Done(item, result) for item, result in zip(batch, worker(batch), strict=True)]


def executor_of(spec: ModelSpec, run_options: RunOptions) -> Executor:
    """Return the executor for a row of a table.

    Raises:
        MissingExtraError: --executor ray without the extra.
    """
    if spec.in_process:
        return InlineExecutor()
    if run_options.executor == "ray":
        require("ray", "--executor ray")
        from curator.engine.executors.on_ray import RayExecutor  # loads ray

        return RayExecutor(
            run_options.workers,
            run_options.stall_timeout_sec,
            address=run_options.ray_address,
            gpus=run_options.gpus if spec.needs == "model" else 0.0,
        )
    return ProcessExecutor(run_options.workers, run_options.stall_timeout_sec)


@dataclass(slots=True)
class _Lane:
    """One worker process, its batches in flight (oldest first), and the batch it gets next."""

    pool: ProcessPool
    queue: deque[tuple[Sequence[Any], Future[Any]]] = field(default_factory=deque)
    upcoming: Sequence[Any] | None = None


class ProcessExecutor:
    """Runs one process per model, each on its own GPU if there are several workers."""

    def __init__(
        self,
        num_workers: int = DEFAULTS.workers,
        stall_timeout_sec: float = DEFAULTS.stall_timeout_sec,
    ) -> None:
        self.num_workers = num_workers
        self.stall_timeout_sec = stall_timeout_sec
        self._restarts = 0

    def run(
        self,
        build: Callable[[], Worker[T, R]],
        batches: Iterable[Sequence[T]],
        *,
        probe: Callable[[Any], object],
        stop: Callable[[], bool],
    ) -> Generator[list[Done[T, R] | Failed[T]]]:
        """See `curator.engine.executors.Executor`."""
        with closing(self.steps(build, batches, probe=probe, stop=stop)) as steps:
            yield from filter(None, steps)

    def steps(
        self,
        build: Callable[[], Worker[T, R]],
        batches: Iterable[Sequence[T]],
        *,
        probe: Callable[[Any], object],
        stop: Callable[[], bool],
    ) -> Generator[list[Done[T, R] | Failed[T]]]:
        """As `run`, and an empty list whenever nothing has finished for a fifth of a second."""
        source = iter(batches)
        first = list(islice(source, 1))
        if not first:
            return
        source = _chain(first, source)
        lanes = [self._open_lane(build, number) for number in range(self.num_workers)]
        clean = False
        try:
            yield from self._drive(lanes, source, probe, stop)
            clean = True
        finally:
            for lane in lanes:
                end: Any = lane.pool.close if clean and not lane.queue else lane.pool.stop
                end()
            for lane in lanes:
                lane.pool.join()

    def _open_lane(self, build: Callable[[], Worker[T, R]], number: int) -> _Lane:
        gpu, threads = None, None
        if self.num_workers > 1:
            gpu, threads = _visible_gpu(number), max(1, num_cores() // self.num_workers)
        # spawn: a forked child would inherit threads and an initialised CUDA context
        pool = ProcessPool(
            max_workers=1,
            initializer=_start_worker,
            initargs=(build, gpu, threads),
            context=get_context("spawn"),
        )
        return _Lane(pool)

    def _drive(
        self,
        lanes: list[_Lane],
        source: Iterator[Sequence[T]],
        probe: Callable[[Any], object],
        stop: Callable[[], bool],
    ) -> Iterator[list[Done[T, Any] | Failed[T]]]:
        deadline: float | None = None
        while True:
            if stop() and deadline is None:
                deadline = time.monotonic() + STOP_GRACE_SEC
            if deadline is None:
                while any([self._feed(lane, source) for lane in lanes]):  # each gets one in turn
                    pass
            flying = [lane.queue[0][1] for lane in lanes if lane.queue]
            if not flying or (deadline is not None and time.monotonic() > deadline):
                return
            ready, _ = wait(flying, timeout=_POLL_SEC, return_when=FIRST_COMPLETED)
            if not ready:
                yield []
            for lane in lanes:
                while lane.queue and lane.queue[0][1] in ready:
                    batch, future = lane.queue.popleft()
                    yield self._outcomes(lane, batch, future, probe)

    def _feed(self, lane: _Lane, source: Iterator[Sequence[T]]) -> bool:
        """Give a worker its next batch, if it has room and there is one.

        The batch after it is reserved for the same worker, which reads and decodes it ahead: data
        read ahead for a batch of another worker would never be freed.
        """
        if len(lane.queue) >= _IN_FLIGHT:
            return False
        batch = next(source, None) if lane.upcoming is None else lane.upcoming
        if batch is None:
            return False
        lane.upcoming = next(source, None)
        # Two batches are in flight: one being processed and one waiting in the worker's pipe.
        # pebble starts a task's timeout when the worker takes it.
        with without_ctrl_c():  # the first one starts the pool's threads, which start processes
            future = lane.pool.schedule(
                _work_on, args=(batch, lane.upcoming or ()), timeout=self.stall_timeout_sec
            )
        lane.queue.append((batch, future))
        return True

    def _outcomes(
        self, lane: _Lane, batch: Sequence[T], future: Future[Any], probe: Callable[[Any], object]
    ) -> list[Done[T, Any] | Failed[T]]:
        try:
            results = future.result()
        except (TimeoutError, ProcessExpired) as error:
            if len(batch) > 1:
                singles = [self._alone(lane, [item], probe) for item in batch]
                return [outcome for single in singles for outcome in single]
            return [self._verdict(lane, batch[0], error, probe)]
        self._restarts = 0
        return [Done(item, result) for item, result in zip(batch, results, strict=True)]

    def _alone(
        self, lane: _Lane, batch: Sequence[T], probe: Callable[[Any], object]
    ) -> list[Done[T, Any] | Failed[T]]:
        future = lane.pool.schedule(_work_on, args=(batch, ()), timeout=self.stall_timeout_sec)
        return self._outcomes(lane, batch, future, probe)

    def _verdict(
        self, lane: _Lane, item: T, error: Exception, probe: Callable[[Any], object]
    ) -> Failed[T]:
        """Decide whether the item (its probe fails too) or the engine is at fault."""
        detail = f"the worker process {_describe(error, self.stall_timeout_sec)}"
        try:
            lane.pool.schedule(probe, args=(item,), timeout=_PROBE_TIMEOUT_SEC).result()
        except (TimeoutError, ProcessExpired) as again:
            crashed = isinstance(again, ProcessExpired)
            return Failed(item, crashed, True, _describe(again, _PROBE_TIMEOUT_SEC))
        self._restarts += 1
        if self._restarts > MAX_RESTARTS_IN_A_ROW:
            raise EngineError(
                f"{detail}, {self._restarts} times in a row",
                did="all stored facts are kept",
                hint="try --batch-size 1, another --device or a smaller model",
                reason="engine.crashed",
            ) from error
        return Failed(item, isinstance(error, ProcessExpired), False, detail)


def _describe(error: Exception, timeout_sec: float) -> str:
    if isinstance(error, ProcessExpired):
        return f"died (exit code {error.exitcode})"
    return f"did not answer for {timeout_sec:.0f} s"


def _chain(first: list[T], rest: Iterator[T]) -> Iterator[T]:
    yield from first
    yield from rest


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _visible_gpu(number: int) -> str:
    visible = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    return visible[number % len(visible)] if visible else str(number)


# -- inside the worker process --------------------------------------------------------------------

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_MOST_BYTES = 2**31 - 1

_build: Callable[[], Worker[Any, Any]] | None = None
_worker: Worker[Any, Any] | None = None


def _start_worker(
    build: Callable[[], Worker[Any, Any]], gpu: str | None, threads: int | None
) -> None:
    global _build  # noqa: PLW0603 - a worker process runs one worker
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches all processes; the parent handles it
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # before anything imports torch
    if threads is not None:
        # Processes that each use all cores compete by spinning: ten times slower on two cores.
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    keep_freed_memory()
    _build = build


def keep_freed_memory() -> None:
    """Let glibc reuse freed memory instead of returning it to the kernel.

    By default blocks above 32 MB are unmapped when freed, so a CPU model gets every activation of
    every forward pass as new pages, each faulted in and zeroed: 16,000 page faults per image, and
    more time in the kernel than in the model for a MobileNet at batch 32 (benchmarks/score.py).
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_TRIM_THRESHOLD, _MOST_BYTES)
        libc.mallopt(_M_MMAP_THRESHOLD, _MOST_BYTES)


def _work_on(batch: Sequence[Any], upcoming: Sequence[Any]) -> list[Any]:
    global _worker  # noqa: PLW0603 - built at the first batch, so that its errors reach the parent
    if _worker is None:
        assert _build is not None
        _worker = _build()
    prefetch = getattr(_worker, "prefetch", None)
    if prefetch is not None and upcoming:
        prefetch(upcoming)
    return _worker(batch)
