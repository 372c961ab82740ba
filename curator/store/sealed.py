"""Small JSON files with a checksum inside: an altered file is refused.

    {"checksum":"<sha256 of all bytes from this quote on>", ...

The file stays valid JSON for other tools. Its first 13 bytes and its digest confirm each other: if
only one is right, the file is damaged. If both are wrong, an older version without checksums wrote
it, and it is read without verification. Lines of a log do the same with a CRC-32:

    {"crc":"<8 digits>", ...

A sealed file may list others under `files`: path relative to the folder of its run -> sha256.
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
    """The content of a file, and whether it has a checksum."""

    value: Json
    is_sealed: bool


def to_bytes(
    value: Mapping[str, Any], *, indent: int | None = None, sort_keys: bool = True
) -> bytes:
    """Return the file for a value, with sorted keys: same value, same bytes. NaN is refused."""
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
    """Return the file for a JSON object that is serialised already."""
    rest = _behind(text) + b"\n"
    return _HEAD + hashlib.sha256(rest).hexdigest().encode() + rest


def _behind(text: str) -> bytes:
    """Return what follows the checksum: the rest of the object."""
    # A file name that is not UTF-8 has lone surrogates, which JSON writes as `\udce9`.
    return ('"}' if text == "{}" else '",' + text[1:]).encode("utf-8", "backslashreplace")


def write(
    path: Path, value: Mapping[str, Any], *, indent: int | None = None, sort_keys: bool = True
) -> None:
    """Create or replace a file, all or nothing."""
    fsops.write_atomic(path, to_bytes(value, indent=indent, sort_keys=sort_keys))


def read(path: Path, *, hint: str | None = None) -> Json:
    """Read the value of a file; `hint` is shown if it is damaged.

    Raises:
        DamageError: the file is damaged or missing.
    """
    return load(path, hint=hint).value


def load(path: Path, *, hint: str | None = None) -> Unsealed:
    """Like `read`, and also return whether the file has a checksum."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise _damage("the file is missing", path, hint) from error
    return parse(data, path, hint=hint)


def parse(data: bytes, where: object, *, hint: str | None = None) -> Unsealed:
    """Parse the bytes of a file; `where` names it in errors.

    Raises:
        DamageError: the bytes are damaged.
    """
    end = len(_HEAD) + _DIGEST_CHARS
    fits = hashlib.sha256(data[end:]).hexdigest().encode() == data[len(_HEAD) : end]
    if fits != data.startswith(_HEAD):
        raise _damage("the file is damaged: its checksum does not match", where, hint)
    try:
        value = json.loads(data)
    except ValueError as error:
        raise _damage(f"the file is unreadable ({error})", where, hint) from error
    if not isinstance(value, dict):
        raise _damage("the file does not hold a JSON object", where, hint)
    if fits:
        del value["checksum"]
    return Unsealed(value, fits)


def check_file(path: Path, sha256: str, named_by: object, *, hint: str | None = None) -> bytes:
    """Return the bytes of a file whose digest (hex) another file lists.

    Raises:
        DamageError: the file is missing or damaged.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise _damage(f"the file is missing, but {named_by} lists it", path, hint) from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        what = f"sha256 is {found[:12]}, {named_by} says {sha256[:12]}"
        raise _damage(what, path, hint)
    return data


def _damage(what: str, where: object, hint: str | None) -> DamageError:
    hint = hint or "restore the file from a backup"
    return DamageError(what, where=where, hint=hint, reason=DAMAGED)


# -- lines -----------------------------------------------------------------------------------------


def seal_line(text: str) -> str:
    """Return a log line, without its end, for a JSON object that is serialised already."""
    rest = _behind(text)
    return f"{_LINE_HEAD.decode()}{zlib.crc32(rest):08x}{rest.decode()}"


def lines(data: bytes, where: object, *, hint: str | None = None) -> tuple[list[Json], int]:
    """Parse the lines of a log; also return the number of bytes that a crash left unfinished.

    Logs are not fsynced: after a power loss zeros may replace any sector at the end.

    Raises:
        DamageError: a line is damaged.
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
            raise _damage(f"line {number} is damaged", where, hint)
        value.pop("crc", None)
        found.append(value)
    return found, torn
