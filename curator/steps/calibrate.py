"""From labels to a threshold: how well do a scorer's scores tell right texts from wrong ones?

The labels are blind ratings, or a table. The threshold is chosen on one half of the images and
measured on the other one: measured where it was chosen, it would look better than it is. Which
image is in which half follows from its SHA-256, so the same labels give the same result.

Precision is the share of right texts among those at or above the threshold, recall the share of the
right texts that are. Both have Wilson's 95 % interval, the AUROC one from 1,000 bootstrap samples
of images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from statsmodels.stats.proportion import proportion_confint

from curator.core.auroc import auroc
from curator.core.errors import NotFoundError, UsageError, check_value
from curator.core.hashing import text_sha256
from curator.ratings import log as rating_log
from curator.steps.workspace import Workspace
from curator.store import index
from curator.store.facts import SCORES, Facts
from curator.store.keyindex import hex64

MIN_OF_EACH = 5
"""Right and wrong texts that each half must have."""
_RIGHT = frozenset(("1", "true", "yes", "match", "right", "good", "correct"))
_WRONG = frozenset(("0", "false", "no", "no-match", "no_match", "wrong", "bad", "incorrect"))
_NUM_DRAWS = 1000
_TABLES = (".parquet", ".csv", ".jsonl")
_LABELS = {"image_sha256": pl.String, "text_sha256": pl.String, "right": pl.Boolean}


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Labelled texts: image_sha256, text_sha256, right; and what could not be used, by reason."""

    texts: pl.DataFrame
    source: str
    skipped: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A share with its 95 % interval; all None where there was nothing to count."""

    value: float | None
    low: float | None
    high: float | None
    of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How well a scorer tells right texts from wrong ones, and a threshold.

    `num_right` and `num_wrong` count all scored labels; the threshold was chosen on `num_chosen_on`
    of them, and `precision` and `recall` were measured on the others, of which `base_rate` are
    right. `auroc` is over all of them.
    """

    scorer: str
    source: str
    num_right: int
    num_wrong: int
    skipped: dict[str, int]
    auroc: Share
    goal: str
    num_chosen_on: int
    threshold: float
    precision: Share
    recall: Share
    base_rate: float


def labels_of_table(ws: Workspace, table: Path) -> Labels:
    """Read a table with the columns key, label and perhaps text (default: the alt text).

    Raises:
        NotFoundError: no such file. UsageError: unreadable, columns are missing, a label is neither
            right nor wrong, or no key is one of the dataset.
    """
    found = _read(table)
    missing = [name for name in ("key", "label") if name not in found.columns]
    if missing:
        raise UsageError(
            f"the table has no column {missing[0]!r}",
            where=table,
            hint=f"columns needed: key, label, and text if not the alt text; it has: "
            f"{', '.join(found.columns)}",
            reason="labels.invalid",
        )
    labels = found["label"].cast(pl.String).str.strip_chars().str.to_lowercase()
    unknown = labels.filter(~labels.is_in([*_RIGHT, *_WRONG])).drop_nulls()
    if len(unknown):
        raise UsageError(
            f"the label {unknown[0]!r} is neither right nor wrong",
            where=table,
            hint=f"right: {', '.join(sorted(_RIGHT))}; wrong: {', '.join(sorted(_WRONG))}",
            reason="labels.invalid",
        )
    has_text = "text" in found.columns
    rows = pl.DataFrame(
        {
            "key": found["key"].cast(pl.String),
            "right": labels.is_in([*_RIGHT]),
            "text": found["text"].cast(pl.String) if has_text else [None] * len(found),
        },
        schema_overrides={"text": pl.String},
    )
    rows = rows.filter(labels.is_not_null())
    samples, example = _labelled_samples(ws, rows)
    twice = samples.filter(pl.col("key").is_duplicated())
    if len(twice):
        raise UsageError(
            f"the key {twice['key'][0]!r} is in the dataset twice, so its label has no one image",
            where=table,
            hint="label samples whose keys are unique",
            reason="labels.invalid",
        )
    joined = rows.join(samples, on="key", how="inner")
    if joined.is_empty():
        raise UsageError(
            f"none of the {len(rows):,} keys of the table is one of the dataset",
            where=table,
            hint=f"a key is a sample's name in its shard, such as {example!r}"
            if example is not None
            else "index the dataset first",
            reason="labels.unmatched",
        )
    digests = pl.Series(
        [None if text is None else text_sha256(text) for text in joined["text"]], dtype=pl.String
    )
    joined = joined.with_columns(text_sha256=digests if has_text else pl.col("alt_sha256"))
    skipped = {
        "no label": len(found) - len(rows),
        "no such key": len(rows) - len(joined),
        "no text": joined["text_sha256"].null_count(),
    }
    return Labels(
        texts=joined.drop_nulls("text_sha256").select(*_LABELS),
        source=f"table {table.name}",
        skipped={reason: count for reason, count in skipped.items() if count},
    )


