"""The executor port: how work reaches workers, whatever the machine."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from curator.core.registry import Registry

T = TypeVar("T")
R = TypeVar("R")

Work: TypeAlias = Callable[[Sequence[T]], list[R]]
"""One result for each item, in order. If it has a method `prefetch(items)`, that is called with
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
    """Runs work over batches of items in workers that each build it once."""

    def run(
        self,
        build: Callable[[], Work[T, R]],
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


EXECUTORS = Registry(
    "executor",
    {
        "inline": "curator.engine.executors.local:InlineExecutor",
        "processes": "curator.engine.executors.local:ProcessExecutor",
    },
)
