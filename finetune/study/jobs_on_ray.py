"""Run the cells of a study on a Ray cluster: each is a task with a GPU, if the cluster has any.

The study's folder, the shards and the labels must be reachable from every node under the same name.
A task whose node dies is run again elsewhere and continues from its last checkpoint in the folder.
Torch-free.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayTaskError, WorkerCrashedError

from curator.core.errors import CuratorError
from curator.core.stopping import StopRequest
from curator.engine.executors.on_ray import connected
from finetune.study.cells import Json, Runner
from finetune.study.jobs import died, run_or_stop
from finetune.study.one_cell import Job

_RETRIES = 3
_ASK_EVERY_SEC = 2.0


class OnRay:
    """Jobs as Ray tasks. See `finetune.study.jobs.Jobs`."""

    def __init__(self, number: int, make: Callable[..., Runner], arguments: dict[str, Any]) -> None:
        self.number = number
        there = ray.cluster_resources()
        cores = max(1, int(there.get("CPU", 1)) // number)
        gpus = 1 if there.get("GPU") else 0
        self._flag: Any = ray.remote(num_cpus=0)(_Flag).remote()
        self._run = ray.remote(num_cpus=cores, num_gpus=gpus, max_retries=_RETRIES)(_run_there)
        self._make, self._arguments = make, {**arguments, "threads": cores}

    def submit(self, job: Job) -> Future[Json]:
        """See `Jobs`; the task has the cell's name on Ray's dashboard."""
        named = self._run.options(name=job.cell.label)
        ref: Any = named.remote(job, self._make, self._arguments, self._flag)
        told: Future[Json] = Future()
        ref.future().add_done_callback(lambda found: _tell(found, told))
        return told

    def stop(self, signum: int) -> None:
        """See `Jobs`."""
        ray.get(self._flag.set.remote(signum))


@contextmanager
def on_ray(
    make: Callable[..., Runner], arguments: dict[str, Any], number: int, address: str | None
) -> Iterator[OnRay]:
    """Connect to a cluster for the block. `make(threads=..., **arguments)` makes the runner there.

    Raises:
        EngineError: no cluster answers at `address`.
    """
    with connected(address):
        yield OnRay(number, make, arguments)


def _tell(found: Future[Any], told: Future[Json]) -> None:
    """Hand a result on, and errors as the cell raised them: Ray wraps them in its own."""
    error = found.exception()
    if isinstance(error, RayTaskError) and isinstance(error.cause, CuratorError):
        error = error.cause
    elif isinstance(error, WorkerCrashedError):
        error = died()
    if error is not None:
        told.set_exception(error)
    else:
        told.set_result(found.result())


# -- on the node ----------------------------------------------------------------------------------


class _Flag:
    """The signal that asked the study to stop, for all tasks."""

    def __init__(self) -> None:
        self._signum: int | None = None

    def set(self, signum: int) -> None:
        self._signum = signum

    def get(self) -> int | None:
        return self._signum


class _Flagged(StopRequest):
    """A stop request that asks the flag, but not at every step of a training."""

    def __init__(self, flag: Any) -> None:
        self._flag = flag
        self._found: int | None = None
        self._asked = time.monotonic()

    @property
    def signum(self) -> int | None:  # type: ignore[override]  # read from the flag, set by nobody
        if self._found is None and time.monotonic() - self._asked > _ASK_EVERY_SEC:
            self._asked = time.monotonic()
            self._found = ray.get(self._flag.get.remote())
        return self._found


_runners: dict[str, Runner] = {}
"""The runner of this process, which runs several tasks; a runner keeps what it has read."""


def _run_there(job: Job, make: Callable[..., Runner], arguments: dict[str, Any], flag: Any) -> Json:
    key = repr((make, arguments))
    if key not in _runners:
        _runners[key] = make(**arguments)
    return run_or_stop(job, _runners[key], _Flagged(flag))