def _labelled_samples(ws: Workspace, rows: pl.DataFrame) -> tuple[pl.DataFrame, str | None]:
    """Return the usable samples whose keys have labels, and the key of any sample."""
    columns = ["key", "image_sha256", "alt_sha256", "reason"]
    found = [pl.DataFrame(schema=dict.fromkeys(columns, pl.String))]
    example = None
    for ref in ws.shards:
        samples = index.read(ws.store, ref.name, columns).filter(pl.col("reason").is_null())
        if example is None and len(samples):
            example = str(samples["key"][0])
        found.append(samples.join(rows, on="key", how="semi"))
    return pl.concat(found), example


def labels_of_ratings(ws: Workspace) -> Labels:
    """Return labels from blind ratings: preferred texts are right, the others wrong.

    Where both are bad, both are wrong; "equal" says nothing. Several ratings of a text are one
    label, by majority; without one it is left out. A text that lost may still be true, so a table
    of labels says more.
    """
    votes: Counter[tuple[str, str]] = Counter()
    num_equal = 0
    for rating in rating_log.read(ws.store):
        left, right = ((rating.image_sha256, text_sha256(t)) for t in (rating.left, rating.right))
        num_equal += rating.answer == "equal"
        if rating.answer != "equal":
            votes[left] += 1 if rating.answer == "left" else -1
            votes[right] += 1 if rating.answer == "right" else -1
    if not votes:
        raise UsageError(
            "there are no blind ratings that prefer a text",
            where=ws.store.root,
            hint=f"rate in the dashboard (`{ws.command('ui')}`, page Compare), or give a table: "
            "--labels TABLE",
            reason="labels.none",
        )
    rows = [(*text, lead > 0) for text, lead in votes.items() if lead]
    skipped = {"rated equal": num_equal, "raters disagree": len(votes) - len(rows)}
    return Labels(
        texts=pl.DataFrame(rows, schema=_LABELS, orient="row"),
        source="blind ratings",
        skipped={reason: count for reason, count in skipped.items() if count},
    )


