"""Apply the human edits in effect to a base version and commit the result as a new version.

The id depends on the base, the resulting texts and their scores, not on who edited or when:
the same edits and scores on the same base give the same version. An edited text gets the score of
the base's scorer; if that has not scored it, it stays unscored and is counted. Shards without an
applicable edit share the base's decision files. Edits of texts that the base does not contain are
skipped and reported. The version records how many edits of each log it used, so that `curator fsck`
notices when a log loses lines later.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import polars as pl

from curator.core import hashing, package, progress
from curator.core.errors import UsageError
from curator.core.stopping import StopRequest
from curator.edits.apply import HUMAN, Edited, apply_edits
from curator.edits.history import Edit, History, clean_who
from curator.edits.log import edited_shards, history
from curator.policy.decider import read_decision
from curator.scorers import OF_MODELS, is_text_only
from curator.steps.decide import count_actions, sum_texts
from curator.steps.workspace import StoreName, command
from curator.store import fsops, parquet, versions
from curator.store.facts import SCORES, Facts
from curator.store.schemas import DECISION_SCHEMA
from curator.store.store import Store
from curator.store.versions import ShardEntry, Version

SUFFIX = "+edits"
"""Appended to the name of the base's policy."""
LOGS = "edit_logs"
"""Field of a manifest: shard -> number of edits in its log that the version was made from."""


@dataclass(slots=True, kw_only=True)
class Applied:
    """The version, whether it is new, and how many texts each kind of edit changed.

    `num_unscored` counts edited texts that the version's scorer has not scored (`how_to_score`
    returns the commands for that). 0 where no text of the version has a score.
    """

    version: Version
    is_new: bool
    num_edited: int = 0
    num_rejected: int = 0
    num_accepted: int = 0
    num_unscored: int = 0
    stale: list[Edit] = field(default_factory=list)


def apply(store: Store, base: Version, *, who: str, stop: StopRequest) -> Applied:
    """Commit a version that is `base` with the edits in effect applied.

    Raises:
        UsageError: no edit changes a text of `base`; says how many are stale.
        DamageError: a log or a decision file is damaged; nothing was committed.
        ConflictError: `curator gc` is running right now.
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
        num_unscored=work.num_unscored,
        stale=found.stale,
    )


def how_to_score(base: Version, dataset: str, store: StoreName | None = None) -> tuple[str, str]:
    """Return the commands that score edited texts with the scorer of `base` and re-apply them."""
    again = command("edits apply", dataset, store, version=base.name)
    return scoring_command(base, dataset, store), again


def scoring_command(version: Version, dataset: str, store: StoreName | None, *more: str) -> str:
    """Return the command that scores texts without a score with the scorer of a version.

    Of a model folder only the last path component is known: `PATH` stands for its parent.
    """
    recipe = version.makers[version.policy["scores_by"]]
    row = str(recipe["scorer"])
    if "model" not in recipe:
        return command("score", dataset, store, "--scorer", row, *more)
    is_folder = str(recipe.get("revision")).startswith("sha256:")
    model = f"PATH/{recipe['model']}" if is_folder else str(recipe["model"])
    if row != OF_MODELS:
        model = f"{row}={model}"
    if recipe.get("served"):
        more = ("--scorer-url", "URL", *more)
    dtype = ["--dtype", str(recipe["dtype"])] if "dtype" in recipe else []
    return command("score", dataset, store, "--scorer", model, *dtype, *more)


class _Work:
    """The shards of a base version while edits are applied to them."""

    def __init__(self, store: Store, base: Version) -> None:
        self.store = store
        self.base = base
        self.entries = {entry.name: entry for entry in base.shards}
        self.totals = Counter(base.totals)
        self.logs: dict[str, int] = {}
        self.changed: set[str] = set()
        self.found = Edited(parquet.empty(DECISION_SCHEMA))
        self.num_unscored = 0
        scorer = base.policy.get("scores_by")
        is_of_pairs = scorer and not is_text_only(base.makers[scorer])
        self.scores = Facts(store, SCORES, str(scorer)) if is_of_pairs else None

    def apply(self, shard: str) -> None:
        """Apply the edits of one shard and write its decision, if they change it."""
        past = history(self.store, shard)
        self.logs[shard] = len(past.edits)
        entry = self.entries.get(shard)
        before = read_decision(self.store, entry) if entry else self.found.decision
        edited = apply_edits(before, shard, past)
        self.found.num_edited += edited.num_edited
        self.found.num_rejected += edited.num_rejected
        self.found.num_accepted += edited.num_accepted
        self.found.stale += edited.stale
        after = self._scored(edited.decision, shard, past)
        if entry is None or not (edited.is_changed or after is not edited.decision):
            return
        self.changed.add(shard)
        self.entries[shard] = self._write(entry, after)
        self.totals.update(sum_texts(after))
        self.totals.subtract(sum_texts(before))

    def _scored(self, decision: pl.DataFrame, shard: str, past: History) -> pl.DataFrame:
        """Return `decision` with the scores made since; `decision` itself if there are none."""
        texts = decision.filter((pl.col("source") == HUMAN) & pl.col("score").is_null())
        if self.scores is None or texts.is_empty():
            return decision
        known = self.scores.match(texts, ["score", "attempt"])
        unseen = texts.filter(known["attempt"].is_null())
        current = {(sample.row, sample.image_sha256, text) for sample, text in past.written()}
        rows = unseen.select("row", "image_sha256", "text").iter_rows()
        self.num_unscored += sum(row in current for row in rows)
        if not known["score"].count():
            return decision
        new = texts.select("row", "slot", new=known["score"])
        joined = decision.join(new, on=["row", "slot"], how="left", maintain_order="left")
        return joined.with_columns(score=pl.coalesce("score", "new")).drop("new")

    def _write(self, entry: ShardEntry, decision: pl.DataFrame) -> ShardEntry:
        table = parquet.to_table(decision, DECISION_SCHEMA)
        rows_digest = parquet.content_digest(table)
        path = self.store.decision_path(entry.name, rows_digest)
        if not path.exists():
            fsops.write_atomic(path, parquet.to_bytes(table))
        counts = count_actions(decision)
        assert sum(counts.values()) == entry.num_samples, "conservation: one action per sample"
        return replace(
            entry,
            counts=counts,
            rows_digest=rows_digest,
            file=path.relative_to(self.store.root).as_posix(),
            file_sha256=hashing.file_sha256(path),
        )

    def draft(self, who: str) -> Version:
        """Return the version to commit. Its id covers neither `who` nor the lengths of the logs."""
        policy = dict(self.base.policy)
        policy["name"] = str(policy["name"]).removesuffix(SUFFIX) + SUFFIX
        policy["edits_on"] = self.base.id
        shards = tuple(self.entries[entry.name] for entry in self.base.shards)
        return replace(
            self.base,
            number=0,
            created=0.0,
            id=versions.version_id(policy, shards),
            tool_version=package.tool_version(),
            policy=policy,
            totals=dict(self.totals),
            shards=shards,
            extra={LOGS: self.logs, "edits_applied_by": who},
        )


def _nothing_to_do(base: Version, found: Edited) -> UsageError:
    if found.stale:
        return UsageError(
            f"no edit changes a text of {base.name}: {len(found.stale)} are about other texts",
            hint="apply them to the version that they were made on: curator edits apply "
            "DATASET@VERSION",
            reason="edits.stale",
        )
    return UsageError(
        f"no edit changes a text of {base.name}",
        hint="no text was edited or rejected, or all edits are applied already",
        reason="edits.none",
    )
