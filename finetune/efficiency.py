"""How many times fewer labels (or pretraining images): the gap between two curves, sideways.

A curve is the mean score over seeds at several amounts, say at 1, 10 and 100 % of the labels. The
reference reaches its last score with all it has; the multiplier says how much less the other curve
needs for the same score:

    multiplier = amount the reference used / amount at which the curve reaches that score

Curves are made monotone (isotonic regression, with equal weights) and read off linearly in the
logarithm of the amount. Nothing is extrapolated: a curve that is above the score from its first
point on gives "at least", one that never reaches it gives "less than".

The interval resamples seeds, the same ones for both curves as they are paired, at the level of
`finetune.stats.expanded_level`: for three seeds that is all that the resamples show.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from finetune.stats import expanded_level

MIN_POINTS = 2
MIN_SEEDS_FOR_INTERVAL = 3
_NUM_RESAMPLES = 4000

Bound = Literal["=", ">=", "<"]
Curve = Mapping[float, Mapping[int, float]]
"""Amount -> seed -> score."""


@dataclass(frozen=True, slots=True)
class Multiplier:
    """`value` times less; with `bound` ">=" or "<" the curves end before they tell more."""

    bound: Bound
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    """What a comparison of two curves gives. `n` seeds are complete on both of them.

    `target` is the score that the reference reaches with `amount`. `low` and `high` are the 95 %
    interval, None below three seeds.
    """

    n: int
    target: float
    amount: float
    multiplier: Multiplier
    low: Multiplier | None
    high: Multiplier | None


def efficiency(curve: Curve, reference: Curve, *, higher_is_better: bool) -> Efficiency | None:
    """How many times less of the amount `curve` needs for the last score of `reference`.

    None if they share fewer than two amounts, or no seed that has all of them.
    """
    amounts = sorted(curve.keys() & reference.keys())
    if len(amounts) < MIN_POINTS or amounts[0] <= 0:
        return None
    every = [points[amount].keys() for points in (curve, reference) for amount in amounts]
    seeds = sorted(set.intersection(*map(set, every)))
    if not seeds:
        return None
    sign = 1.0 if higher_is_better else -1.0
    ours_SK, theirs_SK = (
        sign * np.array([[points[amount][seed] for amount in amounts] for seed in seeds])
        for points in (curve, reference)
    )
    logs_K = np.log(amounts)
    low = high = None
    if len(seeds) >= MIN_SEEDS_FOR_INTERVAL:
        rng = np.random.default_rng(0)  # the same table gives the same page
        draws_RS = rng.integers(len(seeds), size=(_NUM_RESAMPLES, len(seeds)))
        resampled = (scores[draws_RS].mean(axis=1) for scores in (ours_SK, theirs_SK))
        low, high = _interval(_gaps(logs_K, *resampled), len(seeds))
    ours_K, theirs_K = ours_SK.mean(axis=0), theirs_SK.mean(axis=0)
    return Efficiency(
        n=len(seeds),
        target=sign * float(_monotone(theirs_K[None])[0, -1]),
        amount=amounts[-1],
        multiplier=_read(float(_gaps(logs_K, ours_K[None], theirs_K[None])[0]), logs_K),
        low=None if low is None else _read(low, logs_K),
        high=None if high is None else _read(high, logs_K),
    )


def _monotone(scores_RK: np.ndarray) -> np.ndarray:
    """The non-decreasing scores nearest to those of each row.

    By the max-min formula of isotonic regression (Robertson et al. 1988, theorem 1.4.4): all rows
    at once, for the few points that curves have.
    """
    num = scores_RK.shape[1]
    sums = np.concatenate([np.zeros((len(scores_RK), 1)), scores_RK.cumsum(axis=1)], axis=1)

    def least(start: int, place: int) -> np.ndarray:
        ends = range(place + 1, num + 1)
        means = [(sums[:, end] - sums[:, start]) / (end - start) for end in ends]
        lowest: np.ndarray = np.stack(means).min(axis=0)
        return lowest

    columns = [
        np.stack([least(start, place) for start in range(place + 1)]).max(axis=0)
        for place in range(num)
    ]
    return np.stack(columns, axis=1)


def _gaps(logs_K: np.ndarray, ours_RK: np.ndarray, theirs_RK: np.ndarray) -> np.ndarray:
    """(R,) logs of multipliers; inf: at least the whole range, -inf: not with the last amount."""
    scores, targets = _monotone(ours_RK), _monotone(theirs_RK)[:, -1]
    reached = scores >= targets[:, None]
    upper = np.clip(reached.argmax(axis=1), 1, None)
    rows = np.arange(len(scores))
    below, above = scores[rows, upper - 1], scores[rows, upper]
    span = np.where(above > below, above - below, 1.0)
    rise = (targets - below) / span
    place = logs_K[upper - 1] + rise * (logs_K[upper] - logs_K[upper - 1])
    inside = np.where(reached[:, 0], np.inf, logs_K[-1] - place)
    return np.where(reached[:, -1], inside, -np.inf)


def _read(gap: float, logs_K: np.ndarray) -> Multiplier:
    if gap == math.inf:
        return Multiplier(">=", math.exp(logs_K[-1] - logs_K[0]))
    return Multiplier("<", 1.0) if gap == -math.inf else Multiplier("=", math.exp(gap))


def _interval(gaps_R: np.ndarray, n: int) -> tuple[float, float]:
    outside = (1 - expanded_level(n)) / 2
    # An observed gap, not a mean of two: between -inf and a number there is nothing.
    low, high = np.quantile(gaps_R, [outside, 1 - outside], method="inverted_cdf")
    return float(low), float(high)
