"""Collect the texts that compete for a shard's samples, their scores, and why others do not.

Frames have one row per text: row, image_sha256, source, text, text_sha256, truncated, width,
height. `truncated` is 1 for a caption that the token limit cut in mid-sentence, else 0. `made` are
the facts of a generator for the usable samples: row, image_sha256, width, height, candidate, text,
text_sha256, finish_reason, failure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from curator.captioners import LENGTH
from curator.core.text import BLANK
from curator.policy.model import ALT_TEXT
from curator.store.keyindex import hex64


def alt_texts(samples: pl.DataFrame) -> pl.DataFrame:
    """Return the alt texts of samples as candidates; placeholders such as `nan` are left out."""
    return samples.filter(has_alt_text()).select(
        "row",
        "image_sha256",
        source=pl.lit(ALT_TEXT),
        text="alt_text",
        text_sha256="alt_sha256",
        truncated=pl.lit(0, pl.Int8),
        width="width",
        height="height",
    )


def has_alt_text() -> pl.Expr:
    """Whether a sample has an alt text that is not a placeholder."""
    return pl.col("alt_text").is_not_null() & ~pl.col("alt_text").str.contains(BLANK)


def whole_first(texts: pl.DataFrame, *, pick: str) -> pl.DataFrame:
    """Remove captions that the token limit cut, if the sample has a complete text to choose.

    With `pick` "all" an alt text does not count: it cannot stand in for a generated caption.
    """
    side = ["row", pl.col("source") == ALT_TEXT] if pick == "all" else ["row"]
    return texts.filter(pl.col("truncated") == pl.col("truncated").min().over(side))


def generated(name: str, made: pl.DataFrame) -> pl.DataFrame:
    """Return every candidate of one generator for the images of a shard, candidate 0 first."""
    return made.drop_nulls("text").select(
        "row",
        "image_sha256",
        source=pl.lit(name),
        text="text",
        text_sha256="text_sha256",
        truncated=(pl.col("finish_reason") == LENGTH).fill_null(False).cast(pl.Int8),
        width="width",
        height="height",
    )


def find_failures(
    samples: pl.DataFrame, texts: pl.DataFrame, made: Mapping[str, pl.DataFrame]
) -> pl.DataFrame:
    """Return row -> reason why a maker could not process it; image reasons come first."""
    found = [texts.select("row", "failure")]
    for frame in made.values():
        failed = frame.filter(pl.col("failure").is_not_null(), pl.col("candidate") == 0)
        found.append(failed.select("row", "failure"))
    image_first = ~pl.col("failure").str.starts_with("image.")
    unreadable = samples.filter(pl.col("reason").is_not_null())
    return pl.concat(
        [
            unreadable.select("row", failure="reason"),
            pl.concat(found).drop_nulls("failure").sort(image_first, "row"),
        ]
    ).unique("row", keep="first", maintain_order=True)


def number_in_rows(texts: pl.DataFrame) -> pl.DataFrame:
    """Add to texts sorted by row: slot (0, 1, ...), and num_texts and num_alt of the row."""
    row = texts["row"].to_numpy()
    is_alt = (texts["source"] == ALT_TEXT).to_numpy()
    starts = np.flatnonzero(np.diff(row, prepend=-1))
    counts = np.diff(starts, append=len(row))
    alt_before = np.concatenate([[0], np.cumsum(is_alt)])
    num_alt = alt_before[starts + counts] - alt_before[starts]
    return texts.with_columns(
        slot=np.arange(len(row)) - np.repeat(starts, counts),
        num_texts=np.repeat(counts, counts).astype(np.uint32),
        num_alt=np.repeat(num_alt, counts).astype(np.uint32),
    )


def count_copies(frames: Sequence[pl.DataFrame]) -> list[pl.DataFrame]:
    """Return, per frame with row and image_sha256: row, copies, copy_number, over all frames."""
    keys = np.concatenate([hex64(frame["image_sha256"]) for frame in frames])
    order = np.argsort(keys, kind="stable")  # stable: copies stay in dataset order
    new = np.r_[True, keys[order][1:] != keys[order][:-1]]
    starts = np.flatnonzero(new)
    group = np.cumsum(new) - 1
    copies = np.empty(len(keys), np.int32)
    number = np.empty(len(keys), np.int32)
    copies[order] = np.diff(np.r_[starts, len(keys)])[group]
    number[order] = np.arange(len(keys)) - starts[group]
    counted = pl.DataFrame({"copies": copies, "copy_number": number})
    ends = np.cumsum([len(frame) for frame in frames])
    return [
        frame.select("row").hstack(counted[int(end) - len(frame) : int(end)])
        for frame, end in zip(frames, ends, strict=True)
    ]


def scores_by_source(
    texts: pl.DataFrame, column: str = "score"
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return source -> scores of its texts, and of their sentences if `texts` has them."""
    found = {}
    for (source,), part in texts.group_by("source"):
        sentences = np.empty(0, np.float32)
        if "sentences" in texts.columns:
            apart = part["sentences"].explode().struct.field("score").drop_nulls()
            sentences = apart.to_numpy()
        found[str(source)] = (part[column].drop_nulls().to_numpy(), sentences)
    return found


def set_quantile(
    limits: dict[str, float], name: str, arrays: Sequence[np.ndarray], percentile: float | None
) -> None:
    """Set the smallest finite score that has at least `percentile` % of the scores below it."""
    scores = np.concatenate(arrays)
    scores = scores[np.isfinite(scores)]
    if len(scores) and percentile is not None:
        limits[name] = float(np.quantile(scores, percentile / 100, method="higher"))
