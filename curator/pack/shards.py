"""Pack loose images and captions into shards in the layout of img2dataset.

    00000.tar           KEY.jpg KEY.txt KEY.json of every row that could be packed
    00000.parquet       every row, with a reason if it could not be packed
    00000_stats.json    counts, written last: it marks the shard as complete
    curator_pack.json   written when all shards are complete

KEY is the number of the shard (5 digits) and of the row in it (4 digits). Images and captions are
copied byte for byte, never re-encoded or cleaned: `index` checks them with its own options. Only
the header of an image is read here, so an image that is damaged further on is packed.

The same source and options give the same bytes. A second run continues after the last finished
shard, once it has checked that the rows before it are unchanged. Memory is one image plus the rows
of one shard.

Layout: img2dataset 1.47 (writer.py, logger.py); its `duration` and times are left out.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from curator.core import images
from curator.core.errors import DamageError, Unusable, UsageError
from curator.pack import sources
from curator.pack.report import (
    SUCCESS,
    PackNotes,
    PackReport,
    has_words,
    make_report,
    refusal,
    warnings,
)
from curator.pack.sources import FORMATS, PackItem, SourceOptions, plain
from curator.shards.tar import BLOCK, DEFAULT_MAX_MEMBER_BYTES, END_OF_ARCHIVE
from curator.store import fsops, outputs, parquet

MANIFEST = outputs.PACK_MANIFEST
NOT_FOUND = "failed_to_download"
NOT_AN_IMAGE = "failed_to_resize"

ROW_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("path", pa.string()),
        ("caption", pa.string()),
        ("captions", pa.list_(pa.string())),
        ("status", pa.string()),  # success | failed_to_download | failed_to_resize
        ("error_message", pa.string()),  # "<reason>: <detail>"
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("original_width", pa.int32()),
        ("original_height", pa.int32()),
        ("sha256", pa.string()),
        ("metadata", pa.string()),  # the other columns of the source, as JSON
    ]
)

# Refuses only images that no reader of shards could open; `index` checks size and aspect ratio.
# The number of pixels is limited because opening a WebP allocates its canvas.
_LIMITS = images.Limits(min_side_px=1, max_aspect=float("inf"))
_EXT = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
_MIN_DIGITS = 4
_END_BYTES = len(END_OF_ARCHIVE)
_REPORT_EVERY = 100

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackOptions:
    """Options of `pack`. `format` is a name of `sources.FORMATS`; None detects it.

    A shard is closed after `samples_per_shard` rows, or before it outgrows `max_shard_bytes`.
    """

    format: str | None = None
    source: SourceOptions = field(default_factory=SourceOptions)
    samples_per_shard: int = 10_000
    max_shard_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in FORMATS:
            FORMATS.get(self.format)  # raises, with the nearest name
        if self.samples_per_shard < 1:
            raise UsageError(
                f"samples_per_shard must be at least 1, not {self.samples_per_shard}",
                reason="option.value",
            )
        if self.max_shard_bytes is not None and self.max_shard_bytes < 1:
            raise UsageError(
                f"max_shard_bytes must be at least 1, not {self.max_shard_bytes}",
                reason="option.value",
            )


def pack(
    source: Path,
    out: Path,
    *,
    options: PackOptions = PackOptions(),
    on_progress: Advance | None = None,
) -> PackReport:
    """Pack `source` into shards below `out`.

    `on_progress` gets the number of rows just finished, about every hundred rows; if it raises,
    finished shards stay.

    Raises:
        UsageError: no such source, unknown format or column, `out` contains something else, or no
            row could be packed; in the last case nothing is kept.
        DamageError: rows that were packed before have changed (source.changed), or a table cannot
            be read.
        ConflictError: another process is packing into `out`.
    """
    kind = options.format or sources.detect(source)
    if source.is_dir():
        outputs.check_outside(out, source, "the source")
    reader: sources.Reader = FORMATS.get(kind)
    recipe = {
        "verb": "pack",
        "format": kind,
        "samples_per_shard": options.samples_per_shard,
        "max_shard_bytes": options.max_shard_bytes,
        "image_column": options.source.image_column,
        "caption_column": options.source.caption_column,
    }
    feed = _Feed(reader(source, options.source), on_progress or (lambda _: None))
    if feed.peek() is None:
        raise UsageError("the source has no rows", where=source, reason="input.none_found")
    with outputs.filling(out, manifest=MANIFEST, recipe=recipe):
        packer = _Packer(out, feed, options)
        stats = list(packer.run())
        feed.report()
        report = make_report(kind, stats, packer.num_new)
        column = options.source.caption_column
        error = refusal(source, report, feed.seen, column)
        if error is not None:
            _undo(out, report.num_shards)
            raise error
        left_out = ("num_new_shards", "warnings")
        counts = {k: v for k, v in report.to_json().items() if k not in left_out}
        outputs.write_manifest(out / MANIFEST, recipe, counts)
    return replace(report, warnings=warnings(source, report, feed.seen, column))


def _undo(out: Path, num_shards: int) -> None:
    """Remove all output, so that another attempt with other options can start."""
    for number in range(num_shards):
        for suffix in ("_stats.json", ".parquet", ".tar"):
            fsops.remove(out / f"{number:05d}{suffix}")
    for name in (MANIFEST, outputs.CLAIM):
        fsops.remove(out / name)


class _Feed:
    """The items of a source, with a look at the next one and a running digest."""

    def __init__(self, items: Iterator[PackItem], on_progress: Advance) -> None:
        self._items = items
        self._held: list[PackItem] = []
        self._on_progress = on_progress
        self._unreported = 0
        self.seen = PackNotes()

    def peek(self) -> PackItem | None:
        """Return the next item without taking it; None at the end."""
        if not self._held:
            self._held.extend(item for item in (next(self._items, None),) if item is not None)
        return self._held[0] if self._held else None

    def take(self, sha: hashlib._Hash) -> PackItem | None:
        """Take the next item, add it to the digest and count it as done; None at the end."""
        item = self.peek()
        if item is None:
            return None
        self._held.clear()
        sha.update(item.digest())
        self.seen.item(item)
        self._unreported += 1
        if self._unreported >= _REPORT_EVERY:
            self.report()
        return item

    def report(self) -> None:
        """Report the number of items taken since the last report."""
        number, self._unreported = self._unreported, 0
        self._on_progress(number)


@dataclass(slots=True)
class _Shard:
    """A shard being written."""

    number: int
    sha: hashlib._Hash = field(default_factory=hashlib.sha256)
    rows: list[dict[str, object]] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    without_caption: int = 0
    blank_captions: int = 0


class _Packer:
    """Makes the missing shards one after another."""

    def __init__(self, out: Path, feed: _Feed, options: PackOptions) -> None:
        self.out = out
        self.feed = feed
        self.options = options
        self.digits = max(_MIN_DIGITS, len(str(options.samples_per_shard - 1)))
        self.num_new = 0

    def run(self) -> Iterator[dict[str, Any]]:
        """Yield the stats of every shard, in order."""
        number = 0
        while self._is_finished(number) or self.feed.peek() is not None:
            if self._is_finished(number):
                yield self._skip(number)
            else:
                self.num_new += 1
                yield self._make(number)
            number += 1

    def _is_finished(self, number: int) -> bool:
        tar = self.out / f"{number:05d}.tar"
        return tar.exists() and (self.out / f"{number:05d}_stats.json").exists()

    def _skip(self, number: int) -> dict[str, Any]:
        stats = outputs.read_json(self.out / f"{number:05d}_stats.json")
        sha = hashlib.sha256()
        for _ in range(int(stats.get("count", 0))):
            if self.feed.take(sha) is None:
                break
        at_end = self.feed.peek() is None
        if stats.get("source") != {"digest": sha.hexdigest(), "is_end": at_end}:
            raise DamageError(
                "this shard was made from another source",
                where=self.out / f"{number:05d}.tar",
                did="finished shards are kept",
                hint="restore the source to continue, or pack it into another folder",
                reason="source.changed",
            )
        return stats

    def _make(self, number: int) -> dict[str, Any]:
        base = self.out / f"{number:05d}"
        shard = _Shard(number)
        with fsops.atomic_file(base.with_suffix(".tar")) as file:
            sink = outputs.TarSink(file)
            self._fill(shard, sink)
            sink.finish()
        parquet.write(base.with_suffix(".parquet"), pa.Table.from_pylist(shard.rows, ROW_SCHEMA))
        stats = {
            "count": len(shard.rows),
            "successes": shard.statuses[SUCCESS],
            NOT_FOUND: shard.statuses[NOT_FOUND],
            NOT_AN_IMAGE: shard.statuses[NOT_AN_IMAGE],
            "status_dict": {SUCCESS: shard.statuses[SUCCESS], **shard.reasons},
            "without_caption": shard.without_caption,
            "blank_captions": shard.blank_captions,
            "source": {"digest": shard.sha.hexdigest(), "is_end": self.feed.peek() is None},
        }
        outputs.write_json(self.out / f"{base.name}_stats.json", stats)
        return stats

    def _fill(self, shard: _Shard, sink: outputs.TarSink) -> None:
        limit = self.options.max_shard_bytes
        while len(shard.rows) < self.options.samples_per_shard:
            item = self.feed.peek()
            if item is None:
                return
            key = f"{shard.number:05d}{len(shard.rows):0{self.digits}d}"
            row, members = _prepare(key, item)
            size = _END_BYTES + sink.size_bytes + sum(map(_archived_bytes, members.values()))
            if limit is not None and shard.statuses[SUCCESS] and size > limit:
                return
            self.feed.take(shard.sha)
            for ext, data in members.items():
                sink.add(f"{key}.{ext}", data)
            shard.rows.append(row)
            shard.statuses[str(row["status"])] += 1
            if not members:
                reason, _, detail = str(row["error_message"]).partition(": ")
                shard.reasons[reason] += 1
                self.feed.seen.failure(reason, item.origin, detail)
            elif not item.captions:
                shard.without_caption += 1
            elif not has_words(item.captions):
                shard.blank_captions += 1


def _archived_bytes(data: bytes) -> int:
    """Return the size in a tar of a member with a short name: header and data in whole blocks."""
    return BLOCK + -(-len(data) // BLOCK) * BLOCK


def _prepare(key: str, item: PackItem) -> tuple[dict[str, object], dict[str, bytes]]:
    """Return the row of an item and its members by extension; none if it cannot be packed."""
    captions = [text.decode("utf-8", "replace") for text in item.captions]
    row: dict[str, object] = dict.fromkeys(ROW_SCHEMA.names)
    row.update(key=key, path=item.origin, caption=captions[0] if captions else None)
    row["captions"] = captions
    meta = plain(item.meta)
    assert isinstance(meta, dict)
    if meta:
        row["metadata"] = json.dumps(meta)
    status = NOT_FOUND
    try:
        data = _image_bytes(item)
        status = NOT_AN_IMAGE
        info = images.probe(data, limits=_LIMITS)
    except Unusable as problem:
        row.update(status=status, error_message=f"{problem.reason}: {problem.detail}")
        return row, {}
    row.update(
        status=SUCCESS,
        width=info.width,
        height=info.height,
        original_width=info.width,
        original_height=info.height,
        sha256=hashlib.sha256(data).hexdigest(),
    )
    members = {_EXT[info.format]: data}
    if item.captions:
        members["txt"] = item.captions[0]
    members["json"] = _json_member(row, captions, meta)
    return row, members


def _image_bytes(item: PackItem) -> bytes:
    if item.problem is not None:
        raise item.problem
    data = item.image
    if isinstance(data, Path):
        try:
            if data.stat().st_size > DEFAULT_MAX_MEMBER_BYTES:
                raise Unusable("tar.size_limit", f"above {DEFAULT_MAX_MEMBER_BYTES} bytes")
            data = data.read_bytes()
        except OSError as error:
            raise Unusable("image.missing", str(error.strerror)) from error
    assert data is not None, "an item without a problem has an image"
    if len(data) > DEFAULT_MAX_MEMBER_BYTES:
        raise Unusable("tar.size_limit", f"above {DEFAULT_MAX_MEMBER_BYTES} bytes")
    return data


def _json_member(row: dict[str, object], captions: list[str], meta: dict[str, object]) -> bytes:
    """Encode img2dataset's fields, then the source's; clashing names of the source get a prefix."""
    fields = {name: row[name] for name in ROW_SCHEMA.names if name not in ("captions", "metadata")}
    if len(captions) > 1:
        fields["captions"] = captions
    for name, value in meta.items():
        fields[f"source_{name}" if name in fields else name] = value
    return json.dumps(fields).encode()
