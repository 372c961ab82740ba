"""A journal keeps what was acknowledged, cuts what a crash tore, and refuses what was damaged."""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from curator.core.errors import DamageError
from curator.store import batchlog
from curator.store.journal import Journal, intact, replay

BATCHES = [
    [{"n": 1, "text": "ein Hund am Meer"}, {"n": 2, "text": "猫"}],
    [{"n": 3, "text": "a man in a red hat"}],
    [{"n": 4, "text": None}, {"n": 5, "text": "two dogs on a beach"}],
]
RECORDS = [record for batch in BATCHES for record in batch]


def _written(path: Path, batches: Sequence[Sequence[dict[str, Any]]] = BATCHES) -> bytes:
    journal = Journal(path)
    for batch in batches:
        journal.append(batch)
    journal.close()
    return path.read_bytes()


def _old(records: Sequence[dict[str, Any]]) -> bytes:
    """Records as they were written before there were batches."""
    bodies = [
        json.dumps(one, ensure_ascii=False, separators=(",", ":")).encode() for one in records
    ]
    return b"".join(struct.pack("<II", len(body), zlib.crc32(body)) + body for body in bodies)


def _sizes(path: Path) -> list[int]:
    """The size of the file after each batch."""
    sizes = []
    for count in range(len(BATCHES) + 1):
        path.unlink(missing_ok=True)
        sizes.append(len(_written(path, BATCHES[:count])))
    return sizes


def _refused(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    for read in (replay, Journal):
        with pytest.raises(DamageError) as refused:
            read(path)
        assert refused.value.reason == "journal.damaged"
        assert refused.value.hint is not None
        assert "fsck DATASET --repair" in refused.value.hint
    assert path.read_bytes() == data, "nothing was touched"


def test_records_come_back_and_appending_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "x.jnl"
    _written(path)
    journal = Journal(path)
    assert journal.records == RECORDS
    assert journal.torn_bytes == 0
    journal.append([{"n": 6}])
    journal.close()
    assert replay(path).records == [*RECORDS, {"n": 6}]


def test_a_batch_is_a_line_that_says_what_follows(tmp_path: Path) -> None:
    _written(tmp_path / "x.jnl", [[{"n": 1}]])
    # zlib.crc32(b'[{"n":1}]') and zlib.crc32(b"00000000 00000009 83f5a8c7"), worked out apart
    head, body = (tmp_path / "x.jnl").read_bytes().split(b"\n")
    assert body == b'[{"n":1}]'
    first, second, third, fourth = head.split(b" ")
    assert (first, second) == (b"#00000000", b"00000009")
    assert int(third, 16) == zlib.crc32(body)
    assert int(fourth, 16) == zlib.crc32(head[1:27])


def test_cut_anywhere_a_journal_keeps_the_batches_that_were_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.jnl"
    sizes = _sizes(path)
    data = path.read_bytes()
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        whole = sum(end <= size for end in sizes) - 1
        journal = Journal(path)
        assert journal.records == [one for batch in BATCHES[:whole] for one in batch]
        assert journal.torn_bytes == size - sizes[whole]
        journal.append([{"n": 9}])
        journal.close()
        assert replay(path).records == [*journal.records, {"n": 9}]


@pytest.mark.long
def test_every_flipped_bit_is_damage_also_in_the_last_batch(tmp_path: Path) -> None:
    path = tmp_path / "x.jnl"
    data = _written(path)
    for place in range(len(data)):
        for bit in range(8):
            _refused(path, data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])


@pytest.mark.parametrize("first", [0, 3])
def test_a_batch_that_is_gone_or_twice_there_is_damage(tmp_path: Path, first: int) -> None:
    path = tmp_path / "x.jnl"
    sizes = _sizes(path)
    old, data = _old(RECORDS[:first]), path.read_bytes()
    parts = [data[start:end] for start, end in pairwise(sizes)]
    _refused(path, old + parts[0] + parts[2])
    _refused(path, old + parts[1] + parts[2])
    _refused(path, old + parts[0] + parts[0] + parts[1])


@pytest.mark.long
def test_sectors_that_never_came_to_the_disk_are_a_torn_tail(tmp_path: Path) -> None:
    """Of the last write any sectors may be missing, and the file may have grown or not."""
    path = tmp_path / "x.jnl"
    generator = random.Random(0)
    for _ in range(300):
        first = [{"text": "a" * generator.randrange(900)}]
        last = [{"text": "b c" * generator.randrange(700)}, {"n": 1}]
        path.unlink(missing_ok=True)
        before = _written(path, [first])
        path.unlink()
        whole = _written(path, [first, last])
        after = bytearray(whole)
        sectors = range(len(before) // 512, len(after) // 512 + 1)
        lost = [sector for sector in sectors if generator.random() < 0.4]
        for sector in lost:
            start = max(len(before), sector * 512)
            end = min(len(after), sector * 512 + 512)
            after[start:end] = bytes(max(0, end - start))
        size = generator.choice([len(after), generator.randrange(len(before), len(after) + 1)])
        path.write_bytes(after[:size])
        found = replay(path)
        assert found.records == (first + last if after[:size] == whole else first)
        assert found.valid + found.torn == size


def test_zeros_in_what_a_later_batch_acknowledged_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "x.jnl"
    texts = [[{"text": "b" * 1500}], [{"n": 1}]]
    data = _written(path, texts)
    _refused(path, data[:512] + bytes(512) + data[1024:])


def test_old_journals_are_read_and_go_on(tmp_path: Path) -> None:
    path = tmp_path / "x.jnl"
    path.write_bytes(_old(RECORDS[:3]))
    journal = Journal(path)
    assert journal.records == RECORDS[:3]
    journal.append(RECORDS[3:])
    journal.close()
    assert replay(path).records == RECORDS
    assert path.read_bytes().startswith(_old(RECORDS[:3])), "they stay as they were written"


def test_an_old_journal_cut_anywhere_keeps_what_was_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.jnl"
    data = _old(RECORDS)
    ends = [len(_old(RECORDS[:count])) for count in range(len(RECORDS) + 1)]
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        whole = sum(end <= size for end in ends) - 1
        assert replay(path) == (RECORDS[:whole], ends[whole], size - ends[whole], 0)
    for tail in (bytes(40), bytes(1), _old(RECORDS[:1])[:-5] + bytes(5)):
        path.write_bytes(data + tail)
        assert replay(path).torn == len(tail)


@pytest.mark.long
def test_every_flipped_bit_of_an_old_journal_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "x.jnl"
    for data in (_old(RECORDS), _old(RECORDS) + batchlog.batch(0, b'[{"n":7}]')):
        for place in range(len(data)):
            for bit in range(8):
                _refused(path, data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])


@pytest.mark.parametrize("old", [0, 2])
def test_what_is_intact_of_a_damaged_journal(tmp_path: Path, old: int) -> None:
    path = tmp_path / "x.jnl"
    whole = _old(RECORDS[:old]) + _written(path)
    sizes = _sizes(path)
    place = len(_old(RECORDS[:old])) + sizes[1] + 50  # in the second batch
    path.write_bytes(whole[:place] + b"?" + whole[place + 1 :])
    assert intact(path) == RECORDS[:old] + BATCHES[0] + BATCHES[2]


def test_discard_removes_the_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "x.jnl")
    journal.append([{"n": 1}])
    journal.discard()
    assert not (tmp_path / "x.jnl").exists()
