"""Tables of shards without a store: an exported version, or any WebDataset.

Texts and weights come from the `curator` field of KEY.json that `curator export` writes, and from
KEY.txt where there is none. Every shard is read with curator's own reader, so damaged samples are
left out as `curator index` would leave them out, and nothing in a shard can run code.

Nothing is kept on disk. A shard is read as a whole when its window is needed, some 80 us per sample
plus twice the time of a SHA-256 of the bytes. The first 256 MB of tables (a million samples of two
short captions) stay in memory for the next epoch, as long as their shards keep size and time.
Further shards are read again in every epoch; that is fast enough for one GPU, for more index the
shards. Opening takes the counts from the export's manifest; without one it reads all shards once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from curator.core.errors import DamageError, Unusable
from curator.core.hashing import digest
from curator.core.strictjson import MAX_JSON_BYTES, parse_object
from curator.export.samples import FIELD, ShardReader, own_field
from curator.export.version import MANIFEST
from curator.policy.model import ALT_TEXT
from curator.shards.dataset import Dataset
from curator.shards.places import Place, Remote, below, read_small, stamp
from curator.shards.samples import Member, ScannedSample
from curator.shards.scan import ScanOptions, scan_shard
from curator.store import outputs
from pretrain.data.rng import Ints
from pretrain.data.tables import ROWS, ShardTable, over_all

KEPT_BYTES = 1 << 28
"""Memory for tables that are kept. No table is evicted for another: an epoch reads each shard once,
so any choice of tables saves the same."""

_MANIFEST_BYTES = 1 << 30

_TEXTS = ("texts", "weights", "written_by")


@dataclass(frozen=True, slots=True)
class TarCaption:
    """A text of one sample, before the weights are normalised to sum to 1."""

    text: str
    weight: float
    written_by: str


class _ReadShard(NamedTuple):
    """A shard that was read: its digest, and its samples in the columns of ROWS."""

    digest: str
    rows: pl.DataFrame


class TarTables:
    """Usable samples of shards: those with a text, or all of them if `need_text` is false."""

    def __init__(self, dataset: Dataset, *, need_text: bool = True) -> None:
        self._refs = dataset.shards
        self._need_text = need_text
        self.shards = tuple(ref.name for ref in dataset.shards)
        self.manifest, self._manifest_folder = read_manifest(dataset.root)
        self._counts = self._from_manifest(dataset.root)
        self._digests: list[str] = []
        self._kept: dict[int, tuple[tuple[object, ...], _ReadShard]] = {}
        self._kept_bytes = 0.0
        self._keeping = Lock()

    def _from_manifest(self, root: Place) -> Ints | None:
        """Return the counts, if all shards are as they were exported."""
        if self.manifest is None:
            return None
        base = self._manifest_folder
        files = self.manifest["files"]
        counts = []
        for ref in self._refs:
            found, there = files.get(below(ref.path, base)), stamp(ref.path)
            if found is None or there is None or found["size_bytes"] != there.size_bytes:
                return None
            counts.append(found["successes"])
        return np.array(counts, np.int64)

    @property
    def is_export(self) -> bool:
        """Whether all shards are an unchanged export of a version."""
        return self.manifest is not None and self._counts is not None and not self._digests

    def counts(self) -> Ints:
        """See `Tables`."""
        if self._counts is None:
            found = over_all(self, "read shards", self._read)
            self._counts = np.array([len(one.rows) for one in found], np.int64)
            self._digests = [one.digest for one in found]
        return self._counts

    def digest(self) -> str:
        """Return the identity of the shards: of the exported version, else of their bytes."""
        self.counts()
        if self.is_export and self.manifest is not None:
            return str(self.manifest["version"]["id"])
        return digest(dict(zip(self.shards, self._digests, strict=True)))

    def read(self, shard: int) -> ShardTable:
        """See `Tables`.

        Raises:
            DamageError: the shard has changed since it was counted.
        """
        rows = self._read(shard).rows
        expected = int(self.counts()[shard])
        if len(rows) != expected:
            raise DamageError(
                f"the shard has {len(rows)} usable samples, {expected} were counted",
                where=self._refs[shard].path,
                hint="export it again, or start again with the shards as they are",
                reason="source.changed",
            )
        return ShardTable(self._refs[shard].path, rows)

    def images(self, shard: int) -> pl.Series:
        """See `Tables`."""
        return self.read(shard).rows["image_sha256"]

    def _read(self, shard: int) -> _ReadShard:
        """Return the kept table of a shard if its file is unchanged, else read it."""
        path = self._refs[shard].path
        now = _stamp(path)
        kept_stamp, kept = self._kept.get(shard, ((), None))
        if kept is not None and kept_stamp == now:
            return kept
        found = self._scan(shard)
        size = found.rows.estimated_size()
        with self._keeping:
            self._forget(shard)
            if now and self._kept_bytes + size <= KEPT_BYTES:
                self._kept[shard] = (now, found)
                self._kept_bytes += size
        return found

    def _forget(self, shard: int) -> None:
        if shard in self._kept:
            self._kept_bytes -= self._kept.pop(shard)[1].rows.estimated_size()

    def _scan(self, shard: int) -> _ReadShard:
        ref = self._refs[shard]
        scan = scan_shard(ref, options=ScanOptions())
        if not scan.digest:
            raise DamageError("cannot be opened", where=ref.path, reason="source.changed")
        usable = [one for one in scan.samples if one.reason is None]
        with ShardReader(ref.path) as reader:
            captions = [captions_of(one, reader) for one in usable]
        return _ReadShard(scan.digest, _table(usable, captions, need_text=self._need_text))


def _stamp(path: Place) -> tuple[object, ...]:
    """Return values that change when a file does; empty for a missing file."""
    if isinstance(path, Remote):
        return path.stamp or ()
    try:
        found = path.stat()
    except OSError:  # reading the shard reports it
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


def read_manifest(root: Place) -> tuple[dict[str, Any] | None, Place]:
    """Read the manifest of `curator export` for the shards in `root`, and return its folder.

    It is in `root`, or above it for the data/ of --to hf.
    """
    for folder in (root, root.parent):
        path = folder / MANIFEST
        data = read_small(path, most_bytes=_MANIFEST_BYTES)
        if data is not None:
            return outputs.parse_json(data, path), folder
    return None, root


def captions_of(sample: ScannedSample, reader: ShardReader) -> list[TarCaption]:
    """Return the texts of a sample by slot: those of the `curator` field, else the alt text."""
    found = _exported(sample.members, reader)
    if found is None:
        return [TarCaption(sample.alt_text, 1.0, ALT_TEXT)] if sample.alt_text else []
    total = sum(caption.weight for caption in found)
    return [
        TarCaption(one.text, one.weight / total if total else 1 / len(found), one.written_by)
        for one in found
    ]


def _exported(members: Sequence[Member], reader: ShardReader) -> list[TarCaption] | None:
    """Read the `curator` field of KEY.json; None if missing or not of a form that export writes."""
    member = next((one for one in members if one.ext.lower() == "json"), None)
    if member is None or member.length > MAX_JSON_BYTES:
        return None
    try:
        fields = parse_object(reader.read(member))
    except Unusable:  # the sample stays usable, as when it is indexed
        return None
    field = fields.get(own_field(fields) or FIELD)
    captions = field.get("captions") if isinstance(field, Mapping) else None
    if not isinstance(captions, list):
        return None
    return [_caption(one, reader.path) for one in captions]


def _caption(value: object, where: Place) -> TarCaption:
    if isinstance(value, Mapping):
        text, weight, source = (value.get(name) for name in ("text", "weight", "source"))
        if isinstance(text, str) and isinstance(source, str) and isinstance(weight, int | float):
            return TarCaption(text, float(weight), source)
    raise DamageError("a `curator` field is not in the form of `curator export`", where=where)


def _table(
    samples: Sequence[ScannedSample], captions: Sequence[Sequence[TarCaption]], *, need_text: bool
) -> pl.DataFrame:
    """Build the table of samples with their captions, in the columns of ROWS.

    Lists are made by grouping, because polars takes ten times as long to convert Python lists.
    """
    images = [one.image for one in samples if one.image is not None]
    places = pl.DataFrame(
        {
            "row": range(len(samples)),
            "key": [one.key for one in samples],
            "image_sha256": [one.image_sha256 for one in samples],
            "offset": [image.offset for image in images],
            "length": [image.length for image in images],
        },
        schema={"row": pl.Int64(), **{name: ROWS[name] for name in ROWS if name not in _TEXTS}},
    )
    flat = [(row, one) for row, texts in enumerate(captions) for one in texts]
    texts = pl.DataFrame(
        {
            "row": [row for row, _ in flat],
            "texts": [one.text for _, one in flat],
            "weights": [one.weight for _, one in flat],
            "written_by": [one.written_by for _, one in flat],
        },
        schema={
            "row": pl.Int64(),
            "texts": pl.String(),
            "weights": pl.Float32(),
            "written_by": pl.String(),
        },
    )
    lists = texts.group_by("row", maintain_order=True).agg(_TEXTS)
    joined = places.join(
        lists, on="row", how="inner" if need_text else "left", maintain_order="left"
    )
    empty = [pl.col(name).fill_null(pl.lit([], ROWS[name])) for name in _TEXTS]
    return joined.with_columns(empty).select(ROWS.names())
