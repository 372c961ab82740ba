"""Several processes on one store, also on several machines: each takes shards that nobody works on.

    claims/<kind>/<maker>/<shard><stage>.lock     held while a process makes facts of the shard
    claims/index/<shard>.lock                     held while a process indexes it

A claim is a lock on a file. The kernel frees it when its process ends, however that ends; on a
network file system the server does, when it has not heard from the machine for the time of its
lease. So no clocks are compared, and no claim is left behind. A shard that another process works on
is left for later: when the others are done it is looked at again, and what is missing then is made.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from curator.core import progress
from curator.core.errors import ConflictError
from curator.core.stopping import StopRequest
from curator.shards.dataset import ShardRef
from curator.store import fsops
from curator.store.facts import Facts
from curator.store.store import Store

POLL_SEC = 1.0


class Claims:
    """The shards that this process works on; a context manager, which frees them at its end.

    With `facts`, what other processes made of a shard is seen once it is taken.
    """

    def __init__(
        self, store: Store, kind: str = "index", *, facts: Facts | None = None, stage: str = ""
    ) -> None:
        self._folder = store.root / "claims" / kind / (facts.maker if facts else "")
        self._facts = facts
        self._stage = stage
        self._held: dict[str, contextlib.ExitStack] = {}
        self._left: list[ShardRef] = []

    def rounds(self, shards: Sequence[ShardRef], *, stop: StopRequest) -> Iterator[list[ShardRef]]:
        """Yield the shards to take, then those that others had, until none is left.

        Raises:
            StoppedError: a signal arrived while it waits.
        """
        todo = list(shards)
        while todo:
            self._left = []
            yield todo
            todo = self._left
            if todo:
                progress.say(
                    f"waiting for {len(todo):,} shards that other processes work on, first "
                    f"{todo[0].name!r}"
                )
            while todo and not any(map(self._is_free, todo)):
                stop.check("finished shards are kept")
                time.sleep(POLL_SEC)

    def take(
        self, shards: Sequence[ShardRef], *, needed: Callable[[ShardRef], bool] | None = None
    ) -> Iterator[ShardRef]:
        """Take one shard after the other and yield it; one that another process has is left.

        A shard that is not `needed` any more once it is taken is freed again.
        """
        for ref in shards:
            stack = contextlib.ExitStack()
            try:
                stack.enter_context(fsops.locked(self._path(ref)))
            except ConflictError:
                self._left.append(ref)
                continue
            self._held[ref.name] = stack
            if self._facts is not None:
                self._facts.refresh(ref.name)
            if needed is None or needed(ref):
                yield ref
            else:
                self.free(ref.name)

    def free(self, shard: str) -> None:
        """Free a shard: its facts are stored."""
        if (stack := self._held.pop(shard, None)) is not None:
            stack.close()

    def _path(self, ref: ShardRef) -> Path:
        return self._folder / f"{ref.name}{self._stage}.lock"

    def _is_free(self, ref: ShardRef) -> bool:
        if not self._path(ref).exists():  # nothing is created only to look
            return True
        with contextlib.suppress(ConflictError), fsops.locked(self._path(ref)):
            return True
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for shard in list(self._held):
            self.free(shard)
