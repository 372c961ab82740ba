"""Pair one shard of two versions: match samples, look up scores, find what changed.

Samples are matched by key; where a key repeats, the n-th sample with it matches the n-th.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from curator.compare.values import GAINED, LOST, REWORDED, Change, ComparedText
from curator.core.errors import UsageError, nearest
from curator.policy.decider import read_decision
from curator.scorers import is_text_only
from curator.store import index
from curator.store.facts import SCORES, Facts
from curator.store.schemas import DECISION_SCHEMA
from curator.store.store import Store
from curator.store.versions import ShardEntry, Version


class VersionScores:
    """Scores of texts under one scorer, for both versions."""

    def __init__(self, store: Store, old: Version, new: Version, scorer: str | None) -> None:
        known = store.makers(SCORES)
        if scorer is not None and scorer not in known:
            raise UsageError(
                f"no scores by {scorer!r}", hint=nearest(scorer, known), reason="scorer.unknown"
            )
        align = [name for name in known if not is_text_only(store.recipe(SCORES, name))]
        used = [version.policy.get("scores_by") for version in (new, old)]
        only = align if len(align) == 1 else []
        self.scorer = next((name for name in (scorer, *used, *only) if name in known), None)
        self.recipe = store.recipe(SCORES, self.scorer) if self.scorer else {}
        self._own = [version.policy.get("scores_by") == self.scorer for version in (old, new)]
        self._facts = Facts(store, SCORES, self.scorer) if self.scorer else None

    def add_to(self, decision: pl.DataFrame, *, is_new: bool) -> pl.DataFrame:
        """Return the decision with the scores of this scorer in its column `score`."""
        if self._facts is None:
            return _unscored(decision)
        score = self._facts.match(decision, ["score"])["score"].fill_nan(None)
        if self._own[is_new]:
            score = score.zip_with(score.is_not_null(), decision["score"].fill_nan(None))
        return decision.with_columns(score=score)


class ShardPair:
    """The decisions of two versions for one shard; one of them may be missing.

    `old` and `new` are decisions with a column `score`, null where `scores` is None.
    `samples` has one row per sample of either version: key, nth, alt_text, and with the suffix _old
    or _new: row, action, because, image_sha256, text_sha256 and score (of the first text) and texts
    (the identity of the set of texts); then `kind` (null if nothing changed or the sample is in one
    version only) and `gain`.
    """

    def __init__(
        self,
        store: Store,
        scores: VersionScores | None,
        shard: str,
        *,
        old: ShardEntry | None,
        new: ShardEntry | None,
    ) -> None:
        self.shard = shard
        self.old, self.new = _decision(store, old), _decision(store, new)
        if scores is None:
            self.old, self.new = map(_unscored, (self.old, self.new))
        else:
            self.old = scores.add_to(self.old, is_new=False)
            self.new = scores.add_to(self.new, is_new=True)
        both = _heads(self.old, "_old").join(
            _heads(self.new, "_new"), on=["key", "nth"], how="full", coalesce=True, nulls_equal=True
        )
        alts = _numbered(index.read(store, shard, ["key", "alt_text"]))
        same = pl.col("texts_old").eq_missing(pl.col("texts_new"))
        kinds = (
            pl.when(pl.col("row_old").is_null() | pl.col("row_new").is_null() | same)
            .then(None)
            .when(pl.col("texts_old").is_null())
            .then(pl.lit(GAINED))
            .when(pl.col("texts_new").is_null())
            .then(pl.lit(LOST))
            .otherwise(pl.lit(REWORDED))
        )
        self.samples = (
            both.join(alts, on=["key", "nth"], how="left", nulls_equal=True)
            .with_columns(kind=kinds, gain=pl.col("score_new") - pl.col("score_old"))
            .sort("row_new", "row_old", nulls_last=True)
        )

    @property
    def changed(self) -> pl.DataFrame:
        """Return the samples in both versions whose texts changed."""
        return self.samples.filter(pl.col("kind").is_not_null())

    def examples(self, samples: pl.DataFrame) -> Iterator[Change]:
        """Yield rows of `samples` with their texts."""
        old = texts_of(self.old, samples["row_old"])
        new = texts_of(self.new, samples["row_new"])
        for row in samples.iter_rows(named=True):
            yield Change(
                shard=self.shard,
                row=row["row_new"],
                key=row["key"],
                image_sha256=row["image_sha256_new"],
                kind=row["kind"],
                old_action=row["action_old"],
                new_action=row["action_new"],
                because=row["because_new"],
                alt_text=row["alt_text"],
                old=old.get(row["row_old"], ()),
                new=new.get(row["row_new"], ()),
                gain=row["gain"],
            )


def texts_of(decision: pl.DataFrame, rows: pl.Series) -> dict[int, tuple[ComparedText, ...]]:
    """Return the chosen texts of each row, slot 0 first."""
    wanted = decision.filter(
        pl.col("text").is_not_null() & pl.col("row").is_in(rows.drop_nulls().implode())
    ).sort("row", "slot")
    found: dict[int, tuple[ComparedText, ...]] = {}
    for row, text, source, score in wanted.select("row", "text", "source", "score").iter_rows():
        chosen = ComparedText(text=text, source=source, score=score)
        found[row] = (*found.get(row, ()), chosen)
    return found


def _decision(store: Store, entry: ShardEntry | None) -> pl.DataFrame:
    if entry is not None:
        return read_decision(store, entry)
    empty = pl.from_arrow(DECISION_SCHEMA.empty_table())
    assert isinstance(empty, pl.DataFrame)
    return empty


def _unscored(decision: pl.DataFrame) -> pl.DataFrame:
    return decision.with_columns(score=pl.lit(None, pl.Float32))


def _numbered(frame: pl.DataFrame) -> pl.DataFrame:
    """Add `nth`: 0 for the first row with its key, 1 for the next."""
    return frame.with_columns(nth=pl.int_range(pl.len()).over("key"))


def _heads(decision: pl.DataFrame, suffix: str) -> pl.DataFrame:
    """Reduce a decision to one row per sample: its first text, and the set of all its texts."""
    heads = decision.filter(pl.col("slot") == 0).sort("row")
    sets = (
        decision.drop_nulls("text_sha256")
        .group_by("row")
        .agg(texts=pl.col("text_sha256").unique().sort().str.join(" "))
    )
    columns = ["row", "image_sha256", "text_sha256", "action", "because", "score", "texts"]
    joined = _numbered(heads).join(sets, on="row", how="left", maintain_order="left")
    return joined.select("key", "nth", pl.col(columns).name.suffix(suffix))
