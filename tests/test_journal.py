"""A journal keeps every acknowledged record and cuts what a crash tore."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.journal import Journal, replay

RECORDS = [{"n": 1, "text": "ein Hund"}, {"n": 2, "text": "猫"}, {"n": 3, "text": None}]


def _written(path: Path) -> bytes:
    journal = Journal(path)
    journal.append(RECORDS)
    journal.close()
    return path.read_bytes()


def test_records_come_back_and_appending_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "x.jnl"
    _written(path)
    journal = Journal(path)
    assert journal.records == RECORDS
    assert journal.torn_bytes == 0
    journal.append([{"n": 4}])
    journal.close()
    assert replay(path)[0] == [*RECORDS, {"n": 4}]


@pytest.mark.parametrize("cut", [1, 4, 9, 20])
def test_a_torn_tail_is_cut_and_only_the_last_record_is_lost(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "x.jnl"
    whole = _written(path)
    path.write_bytes(whole[:-cut])
    journal = Journal(path)
    assert journal.records == RECORDS[:2]
    # the last record has 8 + 19 bytes: {"n":3,"text":null}
    assert journal.torn_bytes == 27 - cut
    journal.append([{"n": 5}])
    journal.close()
    assert replay(path)[0] == [*RECORDS[:2], {"n": 5}]


@settings(max_examples=100, deadline=None)
@given(position=st.integers(0, 200), bit=st.integers(0, 7))
def test_a_flipped_bit_never_gives_a_wrong_record(
    tmp_path_factory: pytest.TempPathFactory, position: int, bit: int
) -> None:
    path = tmp_path_factory.mktemp("j") / "x.jnl"
    data = bytearray(_written(path))
    data[position % len(data)] ^= 1 << bit
    path.write_bytes(bytes(data))
    found, _ = replay(path)
    assert found == RECORDS[: len(found)]


def test_discard_removes_the_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "x.jnl")
    journal.append([{"n": 1}])
    journal.discard()
    assert not (tmp_path / "x.jnl").exists()
