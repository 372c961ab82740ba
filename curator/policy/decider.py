"""Apply a policy to facts and decide which text(s) each sample gets, and why. Loads no model.

Works on whole columns of a shard, or of a group of small ones, and needs memory for those;
percentile thresholds take one pass first (12 bytes per text), duplicate rules another (12 bytes per
sample). Within a group rows are counted on from shard to shard, so that each sample has its own.

Every sample of a shard gets exactly one action. `because` is the reason code of a quarantined
sample, the names of the failed rules of a dropped one, and otherwise how the text was chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock

import numpy as np
import polars as pl

from curator.core.hashing import text_sha256
from curator.policy.candidates import (
    alt_texts,
    count_copies,
    find_failures,
    generated,
    has_alt_text,
    number_in_rows,
    scores_by_source,
    set_quantile,
    whole_first,
)
from curator.policy.fields import field_of, with_fields
from curator.policy.model import ALT_TEXT, GENERATED, Policy, Rule
from curator.scorers.concepts import FIELD_PREFIX
from curator.store import index, parquet
from curator.store.facts import CAPTIONS, SCORES, Facts
from curator.store.schemas import DECISION_SCHEMA
from curator.store.store import Store
from curator.store.versions import ShardEntry

_SAMPLE_COLUMNS = (
    *("row", "key", "image_sha256", "width", "height"),
    *("alt_text", "alt_sha256", "reason"),
)
_IMAGE_COLUMNS = ("row", "image_sha256", "width", "height")
SHARDS_AT_ONCE = 4
"""Threads, each on one group of shards: reading and joining release the GIL. Four are faster than
two on two cores, since each waits for the others between its steps."""

Group = tuple[str, ...]
"""Names of shards that are decided together."""

NOT_GENERATED = "not_generated"
NO_TEXT = "no_text"
CUT = "cut at the token limit"
"""Ends `because` of a text that stops in mid-sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Facts that a policy is applied to: makers by name, generators in order of preference."""

    shards: tuple[str, ...]
    generators: tuple[str, ...] = ()
    scorer: str | None = None
    checker: str | None = None
    others: Mapping[str, str] = field(default_factory=dict)  # scorer of a rule -> its maker
    concepts: str | None = None  # scorer of the words of concepts


class Decider:
    """Applies one policy to the facts of one store.

    `groups` are the shards of `inputs`, in order, as they will be decided; default: one by one.
    """

    def __init__(
        self,
        store: Store,
        policy: Policy,
        inputs: Inputs,
        groups: Sequence[Group] | None = None,
    ) -> None:
        self.store = store
        self.policy = policy
        self.inputs = inputs
        self._groups = groups or [(shard,) for shard in inputs.shards]
        self._captions = [
            (name, Facts(store, CAPTIONS, name))
            for name in inputs.generators
            if policy.needs_generated
        ]
        self.num_unscored = 0
        self._counting = Lock()
        self._scored: dict[Group, pl.DataFrame] = {}  # score and failure, text by text
        self._scores = Facts(store, SCORES, inputs.scorer) if inputs.scorer else None
        self._others = {row: Facts(store, SCORES, name) for row, name in inputs.others.items()}
        self._checks = (
            Facts(store, SCORES, inputs.checker) if inputs.checker and policy.needs_flags else None
        )
        self._concepts = (
            Facts(store, SCORES, inputs.concepts) if inputs.concepts and policy.concepts else None
        )

    def prepare(self) -> None:
        """Read what all shards share; afterwards `decide` may run in several threads."""
        self._find_facts()
        _ = self.thresholds
        if self.policy.needs_copies:
            _ = self._copies

    def _find_facts(self) -> None:
        """Find the existing facts; not thread-safe."""
        of_captions = (facts for _, facts in self._captions)
        shared = (self._scores, self._checks, self._concepts, *self._others.values())
        for facts in (*of_captions, *shared):
            if facts is not None:
                facts.files()

    # -- thresholds -----------------------------------------------------------------------------

    @cached_property
    def thresholds(self) -> dict[str, float]:
        """Return the values of the percentile limits: `<rule>@<source>` -> score.

        The score at percentile p is the smallest with at least p % of the scores below it, so
        `min_percentile = 70` keeps the best 30 %.
        """
        wanted = [rule for rule in self.policy.rule if rule.min_percentile is not None]
        surgery = self.policy.surgery
        by_sentence = surgery is not None and surgery.min_percentile is not None
        if not wanted and not by_sentence:
            return {}
        scores: dict[tuple[str, str], list[np.ndarray]] = {}
        sentences: dict[str, list[np.ndarray]] = {}
        self._find_facts()
        with ThreadPoolExecutor(SHARDS_AT_ONCE) as pool:
            for found in pool.map(self._score_first, self._groups):
                for (column, source), (of_texts, of_sentences) in found.items():
                    scores.setdefault((column, source), []).append(of_texts)
                    if column == "score":
                        sentences.setdefault(source, []).append(of_sentences)
        limits: dict[str, float] = {}
        for rule in wanted:
            for (column, source), arrays in scores.items():
                is_of = rule.source in ("any", source if source == ALT_TEXT else GENERATED)
                if is_of and column == self.column(rule):
                    set_quantile(limits, f"{rule.name}@{source}", arrays, rule.min_percentile)
        if surgery is not None and by_sentence:
            for source, arrays in sentences.items():
                set_quantile(limits, f"surgery@{source}", arrays, surgery.min_percentile)
        return limits

    def _score_first(self, group: Group) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
        """Return the scores of a group by column and source; kept for `decide` if small."""
        texts = self._texts(group, *self._inputs(group))
        others = [_column_of(row) for row in self._others]
        if self.policy.surgery is None:
            kept = texts.select("score", pl.col("failure").cast(pl.Categorical), *others)
            self._scored[group] = kept
        return {
            (column, source): found
            for column in ("score", *others)
            for source, found in scores_by_source(texts, column).items()
        }

    def column(self, rule: Rule) -> str:
        """Return the column of the values that a rule is about."""
        other = self.policy.other_scorer(rule)
        return rule.field if other is None else _column_of(other)

    @cached_property
    def _copies(self) -> dict[Group, pl.DataFrame]:
        """Return group -> row, copies, copy_number, from 64-bit keys of all images."""
        frames = [self._samples(group, ("row", "image_sha256")) for group in self._groups]
        return dict(zip(self._groups, count_copies(frames), strict=True))

    # -- texts ----------------------------------------------------------------------------------

    def _samples(self, group: Group, columns: Sequence[str]) -> pl.DataFrame:
        """Return the index of a group; `row` goes on, `place` is the shard's place in the group."""
        frames, num_rows = [], 0
        for place, shard in enumerate(group):
            frame = index.read(self.store, shard, columns, use_threads=False)
            place_of = pl.lit(place, pl.Int32).alias("place")
            frames.append(frame.with_columns(pl.col("row") + num_rows, place_of))
            num_rows += len(frame)
        return pl.concat(frames)

    def _inputs(self, group: Group) -> tuple[pl.DataFrame, dict[str, pl.DataFrame]]:
        """Return the samples of a group, and each generator's captions of the usable ones."""
        samples = self._samples(group, _SAMPLE_COLUMNS)
        usable = samples.filter(pl.col("reason").is_null()).select(_IMAGE_COLUMNS)
        made = {
            name: facts.candidates(usable, ["text", "text_sha256", "finish_reason", "failure"])
            for name, facts in self._captions
        }
        return samples, made

    def _texts(
        self, group: Group, samples: pl.DataFrame, made: Mapping[str, pl.DataFrame]
    ) -> pl.DataFrame:
        """Return all competing texts of a group with their scores, in order of preference."""
        usable = samples.filter(pl.col("reason").is_null())
        parts = []
        for source in self.policy.sources:
            if source == ALT_TEXT:
                parts.append(alt_texts(usable))
            else:
                parts.extend(generated(name, frame) for name, frame in made.items())
        texts = (pl.concat(parts) if parts else alt_texts(usable).clear()).with_row_index("rank")
        if self.policy.needs_alt_text:
            beside = usable.select("row", "alt_text")
            texts = texts.join(beside, on="row", how="left", maintain_order="left")
        if (scored := self._scored.pop(group, None)) is not None:
            scored = scored.cast({"failure": pl.String})
            return pl.concat([texts, scored], how="horizontal")
        return self._with_scores(texts)

    def _with_scores(self, texts: pl.DataFrame) -> pl.DataFrame:
        names = ["score", "failure", *(["sentences"] if self.policy.surgery else [])]
        if self._scores is None:
            empty = Facts(self.store, SCORES, "none").empty(names)
            nothing = [pl.lit(None, t).alias(n) for n, t in empty.schema.items()]
            own = texts.with_columns(nothing).select(empty.columns)
        else:
            own = self._scores.match(texts, names)
        others = [
            facts.match(texts, ["score"]).rename({"score": _column_of(row)})
            for row, facts in self._others.items()
        ]
        return pl.concat([texts, own, *others], how="horizontal")

    def _with_flags(self, texts: pl.DataFrame) -> pl.DataFrame:
        if self._checks is None:
            return texts.with_columns(flags=pl.lit(None, pl.List(pl.String)))
        wanted = texts.select(pl.lit("").alias("image_sha256"), "text_sha256")
        return texts.with_columns(self._checks.match(wanted, ["flags"]))

    def _with_concepts(self, texts: pl.DataFrame) -> pl.DataFrame:
        """Add a column for each concept: the highest score of its words with the image."""
        for name, wordings in self.policy.concepts.items():
            parts = [pl.lit(None, pl.Float32)]
            if self._concepts is not None:
                asked = [
                    texts.select("image_sha256", text_sha256=pl.lit(text_sha256(words)))
                    for words in wordings
                ]
                parts += [pl.lit(self._concepts.match(one, ["score"])["score"]) for one in asked]
            texts = texts.with_columns(pl.max_horizontal(parts).alias(FIELD_PREFIX + name))
        return texts

    def _operate(self, texts: pl.DataFrame) -> pl.DataFrame:
        """Apply sentence surgery: texts of several sentences lose those below the limit."""
        surgery = self.policy.surgery
        kept_all = pl.lit(True).alias("whole")
        if surgery is None:
            return texts.with_columns(kept_all)
        long = texts.filter(pl.col("sentences").list.len() > 1)
        limit: pl.Expr = pl.lit(surgery.min_score, pl.Float32)
        if surgery.min_percentile is not None:
            limit = self._limit_of("surgery")
        pieces = (
            long.select("rank", "source", "text", "sentences")
            .explode("sentences")
            .unnest("sentences")
            .with_columns(good=pl.col("score") >= limit)
            .with_columns(piece=pl.col("text").str.slice("start", pl.col("end") - pl.col("start")))
        )
        operated = pieces.group_by("rank", maintain_order=True).agg(
            whole=pl.col("good").all(),
            new_text=pl.col("piece").filter("good").str.strip_chars().str.join(" "),
            new_score=pl.col("score").filter("good").mean(),
        )
        joined = texts.join(operated, on="rank", how="left", maintain_order="left")
        cut = pl.col("whole").is_not_null() & ~pl.col("whole")
        joined = joined.with_columns(
            text=pl.when(cut).then("new_text").otherwise("text"),
            score=pl.when(cut).then("new_score").otherwise("score"),
            whole=~cut,
        )
        changed = joined.filter(~pl.col("whole"))["text"].to_list()
        digests = pl.Series([text_sha256(text) for text in changed], dtype=pl.String)
        fixed = joined.filter(~pl.col("whole")).with_columns(text_sha256=digests)
        return pl.concat([joined.filter("whole"), fixed]).sort("rank").drop("new_text", "new_score")

    def _limit_of(self, name: str) -> pl.Expr:
        limits = {
            key.partition("@")[2]: value
            for key, value in self.thresholds.items()
            if key.partition("@")[0] == name
        }
        return pl.col("source").replace_strict(limits, default=None, return_dtype=pl.Float32)

    # -- rules ----------------------------------------------------------------------------------

    def _evaluate(self, group: Group, texts: pl.DataFrame) -> pl.DataFrame:
        """Add `failed`: the name of the first rule that a text fails, or null."""
        texts = self._operate(self._with_concepts(self._with_flags(texts)))
        if self.policy.needs_copies:
            texts = texts.join(self._copies[group], on="row", how="left", maintain_order="left")
        texts = with_fields(texts, (rule.field for rule in self.policy.rule))
        verdicts = [
            pl.when(
                applies(rule) & ~passes(rule, self._limit_of(rule.name), self.column(rule))
            ).then(pl.lit(rule.name))
            for rule in self.policy.rule
        ]
        nothing_left = pl.when(pl.col("text") == "").then(pl.lit("surgery"))
        return texts.with_columns(failed=pl.coalesce(nothing_left, *verdicts))

    # -- choice ---------------------------------------------------------------------------------

    def decide(self, shard: str) -> pl.DataFrame:
        """Return the decision for one shard, with the columns and row order of DECISION_SCHEMA."""
        return self.decide_group((shard,))[0]

    def decide_group(self, group: Group) -> list[pl.DataFrame]:
        """Return the decision for each shard of a group, as `decide`."""
        samples, made = self._inputs(group)
        texts = self._evaluate(group, self._texts(group, samples, made))
        if self.policy.needs_score:
            with self._counting:
                self.num_unscored += texts["score"].null_count()
        failures = find_failures(samples, texts, made)
        bad_images = failures.filter(pl.col("failure").str.starts_with("image."))["row"]
        is_bad = pl.col("row").is_in(bad_images.implode())
        chosen = self._choose(texts.filter(pl.col("failed").is_null() & ~is_bad))
        rest = samples.join(chosen.select("row"), on="row", how="anti")
        unchosen = self._explain(rest, texts, failures)
        columns = [name for name in DECISION_SCHEMA.names if name not in ("key", "image_sha256")]
        rows = pl.concat([chosen.select(columns), unchosen.select(columns)])
        decided = rows.sort("row", maintain_order=True)  # the texts of a row are sorted by slot
        about = samples.select("place", "key", "image_sha256")[decided["row"]]
        decided = decided.hstack(about).select("place", *DECISION_SCHEMA.names)
        if len(group) == 1:
            return [decided.drop("place")]
        num_rows = np.bincount(samples["place"], minlength=len(group))
        return [
            decided.filter(pl.col("place") == place)
            .drop("place")
            .with_columns(pl.col("row") - first)
            for place, first in enumerate((np.cumsum(num_rows) - num_rows).tolist())
        ]

    def _choose(self, alive: pl.DataFrame) -> pl.DataFrame:
        """Return the chosen texts, with slot, weight, action and because."""
        pick = self.policy.pick
        if not self.policy.has_rule_on_truncated:
            alive = whole_first(alive, pick=pick)
        worst_last = [-pl.col("score").fill_null(-np.inf)] if pick == "best" else []
        ordered = alive.sort(pl.col("row"), *worst_last, maintain_order=True)
        if pick == "all":
            ordered = ordered.unique(["row", "text_sha256"], keep="first", maintain_order=True)
        is_alt = pl.col("source") == ALT_TEXT
        ordered = number_in_rows(ordered)
        taken = ordered if pick == "all" else ordered.filter(pl.col("slot") == 0)
        how = {
            "best": pl.format("best of {}", "num_texts"),
            "first": pl.lit("first that passes"),
            "all": pl.lit("passes"),
        }[pick]
        cut = pl.when("whole").then(pl.lit("")).otherwise(pl.lit(", unsupported sentences cut"))
        half = pl.when(pl.col("truncated") == 1).then(pl.lit(f", {CUT}")).otherwise(pl.lit(""))
        is_captioned = pl.col("num_texts") > pl.col("num_alt") if pick == "all" else ~is_alt
        return taken.with_columns(
            weight=self._weight() if pick == "all" else pl.lit(1.0, pl.Float32),
            action=pl.when(is_captioned).then(pl.lit("captioned")).otherwise(pl.lit("kept")),
            because=pl.concat_str(how, cut, half),
            slot=pl.col("slot").cast(pl.Int16),
        )

    def _weight(self) -> pl.Expr:
        """Return the weight of a source, divided among its texts and normalised per sample."""
        weights = self.policy.weights
        num_generated = pl.col("num_texts") - pl.col("num_alt")
        share = (
            pl.when(pl.col("source") == ALT_TEXT)
            .then(weights.alt_text / pl.col("num_alt"))
            .otherwise(weights.generated / num_generated)
        )
        at_hand = weights.alt_text * (pl.col("num_alt") > 0) + weights.generated * (
            num_generated > 0
        )
        return (share / at_hand).fill_nan(0.0).cast(pl.Float32)

    def _with_kept_score(self, rest: pl.DataFrame) -> pl.DataFrame:
        """Add the score of the alt text where the policy may keep it by `otherwise`."""
        if self.policy.otherwise == "drop":
            return rest.with_columns(score=pl.lit(None, pl.Float32))
        return self._with_scores(rest.with_columns(text_sha256="alt_sha256")).drop("failure")

    def _explain(
        self, rest: pl.DataFrame, texts: pl.DataFrame, failures: pl.DataFrame
    ) -> pl.DataFrame:
        """Return samples without a passing text: kept by `otherwise`, quarantined, or dropped."""
        side = pl.when(pl.col("source") == ALT_TEXT).then(pl.lit(ALT_TEXT))
        reasons = (
            texts.filter(pl.col("failed").is_not_null())
            .with_columns(why=pl.format("{}: {}", side.otherwise(pl.lit(GENERATED)), "failed"))
            .group_by("row")
            .agg(pl.col("why").unique(maintain_order=True).str.join("; "))
        )
        nothing = NOT_GENERATED if self.policy.needs_generated else NO_TEXT
        joined = (
            self._with_kept_score(rest)
            .join(failures, on="row", how="left")
            .join(reasons, on="row", how="left")
            .with_columns(why=pl.coalesce("failure", "why", pl.lit(nothing)))
        )
        unusable = pl.col("reason").is_not_null() | pl.col("failure").str.starts_with("image.")
        keep = ~unusable.fill_null(False) & has_alt_text()
        if self.policy.otherwise == "drop":
            keep = pl.lit(False)
        failed = pl.when(pl.col("failure").is_not_null()).then(pl.lit("quarantined"))
        return joined.with_columns(
            action=pl.when(keep)
            .then(pl.lit("kept"))
            .otherwise(failed.otherwise(pl.lit("dropped"))),
            because=pl.when(keep).then(pl.format("no other: {}", "why")).otherwise("why"),
            slot=pl.lit(0, pl.Int16),
            text=pl.when(keep).then("alt_text"),
            text_sha256=pl.when(keep).then("alt_sha256"),
            source=pl.when(keep).then(pl.lit(ALT_TEXT)),
            weight=pl.when(keep).then(pl.lit(1.0, pl.Float32)),
            score=pl.when(keep).then("score"),
        )


