"""Journal: a file of finished work that is acknowledged and survives a crash.

It holds batches (`curator.store.batchlog`) of JSON records. Journals of older versions begin with
records in an older form: length (4 bytes) + CRC-32 (4 bytes) + JSON, little-endian. The same rule
applies to them: a complete but wrong record, or an incomplete one before a complete one, is
damage.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from curator.store import batchlog, fsops

_DAMAGED = "journal.damaged"
_OLD_HEAD = struct.Struct("<II")

Record = dict[str, Any]


class Replayed(NamedTuple):
    """Acknowledged records, the number of bytes that hold them, and the torn bytes after them."""

    records: list[Record]
    valid: int
    torn: int
    num_batches: int


def replay(path: Path) -> Replayed:
    """Read all acknowledged records.

    Returns None if there is no file: its process may just have turned it into a fact file.

    Raises:
        DamageError: a record is damaged.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        data = b""
    records, start = _old_records(data)
    if _is_old(data, start):
        if _is_damaged(data, start):
            what = f"the record at byte {start:,} is damaged"
            raise batchlog.damage(what, path, reason=_DAMAGED)
        return Replayed(records, start, len(data) - start, 0)
    found = batchlog.read(data, start, path, reason=_DAMAGED)
    for body in found.bodies:
        records += json.loads(body)
    return Replayed(records, found.valid, found.torn, len(found.bodies))


def intact(path: Path) -> list[Record]:
    """Return the intact records of a damaged journal."""
    data = path.read_bytes()
    records: list[Record] = []
    place = 0
    while place < len(data):
        old = _old_record(data, place)
        if old is not None:
            records.append(json.loads(old))
        place += 1 if old is None else _OLD_HEAD.size + len(old)
    for body in batchlog.salvage(data, 0):
        records += json.loads(body)
    return records


class Journal:
    """A journal open for appending. `records` holds what an earlier run left behind.

    Raises:
        ConflictError: another process has it open. DamageError: it is damaged; it is left
            unchanged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = fsops.Appender(path)
        try:
            found = replay(path)
            self.records, self.torn_bytes = found.records, found.torn
            self._num_batches = found.num_batches
            if found.torn:
                fsops.truncate(path, found.valid)
        except BaseException:
            self._file.close()  # else the lock would outlive this object
            raise

    def append(self, records: Iterable[Record]) -> None:
        """Append records; they are acknowledged (on disk) when this returns."""
        text = json.dumps(list(records), ensure_ascii=False, separators=(",", ":"))
        self._file.append(batchlog.batch(self._num_batches, text.encode()))
        self._num_batches += 1  # before the sync: after a failed sync the journal is read again
        self._file.sync()

    def close(self) -> None:
        """Close the file and release its lock; the records stay."""
        self._file.close()

    def discard(self) -> None:
        """Close and delete the journal: its records are now a fact file."""
        fsops.remove(self.path)  # before releasing the lock: nobody may append to a deleted file
        self.close()


def _is_old(data: bytes, place: int) -> bool:
    """Whether a record in the old form begins here: its length, in 4 bytes, is below 16 MiB."""
    is_cut = place < len(data) < place + 4 and data[place + 1 : place + 2] < b" "
    return is_cut or data[place + 3 : place + 4] == b"\0"


def _old_records(data: bytes) -> tuple[list[Record], int]:
    """Return the records in the old form, and the offset where they end."""
    records: list[Record] = []
    place = 0
    while _is_old(data, place) and (body := _old_record(data, place)) is not None:
        records.append(json.loads(body))
        place += _OLD_HEAD.size + len(body)
    return records, place


def _old_record(data: bytes, place: int) -> bytes | None:
    if place + _OLD_HEAD.size > len(data):
        return None
    length, crc = _OLD_HEAD.unpack_from(data, place)
    # A file system may leave zeros in place of data: length 0 with a valid checksum.
    start, end = place + _OLD_HEAD.size, place + _OLD_HEAD.size + length
    if not length or end > len(data) or data[start] != ord("{") or data[end - 1] != ord("}"):
        return None
    return data[start:end] if zlib.crc32(data[start:end]) == crc else None


def _is_damaged(data: bytes, place: int) -> bool:
    """Whether the incomplete record that begins here is more than a torn last one."""
    body = data[place + _OLD_HEAD.size :]
    if len(data) - place < _OLD_HEAD.size:
        return False
    length, crc = _OLD_HEAD.unpack_from(data, place)
    if 0 < length <= len(body) and not batchlog.has_hole(data, place + _OLD_HEAD.size):
        return True  # it is complete
    if body and zlib.crc32(body) == crc:
        return True  # complete except for its length
    behind = range(place + 1, len(data))
    return any(_old_record(data, later) for later in behind) or bool(batchlog.salvage(data, place))
