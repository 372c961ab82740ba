"""Small JSON files that carry their checksum: what was changed is refused, never read.

    {"checksum":"<sha256 of all bytes from this quote on>", ...

The file stays JSON for every other tool. Its first 13 bytes and its digest vouch for each other:
where only one of them is right, the file was damaged. Where both are wrong, it was written by a
version that knew no checksums, and is read as it is. Lines of a log do the same with a CRC-32:

    {"crc":"<8 digits>", ...

A sealed file may name others under `files`: path from the folder of its run -> sha256.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from curator.core.errors import DamageError
from curator.store import fsops

FILES = "files"
DAMAGED = "file.damaged"
_HEAD, _LINE_HEAD = b'{"checksum":"', b'{"crc":"'
_DIGEST_CHARS, _CRC_CHARS = 64, 8

Json = dict[str, Any]


class Unsealed(NamedTuple):
    """What a file holds, and whether it carries a checksum."""

    value: Json
    is_sealed: bool


def to_bytes(
    value: Mapping[str, Any], *, indent: int | None = None, sort_keys: bool = True
) -> bytes:
    """The file for a value: with sorted keys the same value gives the same bytes. No NaN."""
    text = json.dumps(
        value,
        sort_keys=sort_keys,
        separators=(",", ":") if indent is None else None,
        ensure_ascii=False,
        allow_nan=False,
        indent=indent,
    )
    return seal(text)


def seal(text: str) -> bytes:
    """The file for a JSON object that was spelled already."""
    rest = _behind(text) + b"\n"
    return _HEAD + hashlib.sha256(rest).hexdigest().encode() + rest


def _behind(text: str) -> bytes:
    """What follows the checksum: the rest of the object."""
    # A file name that is no UTF-8 has lone surrogates: `\udce9` is what JSON writes for one.
    return ('"}' if text == "{}" else '",' + text[1:]).encode("utf-8", "backslashreplace")


def write(
    path: Path, value: Mapping[str, Any], *, indent: int | None = None, sort_keys: bool = True
) -> None:
    """Replace or create a file, all or nothing."""
    fsops.write_atomic(path, to_bytes(value, indent=indent, sort_keys=sort_keys))


def read(path: Path, *, hint: str | None = None) -> Json:
    """The value of a file; `hint` says what helps if it is damaged.

    Raises:
        DamageError: it is not what was written, or is gone.
    """
    return load(path, hint=hint).value


def load(path: Path, *, hint: str | None = None) -> Unsealed:
    """As `read`, with whether the file carries a checksum."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise _damage("the file is missing", path, hint) from error
    return parse(data, path, hint=hint)


def parse(data: bytes, where: object, *, hint: str | None = None) -> Unsealed:
    """The value of the bytes of a file; `where` is for the error.

    Raises:
        DamageError: they are not what was written.
    """
    end = len(_HEAD) + _DIGEST_CHARS
    fits = hashlib.sha256(data[end:]).hexdigest().encode() == data[len(_HEAD) : end]
    if fits != data.startswith(_HEAD):
        raise _damage("the file is not what was written: its checksum does not fit", where, hint)
    try:
        value = json.loads(data)
    except ValueError as error:
        raise _damage(f"the file is not readable ({error})", where, hint) from error
    if not isinstance(value, dict):
        raise _damage("the file holds no JSON object", where, hint)
    if fits:
        del value["checksum"]
    return Unsealed(value, fits)


def check_file(path: Path, sha256: str, named_by: object, *, hint: str | None = None) -> bytes:
    """The bytes of a file that another one names by its digest (hex).

    Raises:
        DamageError: it is gone, or not what was written.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise _damage(f"the file is missing, {named_by} names it", path, hint) from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        what = f"sha256 is {found[:12]}, {named_by} says {sha256[:12]}"
        raise _damage(what, path, hint)
    return data


def _damage(what: str, where: object, hint: str | None) -> DamageError:
    hint = hint or "restore the file from a copy"
    return DamageError(what, where=where, hint=hint, reason=DAMAGED)


# -- lines -----------------------------------------------------------------------------------------


def seal_line(text: str) -> str:
    """A line of a log, without its end, for a JSON object that was spelled already."""
    rest = _behind(text)
    return f"{_LINE_HEAD.decode()}{zlib.crc32(rest):08x}{rest.decode()}"


def lines(data: bytes, where: object, *, hint: str | None = None) -> tuple[list[Json], int]:
    """The lines of a log, and the bytes of those that a crash left unfinished.

    A log is not synced: after a power loss zeros may stand for any sector of its end.

    Raises:
        DamageError: a line is not what was written.
    """
    *whole, tail = data.split(b"\n")
    found, torn = [], len(tail)
    end = len(_LINE_HEAD) + _CRC_CHARS
    for number, line in enumerate(whole, 1):
        if b"\0\0" in line:
            torn += len(line) + 1
            continue
        fits = b"%08x" % zlib.crc32(line[end:]) == line[len(_LINE_HEAD) : end]
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if fits != line.startswith(_LINE_HEAD) or not isinstance(value, dict):
            raise _damage(f"line {number} is not what was written", where, hint)
        value.pop("crc", None)
        found.append(value)
    return found, torn
