"""Digests, and the canonical JSON that they are computed from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

_HASH_CHUNK_BYTES = 8 << 20


def canonical_json(value: object) -> bytes:
    """Return a value as canonical JSON: sorted keys, no spaces, UTF-8, no NaN.

    A byte of a file name that is not UTF-8 (a lone surrogate in Python) becomes an escape.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode(errors="backslashreplace")


def digest(value: object) -> str:
    """Return the SHA-256 (hex) of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def text_sha256(text: str) -> str:
    """Return the SHA-256 (hex) of a text in UTF-8, which identifies it in every fact."""
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 (hex) of a file, in constant memory."""
    sha = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(_HASH_CHUNK_BYTES):
            sha.update(chunk)
    return sha.hexdigest()
