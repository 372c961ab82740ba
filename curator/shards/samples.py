"""Value types passed between the parts of the engine; no logic."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Member:
    """One file inside a tar shard: its extension and where its bytes are.

    `offset` and `length` are in bytes and address the data, not the tar header.
    """

    ext: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class ScannedSample:
    """One sample, or one fragment of it, as it is in the shard.

    `row` counts from 0 within the shard. `members` are all its files in tar order, except those
    left out as duplicates, of an unsafe type or unreadable. `width` and `height` are as displayed.
    `alt_raw` holds the bytes of the alt text if cleaning changed them, `alt_source` is where it was
    read, as `ScanOptions.caption_field` names it. With a `reason` (a code of
    `curator.core.reasons`) the sample is unusable, and any other field may be None.
    """

    key: str
    row: int
    members: tuple[Member, ...]
    image: Member | None = None
    image_sha256: str | None = None
    width: int | None = None
    height: int | None = None
    image_format: str | None = None
    alt_text: str | None = None
    alt_raw: bytes | None = None
    alt_source: str | None = None
    flags: tuple[str, ...] = ()
    reason: str | None = None
    detail: str = ""
