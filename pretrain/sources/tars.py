"""Tables of shards without a store: an exported version, or any WebDataset.

Texts and weights come from the `curator` field of KEY.json that `curator export` writes, and from
KEY.txt where there is none. Every shard is read with curator's own reader, so what is damaged is
left out as `curator index` would leave it out, and nothing in a shard can run code.

Nothing is kept on disk: a shard is read as a whole each time its window comes, about 100 us a
sample and twice the time of a SHA-256 of the bytes. That feeds one GPU; for more, index the shards.
Opening takes the counts from the export's manifest, and a pass over all shards without one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from curator import outputs
from curator.errors import DamageError, Unusable
from curator.export.samples import ShardReader
from curator.export.version import MANIFEST
from curator.policy import ALT_TEXT
from curator.sample import Member
from curator.shards import Dataset, ScannedSample, ScanOptions, scan_shard
from curator.strictjson import MAX_JSON_BYTES, parse_object
from curator.versions import digest
from pretrain.draws import Ints
from pretrain.sources import ROWS, ShardTable, over_all


@dataclass(frozen=True, slots=True)
class Caption:
    """A text of one sample, before the weights are brought to add up to 1."""

    text: str
    weight: float
    written_by: str


class TarTables:
    """Usable samples of shards with at least one text; without, too, if `need_text` is false."""

    def __init__(self, dataset: Dataset, *, need_text: bool = True) -> None:
        self._refs = dataset.shards
        self._need_text = need_text
        self.shards = tuple(ref.name for ref in dataset.shards)
        self.manifest = read_manifest(dataset.root)
        self._counts = self._from_manifest(dataset.root)
        self._sha256: list[str] = []

    def _from_manifest(self, root: Path) -> Ints | None:
        """The counts, if all shards are as they were exported."""
        if self.manifest is None:
            return None
        base = root if (root / MANIFEST).exists() else root.parent
        files = self.manifest["files"]
        counts = []
        for ref in self._refs:
            found = files.get(ref.path.relative_to(base).as_posix())
            if found is None or found["size_bytes"] != ref.path.stat().st_size:
                return None
            counts.append(found["successes"])
        return np.array(counts, np.int64)

    @property
    def is_export(self) -> bool:
        """Whether all shards are as an export of a version left them."""
        return self.manifest is not None and self._counts is not None and not self._sha256

    def counts(self) -> Ints:
        """See `Tables`."""
        if self._counts is None:
            found = over_all(self, "read shards", self._scan)
            self._counts = np.array([len(rows) for _, rows in found], np.int64)
            self._sha256 = [sha256 for sha256, _ in found]
        return self._counts

    def digest(self) -> str:
        """The identity of the shards: of the exported version, else of their bytes."""
        self.counts()
        if self.is_export and self.manifest is not None:
            return str(self.manifest["version"]["id"])
        return digest(dict(zip(self.shards, self._sha256, strict=True)))

    def read(self, shard: int) -> ShardTable:
        """See `Tables`.

        Raises:
            DamageError: the shard does not hold what it held when it was counted.
        """
        _, rows = self._scan(shard)
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

    def _scan(self, shard: int) -> tuple[str, pl.DataFrame]:
        ref = self._refs[shard]
        scan = scan_shard(ref, options=ScanOptions())
        if not scan.sha256:
            raise DamageError("cannot be opened", where=ref.path, reason="source.changed")
        usable = [one for one in scan.samples if one.reason is None]
        with ShardReader(ref.path) as reader:
            rows = [_row(one, captions_of(one, reader)) for one in usable]
        frame = pl.DataFrame(rows, schema=ROWS, orient="row")
        if self._need_text:
            frame = frame.filter(pl.col("texts").list.len() > 0)
        return scan.sha256, frame


def read_manifest(root: Path) -> dict[str, Any] | None:
    """What `curator export` says of the shards in `root`; for --to hf they lie in data/."""
    for folder in (root, root.parent):
        if (folder / MANIFEST).exists():
            return outputs.read_json(folder / MANIFEST)
    return None


def captions_of(sample: ScannedSample, reader: ShardReader) -> list[Caption]:
    """The texts of a sample by slot: those of the `curator` field, else the alt text."""
    found = _exported(sample.members, reader)
    if found is None:
        return [Caption(sample.alt_text, 1.0, ALT_TEXT)] if sample.alt_text else []
    total = sum(caption.weight for caption in found)
    return [
        Caption(one.text, one.weight / total if total else 1 / len(found), one.written_by)
        for one in found
    ]


def _exported(members: Sequence[Member], reader: ShardReader) -> list[Caption] | None:
    """The `curator` field of KEY.json; None without one, or in a form that export never writes."""
    member = next((one for one in members if one.ext.lower() == "json"), None)
    if member is None or member.length > MAX_JSON_BYTES:
        return None
    try:
        field = parse_object(reader.read(member)).get("curator")
    except Unusable:  # costs the sample nothing, as when it is indexed
        return None
    captions = field.get("captions") if isinstance(field, Mapping) else None
    if not isinstance(captions, list):
        return None
    return [_caption(one, reader.path) for one in captions]


def _caption(value: object, where: Path) -> Caption:
    if isinstance(value, Mapping):
        text, weight, source = (value.get(name) for name in ("text", "weight", "source"))
        if isinstance(text, str) and isinstance(source, str) and isinstance(weight, int | float):
            return Caption(text, float(weight), source)
    raise DamageError("a `curator` field is not as `curator export` writes it", where=where)


def _row(sample: ScannedSample, captions: Sequence[Caption]) -> tuple[object, ...]:
    assert sample.image is not None, "a usable sample has an image"
    return (
        sample.key,
        sample.image_sha256,
        sample.image.offset,
        sample.image.length,
        [one.text for one in captions],
        [one.weight for one in captions],
        [one.written_by for one in captions],
    )
