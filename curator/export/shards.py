"""Write one shard of a version as one file of an export, with its counts beside it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from curator.core import hashing
from curator.core.errors import DamageError
from curator.export import open_clip
from curator.export import tables as export_tables
from curator.export.samples import (
    FIELD,
    ExportSample,
    ShardReader,
    TextFiles,
    TextLayout,
    first_text,
    free_field,
    json_bytes,
    samples_of,
)
from curator.policy.decider import read_decision
from curator.shards import objects
from curator.shards.dataset import ShardRef
from curator.shards.digest import short
from curator.shards.places import Place, Remote, is_same, read_small, stamp
from curator.shards.samples import Member
from curator.shards.scan import MAX_STATS_BYTES
from curator.store import index, outputs, parquet
from curator.store.store import Store
from curator.store.versions import ShardEntry, Version

EXPORTED = ("captioned", "kept")
_INDEX_COLUMNS = (
    *("row", "key", "ext", "offset", "length", "image_sha256", "width", "height"),
    *("alt_text", "alt_sha256", "members"),
)

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardJob:
    """One shard to be exported to the file `path`; the options are those of `export`.

    `texts` is how a tar holds the captions. `image_ext` is the extension of every image in a tar;
    None keeps the source's extensions.
    """

    store: Store
    version: Version
    entry: ShardEntry
    ref: ShardRef
    path: Place
    other_members: bool
    preset: str | None
    on_progress: Advance
    texts: TextLayout = first_text
    image_ext: str | None = None

    @property
    def _stats_path(self) -> Place:
        return self.path.with_name(f"{self.path.stem}_stats.json")

    def finished(self) -> dict[str, Any] | None:
        """Return the stats of the shard if an earlier run finished it, else None."""
        data = read_small(self._stats_path, most_bytes=MAX_STATS_BYTES)
        path = self.path
        if isinstance(path, Remote) and data is not None:
            (path,) = objects.stat([path])
        there = stamp(path)
        if data is None or there is None:
            return None
        stats = outputs.parse_json(data, self._stats_path)
        return stats if stats.get("size_bytes") == there.size_bytes else None

    def make(self, writer: Writer) -> dict[str, Any]:
        """Write the file, then its stats.

        Raises:
            DamageError: the shard or the decision differs from the one the version was made from.
        """
        self._check_source()
        rows = self._rows()
        made = writer(self, rows)
        num_samples = rows["row"].n_unique()
        status = {name: self.entry.counts[name] for name in ("dropped", "quarantined")}
        stats = {
            "count": self.entry.num_samples,
            "successes": num_samples,
            "failed_to_download": 0,
            "failed_to_resize": 0,
            "status_dict": {"success": num_samples, **status},
            "num_captions": len(rows),
            "sources": dict(sorted(Counter(rows["source"].to_list()).items())),
            "json_replaced": 0,
            "fields_renamed": 0,
            **made,
        }
        outputs.write_json(self._stats_path, stats)
        return stats

    def _check_source(self) -> None:
        """Check that the shard is the one indexed, and the index the one the decision used."""
        expected = self.entry.digest
        try:
            found = index.check_unchanged(self.store, self.ref).digest
            same = is_same(self.ref.path, found, expected)
        except FileNotFoundError:
            found, same = "gone", False
        if not same:
            raise DamageError(
                f"the shard's digest is {short(found)}, but {self.version.name} was made from "
                f"{short(expected)}",
                where=self.ref.path,
                did="finished shards are kept",
                hint="restore the shard from a backup, or index it and export a new version",
                reason="source.changed",
            )

    def _rows(self) -> pl.DataFrame:
        """Join the decision with the byte offsets: one row per caption, in the order of the shard.

        Raises:
            DamageError: the decision is not the one that the version names.
        """
        path = self.store.root / self.entry.file
        if not path.exists() or hashing.file_sha256(path) != self.entry.file_sha256:
            raise DamageError(
                f"the decision file of {self.version.name} was changed after it was written",
                where=path,
                hint="`curator fsck` lists everything damaged; `curator decide` writes it again",
            )
        decided = read_decision(self.store, self.entry).filter(pl.col("action").is_in(EXPORTED))
        places = index.read(self.store, self.entry.name, _INDEX_COLUMNS)
        joined = decided.join(places, on=["row", "key", "image_sha256"], how="inner")
        rows = joined.sort("row", "slot")
        expected = sum(self.entry.counts[action] for action in EXPORTED)
        found = rows["row"].n_unique()
        if found != expected or len(rows) != len(decided):
            raise DamageError(
                f"{self.version.name} counts {expected} samples, but the file has {found}",
                where=path,
                hint="`curator fsck` lists everything damaged",
            )
        return rows


Writer = Callable[[ShardJob, pl.DataFrame], dict[str, Any]]


def exported_samples(store: Store, entry: ShardEntry) -> Iterator[ExportSample]:
    """Yield the samples that an export of the shard contains, without texts and keys."""
    decided = read_decision(store, entry).filter(pl.col("action").is_in(EXPORTED))
    places = index.read(store, entry.name, ["row", "ext", "offset", "length", "members"])
    for row in places.join(decided, on="row", how="semi").iter_rows(named=True):
        yield ExportSample(
            key="",
            action="",
            image=Member(row["ext"], row["offset"], row["length"]),
            image_sha256="",
            members=tuple(Member(**member) for member in row["members"]),
            texts=(),
        )


def write_tar(job: ShardJob, rows: pl.DataFrame) -> dict[str, Any]:
    """Write a tar of the samples, checking the images against their sha256."""
    counts = {"json_replaced": 0, "fields_renamed": 0}
    counted: Counter[str] = Counter()
    with ShardReader(job.ref.path) as source, outputs.new_file(job.path) as file:
        sink = outputs.TarSink(file)
        for sample in samples_of(rows):
            fields, is_replaced = source.json_fields(sample)
            fields = open_clip.without_text_keys(fields)
            name = free_field(fields)
            counts["json_replaced"] += is_replaced
            counts["fields_renamed"] += name != FIELD
            fields[name] = sample.as_json(job.version.id)
            texts = job.texts(sample, job.version.id)
            counted.update(texts.counted)
            for member, data in _members(sample, fields, texts, source, job):
                sink.add(member, data)
            job.on_progress(1)
        sha256 = sink.finish()
    return {
        "sha256": sha256,
        "size_bytes": sink.size_bytes,
        "counted": dict(sorted(counted.items())),
        **counts,
    }


def _members(
    sample: ExportSample,
    fields: Mapping[str, Any],
    texts: TextFiles,
    source: ShardReader,
    job: ShardJob,
) -> list[tuple[str, bytes]]:
    files = [
        (f"{sample.key}.{job.image_ext or sample.plain_ext}", source.image(sample)),
        (f"{sample.key}.txt", texts.txt.encode()),
        (f"{sample.key}.json", json_bytes({**fields, **texts.fields})),
        *((f"{sample.key}.{ext}", data) for ext, data in texts.members.items()),
    ]
    return [*files, *(source.other_members(sample) if job.other_members else ())]


def write_table(job: ShardJob, rows: pl.DataFrame) -> dict[str, Any]:
    """Write a table of the captions."""
    if job.preset is None:
        table = export_tables.plain_table(rows, shard=job.entry.name)
    else:
        table = export_tables.recap_table(job.store, job.version, rows, path=job.ref.path)
    return _put_table(job, rows, parquet.to_bytes(table))


def write_overlay(job: ShardJob, rows: pl.DataFrame) -> dict[str, Any]:
    """Write a table of the captions that can be laid over other copies of the images."""
    table = export_tables.overlay_table(rows, shard=job.entry.name, path=job.ref.path)
    about = export_tables.overlay_metadata(job.version)
    counted = {name: table.num_rows - table[name].null_count for name in export_tables.FROM_JSON}
    return _put_table(job, rows, parquet.to_bytes(table, about)) | {"counted": counted}


def _put_table(job: ShardJob, rows: pl.DataFrame, data: bytes) -> dict[str, Any]:
    outputs.put(job.path, data)
    job.on_progress(rows["row"].n_unique())
    return {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
