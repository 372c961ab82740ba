"""Versions: one decision over a list of shards, as a value and as canonical JSON.

The id is a digest of what was decided, over which shards, by which policy, and not of when, where
or by whom. The same shards, facts and policy give the same id on every machine.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from curator.core.errors import DamageError, FormatError, UsageError
from curator.core.hashing import canonical_json, digest

if TYPE_CHECKING:  # a query reads versions, and loads nothing for shards
    from curator.shards.dataset import ShardRef

FORMAT = 1
"""Format of store.json and of the manifests; a higher one comes from a newer tool."""

STORE_TOOL = "caption-curator"
"""What store.json names as the tool that made the store."""

ACTIONS = ("captioned", "kept", "dropped", "quarantined")
"""Possible outcomes of a sample; every sample of a shard has exactly one (conservation)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardEntry:
    """One shard in a version: its source bytes and the decision file made for them.

    `digest` is that of the shard (`curator.shards.digest`), `rows_digest` covers the decision's
    content, `file_sha256` the bytes of its Parquet file. `counts` has one entry per action of
    `ACTIONS`, in samples; they sum to `num_samples`.
    """

    name: str
    digest: str
    num_samples: int
    counts: Mapping[str, int]
    rows_digest: str
    file: str
    file_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """The manifest of one version. `parent` is the id of version `number - 1`.

    `thresholds` are the values of the policy's percentile rules on this dataset; `makers` maps each
    generator and scorer used to its recipe; `totals` are sums over all shards. `extra` holds
    unknown fields of the file, so that they are preserved.
    """

    number: int
    id: str
    parent: str | None
    created: float
    tool_version: str
    policy: Mapping[str, Any]
    thresholds: Mapping[str, float]
    makers: Mapping[str, Mapping[str, Any]]
    totals: Mapping[str, float]
    shards: tuple[ShardEntry, ...]
    format: int = FORMAT
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the name that people use: v1, v2, ..."""
        return f"v{self.number}"

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of samples per action, over all shards."""
        return {
            action: sum(shard.counts.get(action, 0) for shard in self.shards) for action in ACTIONS
        }

    @property
    def num_samples(self) -> int:
        """Return the number of samples in the shards, used or not."""
        return sum(shard.num_samples for shard in self.shards)


def version_id(policy: Mapping[str, Any], shards: Sequence[ShardEntry]) -> str:
    """Return the content identity of a decision (hex SHA-256)."""
    return digest(
        {
            "format": FORMAT,
            "policy": policy,
            "shards": [[shard.name, shard.digest, shard.rows_digest] for shard in shards],
        }
    )


def to_json(version: Version) -> bytes:
    """Return the manifest file: canonical JSON with its own checksum."""
    body = asdict(version)
    body.update(body.pop("extra"))
    return canonical_json({"sha256": digest(body), "manifest": body}) + b"\n"


def from_json(data: bytes, where: object) -> Version:
    """Parse a manifest.

    Raises:
        FormatError: it was written by a newer tool.
        DamageError: it is not complete JSON, or its checksum does not match.
    """
    try:
        outer = json.loads(data)
        body, expected = dict(outer["manifest"]), outer["sha256"]
    except (ValueError, TypeError, KeyError) as error:
        raise DamageError(
            f"the manifest is unreadable ({error})",
            where=where,
            hint="restore the file from a backup; `curator fsck` lists everything damaged",
            reason="manifest.damaged",
        ) from error
    if body.get("format", 0) > FORMAT:
        raise FormatError(
            f"format {body['format']} is newer than this tool supports ({FORMAT})",
            where=where,
            hint="upgrade caption-curator",
        )
    found = digest(body)
    if found != expected:
        raise DamageError(
            f"checksum is {found[:12]}, expected {expected[:12]}",
            where=where,
            hint="restore the file from a backup; `curator fsck` lists everything damaged",
            reason="manifest.damaged",
        )
    known = {f.name for f in fields(Version)}
    extra = {key: body.pop(key) for key in list(body) if key not in known}
    try:
        shards = tuple(map(_entry, body.pop("shards")))
        return Version(**body, shards=shards, extra=extra)
    except (TypeError, KeyError) as error:
        raise DamageError(
            f"the manifest has other fields than format {FORMAT} ({error})",
            where=where,
            reason="manifest.damaged",
        ) from error


def _entry(fields: dict[str, Any]) -> ShardEntry:
    if "sha256" in fields:  # the name of `digest` until December 2026
        fields["digest"] = fields.pop("sha256")
    return ShardEntry(**fields)


def missing_shards(version: Version, there: Collection[str]) -> list[str]:
    """Return the shards of a version whose names are not in `there`."""
    return [entry.name for entry in version.shards if entry.name not in there]


def shards_of(version: Version, refs: Sequence[ShardRef]) -> dict[str, ShardRef]:
    """Return name -> shard for all shards of a version, in its order.

    Raises:
        UsageError: `refs` lack a shard (shard.unknown).
    """
    known = {ref.name: ref for ref in refs}
    if missing := missing_shards(version, known):
        raise UsageError(
            f"{len(missing):,} of {len(version.shards):,} shards of {version.name} are not in the "
            f"dataset, first {missing[0]!r}",
            hint="name the dataset that the version was made from",
            reason="shard.unknown",
        )
    return {entry.name: known[entry.name] for entry in version.shards}
