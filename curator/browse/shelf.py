"""The facts of all makers of a store, opened once and shared by whoever reads.

An opened maker knows where each of its facts lies: 16 bytes a fact, 0.3 s a million to learn.
"""

from __future__ import annotations

from threading import Lock

from curator.store.facts import Facts
from curator.store.store import Store


class FactShelf:
    """Hands out `Facts` that are ready to be read by several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = Lock()
        self._opened: dict[tuple[str, str], Facts] = {}

    def get(self, kind: str, maker: str) -> Facts:
        """The facts of one maker that were there when it was first asked for."""
        with self._lock:
            if (kind, maker) not in self._opened:
                facts = Facts(self._store, kind, maker)
                facts.files()
                self._opened[kind, maker] = facts
            return self._opened[kind, maker]
