"""Count scores and lengths for a comparison. Words are in `curator.compare.words`.

All counters are fed shard by shard and keep a state of fixed size: scores go into bins of 0.0005
over [-1, 1], from which quartiles are read; lengths are counted exactly.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import polars as pl

MAX_WORDS_SHOWN = 200
"""Texts of this many words or more share the last bin of a length histogram."""

SCORE_BIN = 0.01
_FINE_PER_BIN = 20
_NUM_BINS = 200
_MIN_PAIRS = 5
_MAX_LENGTH_BINS = 40
_Z_95 = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """Scores of the texts of one version. `n` counts those that have a score.

    `quartiles` (25, 50, 75 %) are exact to 0.0005. `histogram` counts texts in 200 bins of 0.01
    from -1 to 1. Fields are None where there are no scores.
    """

    n: int
    num_unscored: int
    mean: float | None
    sd: float | None
    quartiles: tuple[float, float, float] | None
    histogram: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """New minus old score of the first text, over the samples whose texts changed.

    `n` counts those with a score on both sides. `low` and `high` are the 95 % interval of the
    mean (Student's t), None below five pairs. `improved`, `worse` and `equal` are shares of `n`.
    """

    n: int
    mean: float | None
    low: float | None
    high: float | None
    improved: float
    worse: float
    equal: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthStats:
    """Words (runs of non-space) per text. `quantiles` are 5, 25, 50, 75 and 95 %.

    `histogram[w]` counts the texts of w words; the last bin counts those of 200 or more.
    """

    num_texts: int
    mean: float | None
    quantiles: tuple[int, ...]
    histogram: tuple[int, ...]


class ScoreCounter:
    """Adds up scores."""

    def __init__(self) -> None:
        self._bins = np.zeros(_NUM_BINS * _FINE_PER_BIN, np.int64)
        self._n = self._unscored = 0
        self._sum = self._squares = 0.0

    def add(self, scores: pl.Series) -> None:
        """Count scores; null is a text without a score."""
        values = scores.drop_nulls().cast(pl.Float64).to_numpy()
        self._n += len(values)
        self._unscored += len(scores) - len(values)
        self._sum += float(values.sum())
        self._squares += float((values**2).sum())
        # The small shift keeps 0.29, which is stored as 0.28999999, in the bin that starts there.
        place = np.floor((values + 1) / 2 * len(self._bins) + 1e-3).astype(np.int64)
        np.add.at(self._bins, np.clip(place, 0, len(self._bins) - 1), 1)

    def result(self) -> Distribution:
        """Return the distribution of all scores added."""
        coarse = self._bins.reshape(_NUM_BINS, _FINE_PER_BIN).sum(axis=1)
        spread = self._squares - self._sum**2 / max(self._n, 1)
        return Distribution(
            n=self._n,
            num_unscored=self._unscored,
            mean=self._sum / self._n if self._n else None,
            sd=math.sqrt(max(spread, 0.0) / (self._n - 1)) if self._n > 1 else None,
            quartiles=self._quartiles() if self._n else None,
            histogram=tuple(coarse.tolist()),
        )

    def _quartiles(self) -> tuple[float, float, float]:
        below = np.cumsum(self._bins)
        low, mid, high = (
            # The smallest bin edge with at least this share of the scores at or below its bin.
            int(np.searchsorted(below, math.ceil(share * self._n))) * SCORE_BIN / _FINE_PER_BIN - 1
            for share in (0.25, 0.5, 0.75)
        )
        return round(low, 4), round(mid, 4), round(high, 4)


class PairCounter:
    """Adds up score differences."""

    def __init__(self) -> None:
        self._n = self._improved = self._worse = 0
        self._sum = self._squares = 0.0

    def add(self, gains: pl.Series) -> None:
        """Count differences new minus old; null where either text has no score."""
        values = gains.drop_nulls().cast(pl.Float64).to_numpy()
        self._n += len(values)
        self._improved += int((values > 0).sum())
        self._worse += int((values < 0).sum())
        self._sum += float(values.sum())
        self._squares += float((values**2).sum())

    def result(self) -> Paired:
        """Return the statistics of all differences added."""
        n = self._n
        mean = self._sum / n if n else None
        half = None
        if mean is not None and n >= _MIN_PAIRS:
            variance = max(self._squares - n * mean**2, 0.0) / (n - 1)
            half = _student_95(n - 1) * math.sqrt(variance / n)
        return Paired(
            n=n,
            mean=mean,
            low=mean - half if mean is not None and half is not None else None,
            high=mean + half if mean is not None and half is not None else None,
            improved=self._improved / max(n, 1),
            worse=self._worse / max(n, 1),
            equal=(n - self._improved - self._worse) / max(n, 1),
        )


def _student_95(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t, to 0.3 % from 4 degrees on (Abramowitz 26.7.5)."""
    z = _Z_95
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


class LengthCounter:
    """Adds up the lengths of texts, exactly."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, texts: pl.Series) -> None:
        """Count texts."""
        words = texts.str.count_matches(r"\S+").value_counts()
        self._counts.update(dict(words.iter_rows()))

    def result(self) -> LengthStats:
        """Return the statistics of all texts added."""
        total = self._counts.total()
        lengths = sorted(self._counts)
        below = np.cumsum([self._counts[length] for length in lengths])
        histogram = [0] * (MAX_WORDS_SHOWN + 1)
        for length, count in self._counts.items():
            histogram[min(length, MAX_WORDS_SHOWN)] += count
        last = max((place for place, count in enumerate(histogram) if count), default=-1)
        return LengthStats(
            num_texts=total,
            mean=sum(w * c for w, c in self._counts.items()) / total if total else None,
            quantiles=tuple(
                lengths[int(np.searchsorted(below, math.ceil(share * total)))]
                for share in (0.05, 0.25, 0.5, 0.75, 0.95)
            )
            if total
            else (),
            histogram=tuple(histogram[: last + 1]),
        )


def length_shares(old: LengthStats, new: LengthStats) -> tuple[int, list[float], list[float]]:
    """Return the words per bin, and the share of each version's texts in each of <= 40 bins."""
    longest = max(len(old.histogram), len(new.histogram))
    width = max(-(-longest // _MAX_LENGTH_BINS), 1)
    before, after = (
        [
            sum(lengths.histogram[start : start + width]) / max(lengths.num_texts, 1)
            for start in range(0, longest, width)
        ]
        for lengths in (old, new)
    )
    return width, before, after
