"""Render chunks of images through the executor port, with one worker per core.

A chunk is kept or made again as a whole; when a stop is requested, chunks in flight are finished.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from curator.core.errors import EngineError
from curator.core.stopping import StopRequest
from curator.engine.executors import Failed
from curator.engine.executors.local import InlineExecutor, ProcessExecutor

R = TypeVar("R")
Chunk = range
"""Numbers of the images that a worker makes as one unit."""


@dataclass(frozen=True, slots=True)
class _Each(Generic[R]):
    """The work of an executor: makes one chunk after another."""

    make: Callable[[Chunk], R]

    def __call__(self, chunks: Sequence[Chunk]) -> list[R]:
        return [self.make(chunk) for chunk in chunks]


def chunks_of(count: int, size: int) -> list[Chunk]:
    """Split 0 ... count - 1 into chunks of `size`; the last one may be smaller."""
    return [range(first, min(first + size, count)) for first in range(0, count, size)]


def make_chunks(
    make: Callable[[Chunk], R], chunks: Sequence[Chunk], *, stop: StopRequest
) -> Iterator[tuple[Chunk, R]]:
    """Yield chunks with the results of `make` as they finish, in any order.

    `make` is pickled. Ends early if `stop` is set, which the caller must check.

    Raises:
        EngineError: a worker died or stalled on a chunk. Also anything that `make` raises.
    """
    num_workers = min(os.cpu_count() or 1, len(chunks))
    executor = ProcessExecutor(num_workers) if num_workers > 1 else InlineExecutor()
    batches = ([chunk] for chunk in chunks)
    run = executor.run(partial(_Each, make), batches, probe=_nothing_to_probe, stop=stop)
    with closing(run) as finished:  # the workers end even if the caller stops iterating
        for outcomes in finished:
            for outcome in outcomes:
                if isinstance(outcome, Failed):
                    raise EngineError(
                        f"rendering images {outcome.item.start} to {outcome.item.stop - 1}:"
                        f" {outcome.detail}",
                        did="finished images are kept",
                        hint="run the same command again to go on where it was",
                        reason="engine.crashed",
                    )
                yield outcome.item, outcome.result


def _nothing_to_probe(_chunk: Chunk) -> None:
    """Do nothing as a probe: a chunk is only two numbers and cannot be what kills a worker."""
