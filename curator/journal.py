"""An append-only file of finished work: what is in it after a crash was acknowledged.

One record is length (4 bytes) + CRC-32 (4 bytes) + JSON, little-endian. A tail that was torn by a
crash fails its length or checksum and is cut on the next open; everything before it counts.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from curator import fsops

_HEAD = struct.Struct("<II")


def replay(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Read all whole records; return them and the number of valid bytes.

    Nothing where there is no file: its process may just have turned it into a fact file.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        data = b""
    records: list[dict[str, Any]] = []
    position = 0
    while position + _HEAD.size <= len(data):
        length, crc = _HEAD.unpack_from(data, position)
        body = data[position + _HEAD.size : position + _HEAD.size + length]
        # A file system may leave zeros where data should be: length 0 with the right checksum.
        if not length or len(body) < length or zlib.crc32(body) != crc:
            break
        records.append(json.loads(body))
        position += _HEAD.size + length
    return records, position


class Journal:
    """Open for appending. Use `records` for what an earlier run left behind.

    Raises:
        ConflictError: another process has it open.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = fsops.Appender(path)
        self.records, valid = replay(path)
        self.torn_bytes = path.stat().st_size - valid
        if self.torn_bytes:
            fsops.truncate(path, valid)

    def append(self, records: Iterable[dict[str, Any]]) -> None:
        """Add records; they are acknowledged (on disk) when this returns."""
        parts = []
        for record in records:
            body = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
            parts.append(_HEAD.pack(len(body), zlib.crc32(body)) + body)
        self._file.append(b"".join(parts))
        self._file.sync()

    def close(self) -> None:
        """Let go of the file and its lock; the records stay."""
        self._file.close()

    def discard(self) -> None:
        """Close and delete: its records have become a fact file."""
        fsops.remove(self.path)  # before the lock goes: nobody may append to a deleted file
        self.close()
