"""Chunks of rendering through the executor port, one worker a core.

A chunk is kept or made again as a whole; when a stop is asked for, those in flight are finished.
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
"""Numbers of the pictures to make in one go."""


@dataclass(frozen=True, slots=True)
class _Each(Generic[R]):
    """Work of an executor that does one chunk after the other."""

    make: Callable[[Chunk], R]

    def __call__(self, chunks: Sequence[Chunk]) -> list[R]:
        return [self.make(chunk) for chunk in chunks]


def chunks_of(count: int, size: int) -> list[Chunk]:
    """0 ... count - 1 in chunks of `size`, the last one perhaps smaller."""
    return [range(first, min(first + size, count)) for first in range(0, count, size)]


def make_chunks(
    make: Callable[[Chunk], R], chunks: Sequence[Chunk], *, stop: StopRequest
) -> Iterator[tuple[Chunk, R]]:
    """Yield chunks and what `make` gave for them as they are finished, in any order.

    `make` is pickled. Ends early when `stop` is set; the caller checks it.

    Raises:
        EngineError: a worker died or stalled on a chunk. Whatever `make` raises.
    """
    num_workers = min(os.cpu_count() or 1, len(chunks))
    executor = ProcessExecutor(num_workers) if num_workers > 1 else InlineExecutor()
    batches = ([chunk] for chunk in chunks)
    run = executor.run(partial(_Each, make), batches, probe=_nothing_to_probe, stop=stop)
    with closing(run) as finished:  # whatever happens at the caller's, the workers end with it
        for outcomes in finished:
            for outcome in outcomes:
                if isinstance(outcome, Failed):
                    raise EngineError(
                        f"rendering pictures {outcome.item.start} to {outcome.item.stop - 1}:"
                        f" {outcome.detail}",
                        did="finished images are kept",
                        hint="run the same command again to go on where it was",
                        reason="engine.crashed",
                    )
                yield outcome.item, outcome.result


def _nothing_to_probe(_chunk: Chunk) -> None:
    """A chunk is two numbers: whatever kills a worker is not in there."""
