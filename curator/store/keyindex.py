"""Map 64-bit keys of a maker's facts to file and row.

16 bytes per fact: in memory, or beyond `IN_MEMORY` facts in temporary files that are mapped, so
that the kernel's cache holds what fits (1.6 GB on disk for 100 million). Two different facts share
a key with probability about n^2 / 2^65 (3e-4 at 100 million), so a reader of a row must compare its
full key.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from curator.store import fsops
from curator.store.piles import Piles

Keys = np.ndarray[Any, np.dtype[np.uint64]]
Places = np.ndarray[Any, np.dtype[np.int64]]

CLAIMED = -1
"""File number of a key that is being made and is not in a file yet."""
NOWHERE = -1
"""Place of a key that is not in any file; every place in a file is 0 or more."""
IN_MEMORY = 4_000_000
"""Facts of a maker whose places are held in memory."""
_ROW_BITS = 32


def split_places(places: Places) -> tuple[Places, Places]:
    """Return (file number, row) of each place; the file number of NOWHERE is -1."""
    return places >> _ROW_BITS, places & ((1 << _ROW_BITS) - 1)


def hex64(column: pl.Series) -> Keys:
    """Return the first 64 bits of hex digests; 0 for "" and null."""
    head = column.str.slice(0, 16).str.to_integer(base=16, dtype=pl.UInt64, strict=False)
    return head.fill_null(0).to_numpy()


@dataclass(slots=True)
class KeyIndex:
    """A growing map from keys to places: a few sorted runs, merged as they grow."""

    _runs: list[tuple[Keys, Places]] = field(default_factory=list)
    _mapped: list[mmap.mmap] = field(default_factory=list)

    def add(self, keys: Keys, file_number: int) -> None:
        """Register `keys` as the rows of a file, in order; or as `CLAIMED`."""
        self.add_files([(keys, file_number)])

    def add_files(self, files: Iterable[tuple[Keys, int]], in_memory: int = IN_MEMORY) -> None:
        """Like `add`, for many files: sorted once instead of merged one by one.

        More than `in_memory` keys are sorted on disk, and stay there.
        """
        piles = Piles(num_columns=2, at_once=in_memory)
        for keys, number in files:
            if len(keys):
                piles.add(keys, (number << _ROW_BITS) + np.arange(len(keys)))
        if not piles.num_rows:
            return
        if piles.is_on_disk:
            self._runs.insert(0, self._on_disk(piles))
            return
        ((all_keys, places),) = piles
        run = _sorted(all_keys, places)
        while self._runs and len(self._runs[-1][0]) <= 2 * len(run[0]):
            older = self._runs.pop()
            run = _sorted(np.concatenate([older[0], run[0]]), np.concatenate([older[1], run[1]]))
        self._runs.append(run)

    def _on_disk(self, piles: Piles) -> tuple[Keys, Places]:
        """Write a sorted run to temporary files, and return them mapped."""
        with (
            fsops.temporary_errors(),
            fsops.temporary_file() as keys_file,
            fsops.temporary_file() as places_file,
        ):
            for keys, places in piles:
                for file, column in zip(
                    (keys_file, places_file), _sorted(keys, places), strict=True
                ):
                    file.write(column.tobytes())
            mapped = []
            for file in (keys_file, places_file):
                file.flush()
                found = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                found.madvise(mmap.MADV_RANDOM)  # neighbours of a key are not asked for
                mapped.append(found)
        self._mapped += mapped
        return np.frombuffer(mapped[0], np.uint64), np.frombuffer(mapped[1], np.int64)

    def _let_go(self) -> None:
        """Give pages of mapped runs back, so that they do not count as memory of this process."""
        for found in self._mapped:
            found.madvise(mmap.MADV_DONTNEED)  # the kernel keeps them in its cache

    def find(self, keys: Keys) -> tuple[Places, Places]:
        """Find all places of `keys`, without claims.

        Returns:
            Two arrays of equal length: position in `keys`, and place (see `split_places`). A key
            with several places occurs several times, an unknown one not at all.
        """
        asked = np.argsort(keys)  # sorted, so that the search reads memory in order
        ordered = keys[asked]
        positions, places = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for known, places_of in self._runs:
            position, wanted, at = asked, ordered, np.searchsorted(known, ordered)
            while at.size:  # one round per copy of a key
                here = known[np.minimum(at, len(known) - 1)] == wanted
                here &= at < len(known)
                position, wanted, at = position[here], wanted[here], at[here]
                positions.append(position)
                places.append(places_of[at])
                at = at + 1
        position, place = np.concatenate(positions), np.concatenate(places)
        self._let_go()
        in_file = place >= 0
        return position[in_file], place[in_file]

    def contains(self, keys: Keys) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return for each key whether it is known or claimed."""
        hit = np.zeros(len(keys), bool)
        for known, _ in self._runs:
            place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
            hit |= known[place] == keys
        self._let_go()
        return hit


def _sorted(keys: Keys, places: Places) -> tuple[Keys, Places]:
    """Sort by key; copies of a key stay in order of insertion."""
    order = np.argsort(keys)
    in_order = keys[order]
    if (in_order[1:] == in_order[:-1]).any():  # rare; a stable sort is five times slower
        order = np.argsort(keys, kind="stable")
    return in_order, places[order]
