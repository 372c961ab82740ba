"""Statistics of few seeds: paired differences, their intervals, and when not to report any.

Runs of two arms are paired by seed: the seed fixes the order of the samples, the initial weights
of the head and the subset of labels, so the difference within a pair is the effect of the captions.
Every number is a *gain*: positive is better, also for metrics where less is better.

Interval (95 %). Below ten pairs Student's t on the differences: exact for any number of normal
differences, while a bootstrap of three to nine values has too low coverage (72, 85 and 90 % for 3,
5 and 9 normal differences). From ten pairs on BCa (Efron 1987; scipy), which follows skewed
differences, at the level of `expanded_level`: at the plain level it covers 90 % for ten pairs and
93 % for twenty, expanded 94 and 95 % (tests/finetune/report/test_stats.py). Two pairs give a t
interval as well, and a wide one; one pair gives none.

Multiple comparisons. The p-values of a family are adjusted by Holm's method, the intervals are not:
an arm wins only if its adjusted p is below 5 % *and* its own interval excludes zero.

Fewest seeds. With two or three pairs a t test relies on differences being normal. Some towers learn
a task and others with the same captions do not, and then it fails: where half of them do, two arms
that do not differ got a winner in 12 % of studies of two seeds, and one of three candidates in 9 %
of studies of three. So a winner also needs `fewest_pairs`; with it the rates of
docs/results/2026-11-30-aa.md hold.

No torch, no files; milliseconds.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np
from scipy import optimize, special, stats

CONFIDENCE = 0.95
ALPHA = 1 - CONFIDENCE
POWER = 0.8
MIN_PAIRS = 3
"""No winner is named below: see `fewest_pairs`."""
MIN_PAIRS_FOR_BOOTSTRAP = 10
MAX_SEEDS_PLANNED = 1000
"""If more seeds than this are needed, no number is given."""

_NUM_RESAMPLES = 9999
# Differences closer than this, relative to their size, count as equal.
_SAME = 1e-9

Method = Literal["paired t", "BCa bootstrap", "none"]
Outcome = Literal["better", "worse", "unclear"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedValues:
    """The values of two arms at their common seeds, in the order of the seeds.

    `only_first` and `only_second` are seeds that only one of them has.
    """

    seeds: tuple[int, ...]
    first: tuple[float, ...]
    second: tuple[float, ...]
    only_first: tuple[int, ...]
    only_second: tuple[int, ...]


def pair(first: Mapping[int, float], second: Mapping[int, float]) -> PairedValues:
    """Pair the values of two arms, each given as seed -> value."""
    seeds = tuple(sorted(first.keys() & second.keys()))
    return PairedValues(
        seeds=seeds,
        first=tuple(first[seed] for seed in seeds),
        second=tuple(second[seed] for seed in seeds),
        only_first=tuple(sorted(first.keys() - second.keys())),
        only_second=tuple(sorted(second.keys() - first.keys())),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """The mean of one arm over `n` seeds; `low` and `high` are its 95 % interval (Student's t).

    `sd` and interval are None for one seed, and if the values do not vary at all: then the seed had
    no effect, and the values say nothing about other seeds.
    """

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None


def mean_of(values: Sequence[float]) -> Mean:
    """Return the mean of at least one value, with its interval."""
    n = len(values)
    assert n, "an arm without a value has no mean"
    mean = float(np.mean(values))
    if n == 1:
        return Mean(n=1, mean=mean, sd=None, low=None, high=None)
    sd = float(np.std(values, ddof=1))
    if sd <= _SAME * float(np.abs(values).max()):
        return Mean(n=n, mean=mean, sd=sd, low=None, high=None)
    half = float(stats.t.ppf(1 - ALPHA / 2, n - 1)) * sd / math.sqrt(n)
    return Mean(n=n, mean=mean, sd=sd, low=mean - half, high=mean + half)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The mean gain of the first arm over the second, over `n` pairs. Positive is better.

    `low` and `high` are the 95 % interval by `method`, `p` is two-sided (paired t), `p_adjusted`
    is p after Holm's correction over `num_compared` comparisons, and `fewest` the pairs that a
    winner needs. `effect` is d_z, the mean over the standard deviation of the differences, times
    Hedges' correction for few pairs (None below three). All of them are None if nothing can be
    tested: one pair, or differences that do not vary at all, which means that the seed had no
    effect on the runs.
    """

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None
    method: Method
    p: float | None
    effect: float | None
    p_adjusted: float | None = None
    num_compared: int = 1
    fewest: int = MIN_PAIRS

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval of this comparison alone excludes zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @property
    def outcome(self) -> Outcome:
        """The winner, after the correction for all comparisons of the family."""
        if self.n < self.fewest or not self.excludes_zero or not self.is_significant:
            return "unclear"
        return "better" if self.mean > 0 else "worse"

    @property
    def is_significant(self) -> bool:
        """Whether p, after the correction if there is one, is below 5 %."""
        p = self.p if self.p_adjusted is None else self.p_adjusted
        return p is not None and p < ALPHA


def difference(pairs: PairedValues, *, higher_is_better: bool) -> Difference:
    """Return the gain of the first arm of `pairs` over the second; needs at least one pair."""
    sign = 1.0 if higher_is_better else -1.0
    gains = sign * (np.asarray(pairs.first) - np.asarray(pairs.second))
    return _difference(gains, scale=float(np.abs([*pairs.first, *pairs.second]).max()))


def _difference(gains: np.ndarray, *, scale: float) -> Difference:
    found = paired_gain(gains, scale=scale)
    n, mean, sd = found.n, found.mean, found.sd
    if found.p is None or sd is None:
        return Difference(
            n=n, mean=mean, sd=sd, low=None, high=None, method="none", p=None, effect=None
        )
    method: Method = "paired t"
    low, high = found.interval()
    if n >= MIN_PAIRS_FOR_BOOTSTRAP:
        method = "BCa bootstrap"
        interval = stats.bootstrap(
            (gains,),
            np.mean,
            n_resamples=_NUM_RESAMPLES,
            confidence_level=expanded_level(n),
            method="BCa",
            rng=np.random.default_rng(0),  # fixed, so that the same table gives the same page
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    effect = mean / sd * hedges(n - 1) if n > 2 else None  # noqa: PLR2004 - J(1) does not exist
    return Difference(
        n=n, mean=mean, sd=sd, low=low, high=high, method=method, p=found.p, effect=effect
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """A mean of `n` paired differences with its paired t test, at any level. Positive is better.

    `p` is two-sided; it and the interval are None if nothing can be tested: see `Difference`.
    """

    n: int
    mean: float
    sd: float | None
    p: float | None

    def is_told(self, alpha: float, *, better: bool) -> bool:
        """Whether the one-sided test, at half of `alpha`, is significant."""
        return self.p is not None and self.p < alpha and (self.mean > 0) is better

    def interval(self, alpha: float = ALPHA) -> tuple[float | None, float | None]:
        """The Student's t interval at 1 - `alpha`."""
        if self.p is None or self.sd is None:
            return None, None
        # Equal to `stats.t.ppf`, in a fiftieth of the time.
        half = float(special.stdtrit(self.n - 1, 1 - alpha / 2)) * self.sd / math.sqrt(self.n)
        return self.mean - half, self.mean + half


def paired_gain(gains: np.ndarray, *, scale: float) -> Gain:
    """Return the mean gain; `scale` is the size of the values whose differences are `gains`."""
    n, mean = len(gains), float(gains.mean())
    sd = float(gains.std(ddof=1)) if n > 1 else None
    if sd is None or sd <= _SAME * scale:
        return Gain(n=n, mean=mean, sd=sd, p=None)
    # Equal to `stats.t.sf`, in a fiftieth of the time.
    p = float(2 * special.stdtr(n - 1, -abs(mean) * math.sqrt(n) / sd))
    return Gain(n=n, mean=mean, sd=sd, p=p)


def expanded_level(n: int) -> float:
    """Return the level at which a percentile interval of `n` values is as wide as Student's t.

    A bootstrap uses the spread of its values, which is too small by sqrt((n-1)/n), and normal
    instead of t quantiles (Hesterberg 2015, "What teachers should know about the bootstrap",
    section 3.4). 0.983 for ten values, 0.999 for four.
    """
    reach = math.sqrt(n / (n - 1)) * float(stats.t.ppf(1 - ALPHA / 2, n - 1))
    return float(1 - 2 * stats.norm.sf(reach))


def hedges(degrees: int) -> float:
    """Return Hedges' small-sample correction J, exact: 0.564 for 2 degrees, 0.798 for 4."""
    log = special.gammaln(degrees / 2) - special.gammaln((degrees - 1) / 2)
    return float(math.exp(log) / math.sqrt(degrees / 2))


def holm(differences: Sequence[Difference]) -> list[Difference]:
    """Return the comparisons as one family, with `p_adjusted` and `num_compared` filled in.

    Comparisons without a p-value are not counted, as nothing is claimed from them.
    """
    tested = [place for place, one in enumerate(differences) if one.p is not None]
    adjusted = list(differences)
    if tested:
        # Not statsmodels' `multipletests`: it collects all garbage of the process, 0.2 s a call.
        p_values = np.array([differences[place].p for place in tested])
        order, number = np.argsort(p_values), len(p_values)
        factors = number - np.arange(number)
        corrected = np.empty(number)
        corrected[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1)
        for place, p in zip(tested, corrected, strict=True):
            adjusted[place] = replace(
                differences[place], p_adjusted=float(p), num_compared=len(tested)
            )
    return adjusted


def fewest_pairs(num_arms: int) -> int:
    """Return the pairs below which no winner among `num_arms` >= 1 candidates is named.

    3 for one candidate, 4 for up to 7, 5 for up to 50. The worst case for a t test are towers of
    which half learn the task and half do not, with little spread otherwise: then the baseline's n
    towers all fail and those of some candidate all learn in 2^-n * (1 - (1 - 2^-n)^num_arms) of
    studies that compare equal captions, and the other way round. Returned is the smallest n >= 3
    with which both together are below 5 %. Tasks do not count, as a tower that failed is bad at all
    of them.
    """
    n = MIN_PAIRS
    while 2 * 0.5**n * (1 - (1 - 0.5**n) ** num_arms) >= ALPHA:
        n += 1
    return n


# -- planning ------------------------------------------------------------------------------------


def power(effect: float, n: int, *, alpha: float = ALPHA) -> float:
    """Return the power of a paired t test over `n` >= 2 pairs for an effect of d_z.

    Computed by the noncentral F of t squared, because the noncentral t in statsmodels' TTestPower
    (otherwise equal) is NaN for some of the large effects that random weights show.
    """
    limit = float(stats.t.ppf(1 - alpha / 2, n - 1))
    return float(stats.ncf.sf(limit**2, 1, n - 1, n * effect**2))


def smallest_detectable(sd: float, n: int, *, alpha: float = ALPHA) -> float:
    """Return the mean difference that `n` >= 2 pairs detect with 80 % power, in units of `sd`."""
    return sd * _effect_seen(n, alpha)


@cache
def _effect_seen(n: int, alpha: float) -> float:
    high = 1.0
    while power(high, n, alpha=alpha) < POWER:
        high *= 2
    return float(optimize.brentq(lambda effect: power(effect, n, alpha=alpha) - POWER, 0, high))


def pooled_sd(gains: Iterable[Difference]) -> tuple[float, int]:
    """Return the common standard deviation of differences, and its degrees of freedom.

    The root of their variances' mean, weighted by the degrees of freedom of each; at least one of
    `gains` must have two pairs.
    """
    known = [(gain.sd, gain.n - 1) for gain in gains if gain.sd is not None]
    degrees = sum(one for _, one in known)
    return math.sqrt(sum(sd**2 * one for sd, one in known) / degrees), degrees


def seeds_needed(
    mean: float, sd: float, *, alpha: float = ALPHA, fewest: int = MIN_PAIRS
) -> int | None:
    """Return the pairs needed to detect `mean` with 80 % power; None if more than a thousand.

    At least `fewest`, the pairs that a winner needs.
    """
    if sd <= 0:
        return None
    candidates = range(fewest, MAX_SEEDS_PLANNED + 1)
    place = bisect_left(
        candidates, POWER, key=lambda n: power(mean / sd, n, alpha=alpha)
    )  # power grows with n
    return candidates[place] if place < len(candidates) else None


@cache
def seeds_to_halve(n: int, *, alpha: float, fewest: int) -> int | None:
    """Return the pairs that detect half of what `n` >= 2 pairs detect, whatever the spread is.

    None if more than a thousand.
    """
    return seeds_needed(_effect_seen(n, alpha) / 2, 1.0, alpha=alpha, fewest=fewest)


# -- relative change -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Relative:
    """An arm's relative change over a reference: 0.121 is +12.1 %, as papers print it.

    The mean over pairs is that of the logarithms, so the interval (Student's t) is never below -100
    %. Limits are None for one pair, and if all pairs have the same ratio.
    """

    n: int
    change: float
    low: float | None
    high: float | None

    @property
    def is_told(self) -> bool:
        """Whether the interval excludes "no change"."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def relative_change(pairs: PairedValues) -> Relative | None:
    """Return first arm / second arm - 1; None without pairs or with values of zero."""
    if not pairs.seeds or min(*pairs.first, *pairs.second) <= 0:
        return None
    logs = paired_gain(np.log(pairs.first) - np.log(pairs.second), scale=1.0)
    low, high = logs.interval()
    return Relative(
        n=logs.n,
        change=math.expm1(logs.mean),
        low=None if low is None else math.expm1(low),
        high=None if high is None else math.expm1(high),
    )
