"""Sort more 64-bit keys than memory should hold: in piles by their first byte, on disk.

Keys are the beginnings of digests, so the piles are about equally large. A temporary file takes
them as they come; each pile is then read back by itself. It has no name, so nothing is left of it
when the process ends, however that happens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from curator.store import fsops

AT_ONCE = 1_000_000
"""Rows that wait in memory before they are put onto the piles."""
_NUM_PILES = 256
_PILE_SHIFT = np.uint64(56)

Columns = tuple[np.ndarray[Any, Any], ...]


class Piles:
    """Rows of 64-bit columns, given back in piles of rising keys; the first column is the key.

    `at_once` rows stay in memory, with those of one pile. As long as there are fewer, they are one
    pile and no file is made.
    """

    def __init__(self, num_columns: int = 1, at_once: int = AT_ONCE) -> None:
        self._num_columns = num_columns
        self._at_once = at_once
        self._waiting: list[Columns] = []
        self._num_waiting = 0
        self._file: IO[bytes] | None = None
        self._chunks: list[list[tuple[int, int]]] = [[] for _ in range(_NUM_PILES)]
        self.num_rows = 0

    @property
    def is_on_disk(self) -> bool:
        """Whether there were too many rows for memory."""
        return self._file is not None

    def add(self, *columns: np.ndarray[Any, Any]) -> None:
        """Add rows; all columns have 64 bits and the same length."""
        self._waiting.append(columns)
        self._num_waiting += len(columns[0])
        self.num_rows += len(columns[0])
        if self._num_waiting > self._at_once:
            self._put()

    def _put(self) -> None:
        """Put the rows that wait onto their piles."""
        rows = self._taken()
        pile = (rows[0] >> _PILE_SHIFT).astype(np.uint8)
        order = np.argsort(pile, kind="stable")
        starts = np.searchsorted(pile[order], np.arange(_NUM_PILES + 1))
        rows = tuple(column[order] for column in rows)
        with fsops.temporary_errors():
            if self._file is None:
                self._file = fsops.temporary_file()
            offset = self._file.seek(0, 2)
            for number in np.flatnonzero(np.diff(starts)).tolist():
                part = slice(starts[number], starts[number + 1])
                for column in rows:
                    self._file.write(column[part].tobytes())
                size = int(starts[number + 1] - starts[number])
                self._chunks[number].append((offset, size))
                offset += size * 8 * self._num_columns
            self._file.flush()

    def _taken(self) -> Columns:
        """Return the rows that wait, as one."""
        waiting, self._waiting, self._num_waiting = self._waiting, [], 0
        return tuple(np.concatenate(column) for column in zip(*waiting, strict=True))

    def __iter__(self) -> Iterator[Columns]:
        """Give the piles, each in the order in which its rows came; can be done once."""
        if self._file is None:
            if self._waiting:
                yield self._taken()
            return
        if self._waiting:
            self._put()
        with self._file:
            for chunks in self._chunks:
                if chunks:
                    parts = [self._read(self._file, *chunk) for chunk in chunks]
                    yield tuple(np.concatenate(column) for column in zip(*parts, strict=True))

    def _read(self, file: IO[bytes], offset: int, size: int) -> Columns:
        file.seek(offset)
        data = file.read(size * 8 * self._num_columns)
        dtypes = (np.uint64, *[np.int64] * (self._num_columns - 1))
        return tuple(
            np.frombuffer(data, dtype, size, number * size * 8)
            for number, dtype in enumerate(dtypes)
        )