def applies(rule: Rule) -> pl.Expr:
    """Whether a rule applies to a text, by its `source`."""
    is_alt = pl.col("source") == ALT_TEXT
    return {"any": pl.lit(True), ALT_TEXT: is_alt, GENERATED: ~is_alt}[rule.source]


def _column_of(scorer: str) -> str:
    """Return the column with the scores of another scorer than the policy's."""
    return f"score by {scorer}"


def passes(rule: Rule, percentile: pl.Expr, column: str | None = None) -> pl.Expr:
    """Whether a text passes a rule that applies to it.

    `percentile` is the value of `min_percentile` for the source of the text; `column` has the
    values, by default the one with the name of the field.
    """
    value = pl.col(column or rule.field)
    if field_of(rule.field).names:
        bad = value.list.set_intersection(list(rule.none_of)).list.len() > 0
        return (~bad).fill_null(False)
    passed = value.is_not_null() & value.is_not_nan()  # polars sorts NaN above all numbers
    if rule.min is not None:
        passed &= value >= rule.min
    if rule.max is not None:
        passed &= value <= rule.max
    if rule.min_percentile is not None:
        passed &= value >= percentile
    return passed.fill_null(False)


def read_decision(store: Store, entry: ShardEntry) -> pl.DataFrame:
    """Read the decision of one version for one shard; DamageError if its digest differs."""
    path = store.root / entry.file
    parquet.check_sha256(path, entry.file_sha256)
    return parquet.read(path, DECISION_SCHEMA)
