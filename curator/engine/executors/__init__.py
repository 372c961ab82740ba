"""The executor protocol: how batches are distributed to workers."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

STOP_GRACE_SEC = 10.0
"""How long a stop waits for what is in flight; users are promised 15 s."""

MAX_RESTARTS_IN_A_ROW = 3
"""An engine that dies more often, without a result in between, ends the run."""

T = TypeVar("T")
R = TypeVar("R")

Worker: TypeAlias = Callable[[Sequence[T]], list[R]]
"""The function of a worker process: takes a batch, returns one result per item, in order.

If it has a method `prefetch(items)`, that is called before each batch with the batch after it, so
that reading and decoding overlap with the model."""


@dataclass(frozen=True, slots=True)
class Done(Generic[T, R]):
    """One item and its result."""

    item: T
    result: R


@dataclass(frozen=True, slots=True)
class Failed(Generic[T]):
    """One item that crashed (`crashed`) or stalled its worker, also when tried alone."""

    item: T
    crashed: bool
    in_probe: bool
    detail: str


class Executor(Protocol):
    """Runs workers over batches of items; each worker is built once, in its own process."""

    def run(
        self,
        build: Callable[[], Worker[T, R]],
        batches: Iterable[Sequence[T]],
        *,
        probe: Callable[[Any], object],
        stop: Callable[[], bool],
    ) -> Generator[list[Done[T, R] | Failed[T]]]:
        """Yield the outcomes of each batch as it finishes: exactly one per item.

        `probe` runs the steps before the model (decoding); it tells a bad item from a bad model.
        When `stop` returns true, no new batch is started.

        Raises:
            EngineError: the worker crashes or stalls on every item.
        """
        ...
