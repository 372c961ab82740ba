"""Where the cells of a study run: in this process, or in several side by side. Torch-free.

Cells are small next to what a machine has: a net that a CPU trains in minutes cannot fill two
cores, and a box with eight GPUs has seven to spare. `workers` starts a process a job; each loads
the models' world once, and that says which GPU, or how many threads, are its own. Ctrl-C reaches
all of them through one flag, since each has to finish its step and keep its checkpoint.
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
"""In place of a record: the cell was stopped and wrote no file."""


class Jobs(Protocol):
    """Runs cells, `number` at a time."""

    number: int

    def submit(self, job: Job) -> Future[Json]:
        """The record of a cell, or STOPPED. Other errors are those of `run_cell`."""
        ...

    def stop(self, signum: int) -> None:
        """Ask what is running to stop."""
        ...


class Inline:
    """One cell after the other, in this process."""

    number = 1

    def __init__(self, runner: Runner, stop: StopRequest) -> None:
        self._runner, self._stop = runner, stop

    def submit(self, job: Job) -> Future[Json]:
        """See `Jobs`; returns when the cell has ended."""
        future: Future[Json] = Future()
        future.set_result(_run(job, self._runner, self._stop))
        return future

    def stop(self, signum: int) -> None:
        """See `Jobs`: it shares the request."""


class Workers:
    """Cells in `number` processes. See `workers`."""

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
    """`number` processes for the block.

    `make` is a function of a module, called in each as `make(job, number, **arguments)` with `job`
    from 0 on.
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
    """What to say when a process is gone without a word."""
    return EngineError(
        "a process that ran a cell died",
        did="finished runs are kept",
        hint="often memory: try fewer --jobs; the same command goes on",
        reason="study.worker_died",
    )


def _run(job: Job, runner: Runner, stop: StopRequest) -> Json:
    try:
        return run_cell(job, runner, stop)
    except StoppedError:
        return STOPPED


# -- inside a worker process ----------------------------------------------------------------------


class _Flagged(StopRequest):
    """A stop that the parent asks for."""

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
    """When the parent was killed, stop as if it had asked to: a checkpoint is kept."""
    parent.join()
    flag.value = flag.value or signal.SIGTERM
    with _at_work:
        os._exit(128 + signal.SIGTERM)  # nobody will ever send another cell


def _run_here(job: Job) -> Json:
    assert _here is not None, "the worker was started"
    with _at_work:
        return _run(job, *_here)
