"""Sorting keys in piles on disk: nothing is lost, and memory does not grow with the rows."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.core.errors import StorageError
from curator.store import fsops
from curator.store.piles import Piles

KEYS = st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=20), max_size=8)


@given(KEYS, st.sampled_from([0, 7, 1000]))
def test_piles_give_back_all_rows_in_order_of_piles(added: list[list[int]], at_once: int) -> None:
    piles = Piles(num_columns=2, at_once=at_once)
    rows = []
    for keys in added:
        places = np.arange(len(rows), len(rows) + len(keys))
        piles.add(np.array(keys, np.uint64), places)
        rows += zip(keys, places.tolist(), strict=True)
    assert piles.num_rows == len(rows)
    assert piles.is_on_disk or len(rows) <= at_once or not rows
    found = [list(zip(*(c.tolist() for c in pile), strict=True)) for pile in piles]
    assert sorted(row for pile in found for row in pile) == sorted(rows)
    if piles.is_on_disk:
        firsts = [{key >> 56 for key, _ in pile} for pile in found]
        assert all(len(of_pile) == 1 for of_pile in firsts)
        assert all(min(a) < min(b) for a, b in pairwise(firsts))
        for pile in found:
            assert [place for _, place in pile] == sorted(place for _, place in pile)


def test_a_full_disk_is_told_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def seek(self, *_where: int) -> int:
            return 0

        def write(self, _data: bytes) -> Iterator[None]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(fsops, "temporary_file", Full)
    monkeypatch.setenv("TMPDIR", "/tmp")
    with pytest.raises(StorageError, match="No space left") as caught:
        Piles(at_once=0).add(np.array([1], np.uint64))
    assert caught.value.code == 20
