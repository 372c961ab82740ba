"""Where the facts of a maker lie: 64-bit keys -> file and row, in memory.

16 bytes a fact (about 1.6 GB for 100 million). Two different facts share a key with a chance of
about n^2 / 2^65, 3e-4 at 100 million: whoever reads a row compares its whole key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

Keys = np.ndarray[Any, np.dtype[np.uint64]]
Places = np.ndarray[Any, np.dtype[np.int64]]

CLAIMED = -1
"""File number of a key that is being made, and lies in no file yet."""
_ROW_BITS = 32


def hex64(column: pl.Series) -> Keys:
    """The first 64 bits of hex digests; 0 for "" and null."""
    head = column.str.slice(0, 16).str.to_integer(base=16, dtype=pl.UInt64, strict=False)
    return head.fill_null(0).to_numpy()


@dataclass(slots=True)
class KeyIndex:
    """A growing map from keys to places: a few sorted runs, merged as they grow."""

    _runs: list[tuple[Keys, Places]] = field(default_factory=list)

    def add(self, keys: Keys, file_number: int) -> None:
        """Remember that `keys` are the rows of a file, in its order, or `CLAIMED`."""
        if not len(keys):
            return
        order = np.argsort(keys, kind="stable")
        run = (keys[order], (file_number << _ROW_BITS) + order)
        while self._runs and len(self._runs[-1][0]) <= 2 * len(run[0]):
            older = self._runs.pop()
            merged = np.concatenate([older[0], run[0]])
            order = np.argsort(merged, kind="stable")
            run = (merged[order], np.concatenate([older[1], run[1]])[order])
        self._runs.append(run)

    def find(self, keys: Keys) -> tuple[Places, Places, Places]:
        """Everything that is known of `keys`, but for what is only claimed.

        Returns:
            three arrays of one length: position in `keys`, file number, row in the file. A key
            that is known several times comes several times, an unknown one not at all.
        """
        asked = np.argsort(keys, kind="stable")  # in order: the search walks, it does not jump
        positions, places = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for known, places_of in self._runs:
            position, at = asked, np.searchsorted(known, keys[asked])
            while at.size:  # one round a copy of a key
                here = known[np.minimum(at, len(known) - 1)] == keys[position]
                here &= at < len(known)
                position, at = position[here], at[here]
                positions.append(position)
                places.append(places_of[at])
                at = at + 1
        position, place = np.concatenate(positions), np.concatenate(places)
        position, place = position[place >= 0], place[place >= 0]
        return position, place >> _ROW_BITS, place & ((1 << _ROW_BITS) - 1)

    def contains(self, keys: Keys) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """For each key, whether it is known or claimed."""
        hit = np.zeros(len(keys), bool)
        for known, _ in self._runs:
            place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
            hit |= known[place] == keys
        return hit
