"""Make thumbnails of samples from the bytes of the tar, with the latest cached in memory.

Decoded by `curator.core.images` under its limits; a large JPEG is decoded at reduced size. One
costs about 5 ms, mostly decoding, which runs in several threads. An image that cannot be shown
becomes a grey placeholder with the reason, never an error; so does one whose bytes differ from the
indexed ones, since a text must not be reviewed against another image.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from threading import Lock

import polars as pl
from PIL import Image, ImageDraw

from curator.core import images
from curator.core.errors import CuratorError, Unusable, UsageError
from curator.shards.places import Remote, by_ranges, read_bytes, read_many, stamp
from curator.steps.workspace import Workspace
from curator.store import index

_QUALITY = 85
_GREY, _INK = (222, 224, 228), (96, 100, 108)
_MAX_BYTES = 64_000_000
_AT_ONCE = 4


class Thumbnails:
    """JPEG thumbnails of the samples of one dataset; see the module. Thread-safe."""

    def __init__(self, ws: Workspace, *, max_bytes: int = _MAX_BYTES) -> None:
        self._ws = ws
        self._paths = {ref.name: by_ranges(ref.path) for ref in ws.shards}
        self._max_bytes = max_bytes
        self._kept: OrderedDict[tuple[str, int, int], bytes] = OrderedDict()
        self._num_bytes = 0
        self._lock = Lock()

    def get(self, shard: str, row: int, *, side_px: int = 256) -> bytes:
        """Return the thumbnail of one sample, its longer side at most `side_px` pixels.

        Raises:
            UsageError: no such shard or row.
        """
        return self.many([(shard, row)], side_px=side_px)[0]

    def many(self, places: Sequence[tuple[str, int]], *, side_px: int = 256) -> list[bytes]:
        """Return the thumbnails of several samples, given as (shard, row); a few in parallel."""
        wanted = [(shard, row, side_px) for shard, row in places]
        with self._lock:
            found = {key: self._kept[key] for key in wanted if key in self._kept}
            for key in found:
                self._kept.move_to_end(key)
        missing = [key for key in dict.fromkeys(wanted) if key not in found]
        if missing:
            where = self._where(missing)
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                read = dict(pool.map(lambda shard: self._fetched(shard, missing, where), where))
                made = pool.map(
                    lambda key: self._make(key, where[key[0]], read[key[0]].get(key[1])), missing
                )
                found |= dict(zip(missing, made, strict=True))
            self._keep({key: found[key] for key in missing})
        return [found[key] for key in wanted]

    def _keep(self, made: dict[tuple[str, int, int], bytes]) -> None:
        with self._lock:
            for key, data in made.items():
                self._num_bytes += len(data) - len(self._kept.get(key, b""))
                self._kept[key] = data
            while self._num_bytes > self._max_bytes:
                self._num_bytes -= len(self._kept.popitem(last=False)[1])

    def _where(self, keys: Sequence[tuple[str, int, int]]) -> dict[str, pl.DataFrame]:
        """Read the byte ranges of the images in each shard."""
        columns = ["row", "offset", "length", "reason", "image_sha256"]
        return {
            shard: index.read(self._ws.store, shard, columns)
            for shard in dict.fromkeys(shard for shard, _, _ in keys)
        }

    def _fetched(
        self, shard: str, keys: Sequence[tuple[str, int, int]], where: dict[str, pl.DataFrame]
    ) -> tuple[str, dict[int, bytes | CuratorError]]:
        """Read the images of one shard in an object store, as few requests; local ones later."""
        path, places = self._paths.get(shard), where[shard]
        if not isinstance(path, Remote):
            return shard, {}
        asked = [row for name, row, _ in keys if name == shard and 0 <= row < len(places)]
        rows = [row for row in dict.fromkeys(asked) if places["offset"][row] is not None]
        ranges = [(places["offset"][row], places["length"][row]) for row in rows]
        try:
            return shard, dict(zip(rows, read_many(path, ranges), strict=True)) if rows else {}
        except CuratorError as error:
            return shard, dict.fromkeys(rows, error)

    def _is_touched(self, shard: str) -> bool:
        """Whether the shard is missing, or its size or modification time differs from the index."""
        facts = index.shard_facts(self._ws.store, shard)
        found = stamp(self._paths[shard])
        return found is None or not found.is_same(facts.stamp)

    def _make(
        self,
        key: tuple[str, int, int],
        where: pl.DataFrame,
        read: bytes | CuratorError | None = None,
    ) -> bytes:
        shard, row, side_px = key
        if not 0 <= row < len(where):
            raise UsageError(
                f"shard {shard} has no row {row}",
                hint=f"rows go from 0 to {len(where) - 1}",
                reason="sample.unknown",
            )
        _, offset, length, reason, sha256 = where.row(row)
        if offset is None:
            return placeholder(str(reason or "sample.no_image"), side_px)
        try:
            if shard not in self._paths:
                return placeholder("shard.missing", side_px)
            if isinstance(read, CuratorError):
                raise read
            data = read or read_bytes(self._paths[shard], offset, length)
            if self._is_touched(shard) and hashlib.sha256(data).hexdigest() != sha256:
                return placeholder("source.changed", side_px)
            return shrink(data, side_px)
        except Unusable as unusable:
            return placeholder(unusable.reason, side_px)
        except CuratorError as error:  # the shard is missing, or differs from the index
            return placeholder(error.reason, side_px)


def shrink(data: bytes, side_px: int) -> bytes:
    """Convert an encoded image to a JPEG that fits a square of `side_px`, never enlarging it.

    Raises:
        Unusable: it cannot be decoded.
    """

    def wanted(info: images.ImageInfo) -> tuple[int, int]:
        scale = min(1.0, side_px / max(info.width, info.height))
        return round(info.width * scale), round(info.height * scale)

    picture = images.decode(data, at_least=wanted).image
    picture.thumbnail((side_px, side_px), Image.Resampling.BILINEAR)
    return _jpeg(picture)


def placeholder(reason: str, side_px: int) -> bytes:
    """Return a grey image with the reason why there is no thumbnail."""
    picture = Image.new("RGB", (side_px, side_px * 3 // 4), _GREY)
    pen = ImageDraw.Draw(picture)
    middle = (picture.width / 2, picture.height / 2)
    pen.text(middle, f"no image\n{reason}", _INK, anchor="mm", align="center", font_size=14)
    return _jpeg(picture)


def _jpeg(picture: Image.Image) -> bytes:
    sink = BytesIO()
    picture.save(sink, "JPEG", quality=_QUALITY)
    return sink.getvalue()