def calibrate(
    ws: Workspace, labels: Labels, scorer: str, *, min_precision: float | None = None
) -> Calibration:
    """Choose a threshold for the scores of the maker `scorer`, and measure it.

    It is the one with the best F1; with `min_precision` the lowest one that reaches it.

    Raises:
        UsageError: too few labels have scores, or no threshold reaches `min_precision`.
    """
    sane = min_precision is None or 0 < min_precision <= 1
    check_value(sane, "--precision", min_precision, "above 0 and at most 1")
    texts = labels.texts.unique(["image_sha256", "text_sha256"], keep="any")
    disputed = (
        labels.texts.group_by("image_sha256", "text_sha256")
        .agg(pl.col("right").n_unique().alias("says"))
        .filter(pl.col("says") > 1)
    )
    texts = texts.join(disputed, on=["image_sha256", "text_sha256"], how="anti")
    texts = texts.sort("image_sha256", "text_sha256")
    scored = texts.hstack(Facts(ws.store, SCORES, scorer).match(texts, ["score"]))
    usable = scored.filter(pl.col("score").is_finite())
    skipped = dict(labels.skipped)
    for reason, count in (
        ("labelled both ways", len(disputed)),
        ("no score", len(scored) - len(usable)),
    ):
        if count:
            skipped[reason] = count
    in_first = hex64(usable["image_sha256"]) % np.uint64(2) == 0
    score, right = usable["score"].to_numpy(), usable["right"].to_numpy()
    for half in (in_first, ~in_first):
        for kind, of_kind in (("right", right), ("wrong", ~right)):
            if (num := int((half & of_kind).sum())) < MIN_OF_EACH:
                raise UsageError(
                    f"a half of the scored labels has {num} {kind} texts, and it needs "
                    f"{MIN_OF_EACH}",
                    where=labels.source,
                    did=f"of {len(labels.texts):,} labels {len(usable):,} have a score by {scorer}",
                    hint="label more texts of both kinds, or score them first: "
                    + ws.command("score", "--generated"),
                    reason="labels.few",
                )
    threshold = _threshold(score[in_first], right[in_first], min_precision)
    if threshold is None:
        raise UsageError(
            f"no threshold has a precision of {min_precision:g} on the half it is chosen on",
            where=labels.source,
            hint="ask for less, or take another scorer",
            reason="labels.precision",
        )
    kept, truth = score[~in_first] >= threshold, right[~in_first]
    return Calibration(
        scorer=scorer,
        source=labels.source,
        num_right=int(right.sum()),
        num_wrong=int((~right).sum()),
        skipped=skipped,
        auroc=_auroc(score, right, hex64(usable["image_sha256"])),
        goal="best F1" if min_precision is None else f"precision of at least {min_precision:g}",
        num_chosen_on=int(in_first.sum()),
        threshold=threshold,
        precision=_share(kept & truth, kept),
        recall=_share(kept & truth, truth),
        base_rate=float(truth.mean()),
    )


def _threshold(score: Any, right: Any, min_precision: float | None) -> float | None:
    """Return the best threshold among the scores themselves; None if none is precise enough."""
    limits = np.unique(score)
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(right[order])
    # The last place of each score: all texts at or above it are kept.
    last = np.searchsorted(-score[order], -limits, side="right") - 1
    found, num_kept = hits[last], last + 1
    precision, recall = found / num_kept, found / right.sum()
    if min_precision is not None:
        able = np.flatnonzero(precision >= min_precision)
        return float(limits[able[0]]) if len(able) else None
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return float(limits[int(np.argmax(f1))])


def _share(hits: Any, of: Any) -> Share:
    num_hits, num = int(hits.sum()), int(of.sum())
    if not num:
        return Share(value=None, low=None, high=None, of=0)
    low, high = proportion_confint(num_hits, num, alpha=0.05, method="wilson")
    return Share(value=num_hits / num, low=float(low), high=float(high), of=num)


def _auroc(score: Any, right: Any, image: Any) -> Share:
    """Return the AUROC; texts of one image are drawn together: they are no separate evidence."""
    rng = np.random.default_rng(0)
    _, group = np.unique(image, return_inverse=True)
    places = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])
    draws = []
    for _ in range(_NUM_DRAWS):
        drawn = np.concatenate([places[at] for at in rng.integers(0, len(places), len(places))])
        good = right[drawn]
        if good.any() and not good.all():
            draws.append(auroc(score[drawn][good], score[drawn][~good]))
    low, high = np.quantile(draws, [0.025, 0.975])
    return Share(
        value=auroc(score[right], score[~right]), low=float(low), high=float(high), of=len(score)
    )


def _read(table: Path) -> pl.DataFrame:
    if not table.is_file():
        raise NotFoundError(f"no file {str(table)!r}", reason="labels.not_found")
    if table.suffix not in _TABLES:
        raise UsageError(
            f"a table of type {table.suffix or 'unknown'!r}",
            where=table,
            hint=f"allowed: {', '.join(_TABLES)}",
            reason="labels.invalid",
        )
    try:
        if table.suffix == ".csv":  # a key such as 000000001 is no number
            return pl.read_csv(table, infer_schema=False)
        return pl.read_parquet(table) if table.suffix == ".parquet" else pl.read_ndjson(table)
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        (first, *_) = str(error).splitlines() or [type(error).__name__]
        raise UsageError(
            f"the table cannot be read ({first})", where=table, reason="labels.invalid"
        ) from error


def skipped_text(skipped: Iterable[tuple[str, int]]) -> str:
    """Return the counts of what was left out as a line."""
    return ", ".join(f"{count:,} {reason}" for reason, count in skipped)
