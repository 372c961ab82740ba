"""The decision of one shard, watched: what a preview keeps of it.

`Decider` decides; this takes note of the texts it evaluated and of what it chose. Nothing here
knows how a rule is applied.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from curator.policy.decider import Decider, Group, Inputs, applies, read_decision
from curator.policy.model import Policy, Rule
from curator.policy.preview.values import Bound, Extent
from curator.store import index
from curator.store.facts import CAPTIONS, SCORES, Facts
from curator.store.store import Store
from curator.store.versions import Version

WAY = ("before", "after", "is_changed")
"""The columns that say which way a sample goes."""


class Limit(NamedTuple):
    """One limit of a rule; `limit` is a percentile's value where `percentile` says which."""

    rule: Rule
    bound: Bound
    source: str
    limit: float | None
    percentile: float | None = None


class PreviewDecider(Decider):
    """A decider that keeps the evaluated texts of a shard, and takes facts that are known."""

    def __init__(
        self, store: Store, policy: Policy, inputs: Inputs, known: Callable[[str, str], Facts]
    ) -> None:
        super().__init__(store, policy, inputs)
        self._captions = [(name, known(CAPTIONS, name)) for name, _ in self._captions]
        if self._scores is not None:
            self._scores = known(SCORES, self._scores.maker)
        if self._checks is not None:
            self._checks = known(SCORES, self._checks.maker)
        self._others = {row: known(SCORES, facts.maker) for row, facts in self._others.items()}
        if self._concepts is not None:
            self._concepts = known(SCORES, self._concepts.maker)
        self.evaluated: dict[str, pl.DataFrame] = {}

    def _evaluate(self, group: Group, texts: pl.DataFrame) -> pl.DataFrame:
        (shard,) = group
        evaluated = self.evaluated[shard] = super()._evaluate(group, texts)
        return evaluated

    def limits(self) -> list[Limit]:
        """Every limit of every rule; a percentile is one for each source it was taken in."""
        found: list[Limit] = []
        for rule in self.policy.rule:
            if rule.field == "flags":
                found.append(Limit(rule, "flags", rule.source, None))
            if rule.min is not None:
                found.append(Limit(rule, "min", rule.source, rule.min))
            if rule.max is not None:
                found.append(Limit(rule, "max", rule.source, rule.max))
            if rule.min_percentile is not None:
                found += [
                    Limit(rule, "min", key.partition("@")[2], value, rule.min_percentile)
                    for key, value in self.thresholds.items()
                    if key.partition("@")[0] == rule.name
                ]
        return found

    def beside(self, limit: Limit, texts: pl.DataFrame) -> pl.DataFrame:
        """The texts that a limit is about: what they have (`value`), and whether they are in."""
        rule = limit.rule
        mine = applies(rule)
        if limit.percentile is not None:
            mine &= pl.col("source") == limit.source
        value = pl.lit(None, pl.Float64)
        if rule.field != "flags":
            value = pl.col(self.column(rule)).cast(pl.Float64).fill_nan(None)
        beyond = pl.lit(True)
        if limit.limit is not None:
            beyond = value < limit.limit if limit.bound == "min" else value > limit.limit
        inside = pl.col("failed").is_null()
        outside = (pl.col("failed") == rule.name) & (value.is_null() | beyond)
        return texts.filter(mine & (inside | outside.fill_null(False))).select(
            "row", "source", "text", "flags", value=value, inside=inside
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LinePreview:
    """What one shard has for one limit."""

    num_inside: int
    num_outside: int
    num_missing: int
    examples: pl.DataFrame


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPreview:
    """What is kept of one shard."""

    moves: pl.DataFrame
    examples: pl.DataFrame
    because: pl.DataFrame
    lines: list[LinePreview]
    texts: pl.DataFrame
    texts_before: pl.DataFrame
    num_cut: int


class ShardPreviewer:
    """Decides shard by shard and keeps what a preview shows."""

    def __init__(self, decider: PreviewDecider, against: Version, extent: Extent) -> None:
        self._decider = decider
        self._entries = {entry.name: entry for entry in against.shards}
        self._extent = extent
        self._limits = decider.limits()

    def look(self, shard: str) -> ShardPreview:
        """Decide one shard; several threads may do so at once."""
        decision = self._decider.decide(shard)
        texts = self._decider.evaluated.pop(shard)
        before = self._before(shard, decision)
        order = np.random.default_rng([self._extent.seed, zlib.crc32(shard.encode())])
        heads = _heads(decision, "after").join(_heads(before, "before"), on="row", how="left")
        changed = pl.col("texts_before").ne_missing(pl.col("texts_after")) | pl.col(
            "before"
        ).ne_missing(pl.col("after"))
        heads = heads.with_columns(
            shard=pl.lit(shard),
            is_changed=changed,
            order=pl.Series(order.random(len(heads)), dtype=pl.Float64),
        )
        keys = decision.unique("row").select("row", "key")
        way = list(WAY)
        is_left_out = pl.col("action").is_in(["dropped", "quarantined"])
        is_otherwise = pl.col("because").str.starts_with("no other: ")
        unpicked = decision.filter((pl.col("slot") == 0) & (is_left_out | is_otherwise))
        return ShardPreview(
            moves=heads.group_by(way).len("num_samples"),
            examples=first(heads.filter("is_changed"), way, self._extent.num_examples),
            because=unpicked.group_by("action", "because").len("num_samples"),
            lines=[self._line(shard, limit, texts, keys, order) for limit in self._limits],
            texts=_sums(decision),
            texts_before=_sums(before),
            num_cut=int((~texts["whole"]).sum()),
        )

    def _before(self, shard: str, decision: pl.DataFrame) -> pl.DataFrame:
        """What the version decided for these very bytes; nothing where it has others."""
        entry = self._entries.get(shard)
        store = self._decider.store
        if entry is None or entry.digest != index.shard_facts(store, shard).digest:
            return decision.clear()
        return read_decision(store, entry)

    def _line(
        self,
        shard: str,
        limit: Limit,
        texts: pl.DataFrame,
        keys: pl.DataFrame,
        order: np.random.Generator,
    ) -> LinePreview:
        found = self._decider.beside(limit, texts)
        distance = pl.Series(order.random(len(found)), dtype=pl.Float64)
        if limit.limit is not None:
            distance = (found["value"] - limit.limit).abs()
        found = found.with_columns(shard=pl.lit(shard), order=distance)
        near = first(found.drop_nulls("order"), ["inside"], self._extent.num_examples)
        num_inside = int(found["inside"].sum())
        missing = found.filter(~pl.col("inside") & pl.col("value").is_null())
        return LinePreview(
            num_inside=num_inside,
            num_outside=len(found) - num_inside,
            num_missing=0 if limit.bound == "flags" else len(missing),
            examples=near.join(keys, on="row", how="left"),
        )


def _heads(decision: pl.DataFrame, when: str) -> pl.DataFrame:
    """One row a sample: its action and first text, and the identity of all its texts."""
    names = {"action": when, **{name: f"{name}_{when}" for name in ("text", "score", "because")}}
    whole = decision.group_by("row", maintain_order=True).agg(
        pl.col("key", "action", "text", "score", "because").first(),
        pl.col("text_sha256").drop_nulls().sort().str.join().alias(f"texts_{when}"),
    )
    return whole.rename(names) if when == "after" else whole.drop("key").rename(names)


def first(frame: pl.DataFrame, groups: Sequence[str], count: int) -> pl.DataFrame:
    """The rows with the lowest `order` of every group."""
    ranked = frame.sort("order", "shard", "row", maintain_order=True)
    return ranked.group_by(groups, maintain_order=True).head(count)


def _sums(decision: pl.DataFrame) -> pl.DataFrame:
    texts = decision.filter(pl.col("text").is_not_null())
    scored = texts["score"].cast(pl.Float64)
    scored = scored.filter(scored.is_finite())
    return pl.DataFrame(
        {
            "texts": [len(texts)],
            "words": [int(texts["text"].str.count_matches(r"\S+").sum())],
            "scored": [len(scored)],
            "score": [float(scored.sum())],
        }
    )
