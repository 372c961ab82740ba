"""Index of a shard: one row per sample, usable or not, and the problems of the tar.

An index is derived only from the shard's bytes. It is current while the shard has the size and
mtime of the scan (an object: size and etag); if only the mtime or etag changed, the hash decides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from curator.core.errors import DamageError, NotFoundError
from curator.core.hashing import canonical_json, text_sha256
from curator.shards import places
from curator.shards.dataset import ShardRef
from curator.shards.digest import short
from curator.shards.places import Stamp
from curator.shards.scan import ScanOptions, ShardScan
from curator.store import parquet
from curator.store.schemas import INDEX_SCHEMA
from curator.store.store import Store

RULES = 2
"""Raised when the same bytes get another meaning: an index with older rules is rebuilt.

2: every key that can be exported is usable, and `KEY.url.txt` is not an alt text.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFacts:
    """Facts about a whole shard. `problems` are its damages (reason, detail, ...).

    `digest` is that of the shard (`curator.shards.digest`), `rows_digest` covers the content of the
    index. `alt_texts` are the fields of
    `alttext_counts.AltTexts`, empty in an index of rules 1. `etag` is that of an object, empty for
    a file.
    """

    shard: str
    digest: str
    size_bytes: int
    mtime_ns: int
    num_samples: int
    num_unusable: int
    ignored_members: int
    options: Mapping[str, Any]
    problems: Sequence[Mapping[str, Any]]
    rows_digest: str
    rules: int = RULES
    alt_texts: Mapping[str, Any] = field(default_factory=dict)
    etag: str = ""

    @property
    def stamp(self) -> Stamp:
        """What told, when the shard was indexed, whether it is the same."""
        return Stamp(self.size_bytes, self.mtime_ns, self.etag)


def write(store: Store, ref: ShardRef, scan: ShardScan, options: ScanOptions) -> ShardFacts:
    """Write the index of one shard."""
    rows = [
        {
            "row": sample.row,
            "key": sample.key,
            "ext": sample.image.ext if sample.image else None,
            "offset": sample.image.offset if sample.image else None,
            "length": sample.image.length if sample.image else None,
            "image_sha256": sample.image_sha256,
            "width": sample.width,
            "height": sample.height,
            "image_format": sample.image_format,
            "alt_text": sample.alt_text,
            "alt_sha256": text_sha256(sample.alt_text) if sample.alt_text else None,
            "alt_raw": sample.alt_raw,
            "flags": list(sample.flags),
            # Not `asdict`: it copies every value, and took as long as all else here.
            "members": [
                {"ext": one.ext, "offset": one.offset, "length": one.length}
                for one in sample.members
            ],
            "reason": sample.reason,
            "detail": sample.detail,
        }
        for sample in scan.samples
    ]
    table = parquet.to_table(parquet.from_rows(rows, INDEX_SCHEMA), INDEX_SCHEMA)
    facts = ShardFacts(
        shard=ref.name,
        digest=scan.digest,
        size_bytes=scan.size_bytes,
        mtime_ns=_stamp(ref).mtime_ns,
        num_samples=len(scan.samples),
        num_unusable=sum(sample.reason is not None for sample in scan.samples),
        ignored_members=scan.num_unsafe,
        options=asdict(options),
        problems=[asdict(problem) for problem in scan.problems],
        rows_digest=parquet.content_digest(table),
        alt_texts=asdict(scan.alt_texts),
        etag=_stamp(ref).etag,
    )
    parquet.write(store.index_path(ref.name), table, canonical_json(asdict(facts)))
    return facts


def read(
    store: Store, shard: str, columns: Sequence[str] | None = None, *, use_threads: bool = True
) -> pl.DataFrame:
    """Read the rows of a shard's index, in tar order."""
    path = _existing(store, shard)
    return parquet.read(path, INDEX_SCHEMA, columns, use_threads=use_threads)


def shard_facts(store: Store, shard: str) -> ShardFacts:
    """Read what the index says about the shard as a whole."""
    path = _existing(store, shard)
    try:
        sealed = parquet.read_sealed(path)
        is_first = sealed.startswith(b"{")
        known = json.loads(sealed if is_first else parquet.check_sealed(sealed, path))
        if "sha256" in known:  # its name until December 2026
            known["digest"] = known.pop("sha256")
        return ShardFacts(**{"rules": 1, "rows_digest": "", **known})
    except (ValueError, TypeError) as error:
        raise DamageError("the index header is unreadable", where=path) from error


def is_first_form(path: Path) -> bool:
    """Whether an index predates the checksum in its header; it is then rebuilt from the shard."""
    try:
        return bool(parquet.read_sealed(path).startswith(b"{"))
    except DamageError:
        return False


def current(store: Store, ref: ShardRef, options: ScanOptions) -> ShardFacts | None:
    """Return the stored index if the same bytes and options would give it again, else None."""
    path = store.index_path(ref.name)
    if not path.exists() or is_first_form(path):
        return None
    facts = shard_facts(store, ref.name)
    same = json.loads(canonical_json(asdict(options))) == facts.options
    if not same or facts.rules != RULES:
        return None
    found = _stamp(ref)
    if found.size_bytes != facts.size_bytes:
        return None
    if found.is_same(facts.stamp):
        return facts
    if not places.has_digest(ref.path, facts.digest):
        return None
    moved = replace(facts, mtime_ns=found.mtime_ns, etag=found.etag)
    table = parquet.to_table(read(store, ref.name), INDEX_SCHEMA)
    parquet.write(path, table, canonical_json(asdict(moved)))
    return moved


def check_unchanged(store: Store, ref: ShardRef) -> ShardFacts:
    """Check that a shard has not changed since it was indexed.

    Raises:
        DamageError: reason `source.changed`.
    """
    facts = shard_facts(store, ref.name)
    found = _stamp(ref)
    same = found.size_bytes == facts.size_bytes and (
        found.is_same(facts.stamp) or places.has_digest(ref.path, facts.digest)
    )
    if not same:
        raise DamageError(
            f"the shard changed since it was indexed (its digest was {short(facts.digest)})",
            where=ref.path,
            did="stopped; no partial result is visible, and facts stay valid",
            hint="run the same command again once nothing writes to it",
            reason="source.changed",
        )
    return facts


def _stamp(ref: ShardRef) -> Stamp:
    """Return the stamp of a shard; zeros for a missing one."""
    return places.stamp(ref.path) or Stamp(0, 0)


def _existing(store: Store, shard: str) -> Path:
    path = store.index_path(shard)
    if not path.exists():
        raise NotFoundError(
            f"shard {shard!r} is not indexed",
            where=store.root,
            hint="run `curator index` on the shards first",
            reason="index.none",
        )
    return path
