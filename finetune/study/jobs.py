"""Run the cells of a study in this process, or in several processes in parallel. Torch-free.

Cells are small compared with a machine: a net that a CPU trains in minutes cannot fill two cores,
and a cell uses one of eight GPUs. `workers` starts one process per job. Each imports torch once and
creates its runner, which sets its GPU or number of threads. Ctrl-C reaches all of them through one
flag, because each must finish its step and write a checkpoint.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Protocol

from curator.core.errors import EngineError, StoppedError
from curator.core.stopping import StopRequest, without_ctrl_c
from finetune.study.cells import Json, Runner
from finetune.study.one_cell import Job, run_cell

STOPPED: Json = {"status": "stopped"}
"""Returned instead of a record: the cell was stopped and wrote no file."""


class Jobs(Protocol):
    """Runs cells, `number` at a time."""

    number: int

    def submit(self, job: Job) -> Future[Json]:
        """Return the record of a cell, or STOPPED. Raises the errors of `run_cell`."""
        ...

    def stop(self, signum: int) -> None:
        """Ask all running cells to stop."""
        ...


class Inline:
    """Runs one cell after the other, in this process."""

    number = 1

    def __init__(self, runner: Runner, stop: StopRequest) -> None:
        self._runner, self._stop = runner, stop

    def submit(self, job: Job) -> Future[Json]:
        """See `Jobs`; returns when the cell is finished."""
        future: Future[Json] = Future()
        future.set_result(run_or_stop(job, self._runner, self._stop))
        return future

    def stop(self, signum: int) -> None:
        """See `Jobs`; the stop request is shared already."""


class Workers:
    """Runs cells in `number` processes. See `workers`."""

    def __init__(self, pool: ProcessPoolExecutor, number: int, flag: Any) -> None:
        self.number = number
        self._pool, self._flag = pool, flag

    def submit(self, job: Job) -> Future[Json]:
        """See `Jobs`.

        Raises:
            EngineError: a process died.
        """
        try:
            with without_ctrl_c():
                return self._pool.submit(_run_here, job)
        except BrokenProcessPool as error:
            raise died() from error

    def stop(self, signum: int) -> None:
        """See `Jobs`."""
        self._flag.value = signum


@contextmanager
def workers(
    make: Callable[..., Runner], arguments: dict[str, Any], number: int
) -> Iterator[Workers]:
    """Start `number` worker processes for the block.

    `make` is a module-level function that creates the runner in each process:
    `make(job, number, **arguments)`, with `job` from 0 on.
    """
    # spawn: a forked child would inherit threads and an initialised CUDA context
    context = multiprocessing.get_context("spawn")
    flag, turn = context.Value("i", 0), context.Value("i", 0)
    pool = ProcessPoolExecutor(
        number, context, initializer=_start, initargs=(make, arguments, number, flag, turn)
    )
    try:
        yield Workers(pool, number, flag)
    except BaseException:
        flag.value = flag.value or signal.SIGTERM
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def died() -> EngineError:
    """Return the error for a worker process that died."""
    return EngineError(
        "a process that ran a cell died",
        did="finished runs are kept",
        hint="often out of memory: try fewer --jobs; the same command resumes",
        reason="study.worker_died",
    )


def run_or_stop(job: Job, runner: Runner, stop: StopRequest) -> Json:
    """Run a cell; return its record, or STOPPED."""
    try:
        return run_cell(job, runner, stop)
    except StoppedError:
        return STOPPED


# -- inside a worker process ----------------------------------------------------------------------


class _Flagged(StopRequest):
    """A stop request set by the parent process."""

    def __init__(self, flag: Any) -> None:
        self._flag = flag

    @property
    def signum(self) -> int | None:  # type: ignore[override]  # read from the parent, set by nobody
        return self._flag.value or None


_here: tuple[Runner, StopRequest] | None = None
_at_work = threading.Lock()


def _start(
    make: Callable[..., Runner], arguments: dict[str, Any], number: int, flag: Any, turn: Any
) -> None:
    global _here  # noqa: PLW0603 - one worker process has one runner
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent decides
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in a worker"
    threading.Thread(target=_follow, args=(parent, flag), daemon=True).start()
    with turn.get_lock():
        job, turn.value = turn.value, turn.value + 1
    _here = make(job, number, **arguments), _Flagged(flag)


def _follow(parent: Any, flag: Any) -> None:
    """If the parent is killed, stop as if it had asked to, so that a checkpoint is written."""
    parent.join()
    flag.value = flag.value or signal.SIGTERM
    with _at_work:
        os._exit(128 + signal.SIGTERM)  # no further cell can arrive


def _run_here(job: Job) -> Json:
    assert _here is not None, "the worker was started"
    with _at_work:
        return run_or_stop(job, *_here)
