"""An append-only file of batches that separates acknowledged data from a write torn by a crash.

    #00000007 0000012c 1c291ca3 5a8f0e11      number, bytes of the body, CRC-32 of the body, and
    (the body)                                CRC-32 of these three

A batch is one write and one fsync, and is written only after the previous one is on disk. So for an
incomplete batch with no complete one after it, one of two things is true:

* a crash tore it: it is shorter than its head says, or has zeros up to the end of a sector that
  never reached the disk. It was never acknowledged, and the next writer cuts it off;
* it is complete, without such zeros (a body has none), and differs from what was written: damage.

An incomplete batch with a complete one after it is damage too. Nothing is appended to a damaged
file; `salvage` returns its intact batches.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from curator.core.errors import DamageError

_MARK = b"#"
_HEAD = re.compile(rb"#([0-9a-f]{8}) ([0-9a-f]{8}) ([0-9a-f]{8}) ([0-9a-f]{8})\n")
_HEAD_START = re.compile(rb"#[0-9a-f ]*\n?")
_HEAD_BYTES = 37
_ZEROS = re.compile(rb"\0+")
_SECTOR_BYTES = 512


class Found(NamedTuple):
    """Bodies of the complete batches, the offset where they end, and the torn bytes after it."""

    bodies: list[bytes]
    valid: int
    torn: int


def batch(number: int, body: bytes) -> bytes:
    """Return one batch as bytes; `number` counts from 0."""
    assert b"\0" not in body, "zeros mark a sector that never reached the disk"
    head = b"%08x %08x %08x" % (number, len(body), zlib.crc32(body))
    return b"#%s %08x\n%s" % (head, zlib.crc32(head), body)


def read(data: bytes, start: int, where: object, *, reason: str, number: int = 0) -> Found:
    """Read all batches of a file from byte `start` on, where batch `number` begins.

    `reason` is the reason code of the error.

    Raises:
        DamageError: a batch is altered or missing; says how many are intact.
    """
    bodies: list[bytes] = []
    place = start
    while place < len(data):
        found = _whole(data, place)
        if found is None or found[0] != number + len(bodies):
            if found is not None or any(_batches(data, place + 1)) or not _is_torn(data, place):
                what = f"the batch at byte {place:,} is damaged, or one is missing"
                raise damage(what, where, reason=reason)
            return Found(bodies, place, len(data) - place)
        bodies.append(found[1])
        place += _HEAD_BYTES + len(found[1])
    return Found(bodies, place, 0)


def damage(what: str, where: object, *, reason: str) -> DamageError:
    """Return the error for a damaged log."""
    return DamageError(
        what,
        where=where,
        did="the file is unchanged",
        hint="restore it from a backup; or `curator fsck DATASET --repair` sets it aside, "
        "keeps its intact part, and lists what is lost",
        reason=reason,
    )


def salvage(data: bytes, start: int) -> list[bytes]:
    """Return the bodies of all intact batches, whatever is between them."""
    return list(_batches(data, start))


def _batches(data: bytes, start: int) -> Iterator[bytes]:
    place = start
    while (place := data.find(_MARK, place)) >= 0:
        found = _whole(data, place)
        if found is None:
            place += 1
        else:
            yield found[1]
            place += _HEAD_BYTES + len(found[1])


def _whole(data: bytes, place: int) -> tuple[int, bytes] | None:
    """Return (number, body) of the batch at `place`, or None if it is incomplete."""
    head = _head(data, place)
    if head is None:
        return None
    number, length, crc = head
    body = data[place + _HEAD_BYTES : place + _HEAD_BYTES + length]
    return (number, body) if len(body) == length and zlib.crc32(body) == crc else None


def _head(data: bytes, place: int) -> tuple[int, int, int] | None:
    match = _HEAD.fullmatch(data, place, min(len(data), place + _HEAD_BYTES))
    if match is None or zlib.crc32(data[place + 1 : place + _HEAD_BYTES - 10]) != int(match[4], 16):
        return None
    return int(match[1], 16), int(match[2], 16), int(match[3], 16)


def _is_torn(data: bytes, place: int) -> bool:
    """Whether the incomplete last batch may be the remains of a write cut by a crash."""
    rest = len(data) - place
    head = _head(data, place)
    if rest < _HEAD_BYTES:
        is_short = _HEAD_START.fullmatch(data, place) is not None
    else:
        is_short = head is not None and rest < _HEAD_BYTES + head[1]
    return is_short or has_hole(data, place)


def has_hole(data: bytes, place: int) -> bool:
    """Whether zeros after `place` mark a sector that never reached the disk."""
    # A single zero is a flipped space, not a hole, unless it replaces the mark.
    return any(
        (zeros.end() - zeros.start() > 1 or zeros.start() == place)
        and (zeros.end() % _SECTOR_BYTES == 0 or zeros.end() == len(data))
        for zeros in _ZEROS.finditer(data, place)
    )
