"""Builders and readers of tiny images for tests."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from curator.core.errors import Unusable
from curator.core.images import Limits, decode, probe
from curator.core.reasons import REASONS

ANY_SIZE = Limits(min_side_px=1, max_aspect=100_000)
ALL = Limits(
    formats=("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"), min_side_px=1, max_aspect=100_000
)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    width: int, height: int, *, bits: int, color: int, rows: list[bytes], extra: bytes = b""
) -> bytes:
    """A PNG by hand: for what Pillow cannot write. `color`: 0 grey, 2 RGB, 3 palette, 4 grey+A."""
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", body)
        + chunk(b"IEND", b"")
    )  # fmt: skip


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def reason(data: bytes, limits: Limits = ANY_SIZE) -> str:
    """The reason of both doors; decoding refuses whatever probing refuses."""
    with pytest.raises(Unusable) as refused:
        decode(data, limits=limits)
    assert refused.value.reason in REASONS
    assert refused_by_probe(data, limits) in {None, refused.value.reason}
    return refused.value.reason


def refused_by_probe(data: bytes, limits: Limits = ANY_SIZE) -> str | None:
    try:
        probe(data, limits=limits)
    except Unusable as unusable:
        return unusable.reason
    return None


def pixels(data: bytes, limits: Limits = ANY_SIZE) -> list[list[tuple[int, ...]]]:
    """Rows of RGB; probe and decode agree on what the header says."""
    decoded = decode(data, limits=limits)
    assert decoded.image.mode == "RGB"
    assert decoded.image.size == (decoded.info.width, decoded.info.height)
    assert probe(data, limits=limits) == decoded.info
    return [[tuple(map(int, rgb)) for rgb in row] for row in np.asarray(decoded.image)]


def outcome(data: bytes, limits: Limits = ANY_SIZE) -> Image.Image | str:
    """The image, or the reason why there is none."""
    try:
        return decode(data, limits=limits).image
    except Unusable as unusable:
        return unusable.reason


def notes(data: bytes, limits: Limits = ANY_SIZE) -> tuple[str, ...]:
    return decode(data, limits=limits).info.notes


NOISE = np.random.default_rng(7).integers(0, 256, (48, 64, 3), dtype=np.uint8)
PHOTO = {kind: saved(Image.fromarray(NOISE), kind) for kind in ("JPEG", "PNG", "WEBP")}


def with_exif(block: bytes) -> bytes:
    segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
    return PHOTO["JPEG"][:2] + segment + PHOTO["JPEG"][2:]
