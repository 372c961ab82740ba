"""The executor port: how work reaches workers, whatever the machine."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

T = TypeVar("T")
R = TypeVar("R")

Worker: TypeAlias = Callable[[Sequence[T]], list[R]]
"""What a worker process does with a batch: one result for each item, in order.

If it has a method `prefetch(items)`, that is called with
the batch that the same worker gets after the current one, before the current one, so that reading
and decoding overlap with the model."""


@dataclass(frozen=True, slots=True)
class Done(Generic[T, R]):
    """One item and its result."""

    item: T
    result: R


@dataclass(frozen=True, slots=True)
class Failed(Generic[T]):
    """One item that took its worker down or stalled it, alone; `crashed` says which."""

    item: T
    crashed: bool
    in_probe: bool
    detail: str


class Executor(Protocol):
    """Runs workers over batches of items; each is built once, where it runs."""

    def run(
        self,
        build: Callable[[], Worker[T, R]],
        batches: Iterable[Sequence[T]],
        *,
        probe: Callable[[Any], object],
        stop: Callable[[], bool],
    ) -> Generator[list[Done[T, R] | Failed[T]]]:
        """Yield the outcomes of each batch as it finishes: exactly one for every item.

        `probe` is what can go wrong with an item before the model sees it (decoding); it tells
        a bad item from a bad model. When `stop` turns true nothing new is started.

        Raises:
            EngineError: the worker dies or stalls whatever it is given.
        """
        ...
