"""apply-edits: a new version from a base version and the human edits that are in effect.

The id depends on the base and on the texts that come out, not on who edited when: the same edits on
the same base are the same version. Shards without an applicable edit share the base's decision
files. Edits whose text the base does not hold are left out and named. How far each log was read is
noted in the version, so that `curator fsck` notices when a log loses lines afterwards.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import polars as pl

from curator import fsops, index, progress, tables, versions
from curator.decide import DECISION_SCHEMA, read_decision
from curator.edited import Edited, apply_edits
from curator.edithistory import Edit, clean_who
from curator.edits import edited_shards, history
from curator.errors import UsageError
from curator.steps.decide import count_actions, sum_texts
from curator.stopping import StopRequest
from curator.store import Store
from curator.versions import ShardEntry, Version

SUFFIX = "+edits"
"""Behind the name of the base's policy."""
LOGS = "edit_logs"
"""Field of a manifest: shard -> edits in its log that the version was made from."""


@dataclass(slots=True, kw_only=True)
class Applied:
    """The version, whether it is new, and what became of the edits, counted in texts."""

    version: Version
    is_new: bool
    num_edited: int = 0
    num_rejected: int = 0
    num_accepted: int = 0
    stale: list[Edit] = field(default_factory=list)


def apply(store: Store, base: Version, *, who: str, stop: StopRequest) -> Applied:
    """Commit a version that is `base` with the edits in effect in place.

    Raises:
        UsageError: no edit changes a text of `base`; says how many are stale.
        DamageError: a log or a decision is not what was written; nothing was committed.
        ConflictError: unnamed files are being collected right now.
    """
    who = clean_who(who)
    with store.deciding():
        work = _Work(store, base)
        shards = edited_shards(store)
        with progress.bar("apply edits", len(shards), "shards") as advance:
            for shard in shards:
                work.apply(shard)
                stop.check("nothing was committed; all edits are kept")
                advance(1)
        if not work.changed:
            raise _nothing_to_do(base, work.found)
        version, is_new = store.commit(work.draft(who))
    found = work.found
    return Applied(
        version=version,
        is_new=is_new,
        num_edited=found.num_edited,
        num_rejected=found.num_rejected,
        num_accepted=found.num_accepted,
        stale=found.stale,
    )


class _Work:
    """The shards of a base version while edits go into them."""

    def __init__(self, store: Store, base: Version) -> None:
        self.store = store
        self.base = base
        self.entries = {entry.name: entry for entry in base.shards}
        self.totals = Counter(base.totals)
        self.logs: dict[str, int] = {}
        self.changed: set[str] = set()
        self.found = Edited(tables.empty(DECISION_SCHEMA))

    def apply(self, shard: str) -> None:
        """Put the edits of one shard in place and write its decision, if that changes it."""
        past = history(self.store, shard)
        self.logs[shard] = len(past.edits)
        entry = self.entries.get(shard)
        before = read_decision(self.store, entry) if entry else self.found.decision
        edited = apply_edits(before, shard, past)
        self.found.num_edited += edited.num_edited
        self.found.num_rejected += edited.num_rejected
        self.found.num_accepted += edited.num_accepted
        self.found.stale += edited.stale
        if entry is None or not edited.is_changed:
            return
        self.changed.add(shard)
        self.entries[shard] = self._write(entry, edited.decision)
        self.totals.update(sum_texts(edited.decision))
        self.totals.subtract(sum_texts(before))

    def _write(self, entry: ShardEntry, decision: pl.DataFrame) -> ShardEntry:
        table = tables.to_table(decision, DECISION_SCHEMA)
        rows_digest = tables.content_digest(table)
        path = self.store.decision_path(entry.name, rows_digest)
        if not path.exists():
            fsops.write_atomic(path, tables.to_bytes(table))
        counts = count_actions(decision)
        assert sum(counts.values()) == entry.num_samples, "conservation: one action a sample"
        return replace(
            entry,
            counts=counts,
            rows_digest=rows_digest,
            file=path.relative_to(self.store.root).as_posix(),
            file_sha256=index.file_sha256(path),
        )

    def draft(self, who: str) -> Version:
        """The version to commit. Who made it and how far the logs went are not in its id."""
        policy = dict(self.base.policy)
        policy["name"] = str(policy["name"]).removesuffix(SUFFIX) + SUFFIX
        policy["edits_on"] = self.base.id
        shards = tuple(self.entries[entry.name] for entry in self.base.shards)
        return replace(
            self.base,
            number=0,
            id=versions.version_id(policy, shards),
            tool_version=versions.tool_version(),
            policy=policy,
            totals=dict(self.totals),
            shards=shards,
            extra={LOGS: self.logs, "edits_applied_by": who},
        )


def _nothing_to_do(base: Version, found: Edited) -> UsageError:
    if found.stale:
        return UsageError(
            f"no edit changes a text of {base.name}: {len(found.stale)} are about other texts",
            hint="apply them to the version that they were made on: DATASET@VERSION",
            reason="edits.stale",
        )
    return UsageError(
        f"no edit changes a text of {base.name}",
        hint="nobody edited or rejected one, or every edit is in place already",
        reason="edits.none",
    )
