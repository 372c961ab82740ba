"""Estimate how many times fewer labels or pretraining images an arm needs, at measured points only.

The reference reaches its score with the full amount. A factor is claimed from three statements,
each tested by a paired t test over the seeds:

    enough      the arm with a fraction of the amount is better than the reference with all of it;
    lacking     the reference itself is worse with that fraction than with all of it (if it is not,
                more does not help, and "fewer" would be meaningless);
    too little  the arm with a smaller fraction is worse than the reference with all of it.

    at least    amount that the reference needs / smallest amount that is enough for the arm
    less than   full amount / largest amount that is too little for the arm

Nothing is interpolated or extrapolated: curves through means of few seeds cross at arbitrary
places, and resampling three seeds does not show the uncertainty (two arms that do not differ got a
factor of two in a third of all studies). Measured amounts are compared by the test that also
decides winners. So a factor of two needs a point at one half.

Errors. Amounts are tested in order, from the full amount downwards for "enough" and from the
smallest upwards for the other two, up to the first that is not significant. A wrong claim needs the
first true hypothesis of its sequence to be rejected, so the amounts need no correction
(fixed-sequence test; Maurer et al. 1995; Wiens 2003). Each sequence is one-sided at half of the
level. "At least" is wrong only if the first or the second sequence is, and of the second and the
third at most one can be wrong, so both limits hold together in 95 % of studies. The only assumption
besides those of a t test is that scores do not fall with the amount. Over `num_compared`
comparisons the level is divided (Bonferroni). Nothing is significant below `fewest` seeds, as for
winners (`finetune.report.stats.fewest_pairs`): where half of the towers learn the task, two seeds
gave wrong limits in 12 % of studies. benchmarks/fewer_labels.py counts them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from finetune.report.stats import ALPHA, MIN_PAIRS, Gain, paired_gain

_MIN_AMOUNTS = 2

Curve = Mapping[float, Mapping[int, float]]
"""Amount -> seed -> score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    """A curve compared with the last score of a reference, over the `n` seeds complete on both.

    `amounts` are ascending. `ours` is the gain of the curve at each amount over the reference at
    the last one; `theirs` is the same for the reference itself, at all amounts but the last.
    Positive gains are better. Limits hold simultaneously for all `num_compared` comparisons, and
    need `fewest` seeds.
    """

    n: int
    amounts: tuple[float, ...]
    ours: tuple[Gain, ...]
    theirs: tuple[Gain, ...]
    num_compared: int = 1
    fewest: int = MIN_PAIRS

    @property
    def alpha(self) -> float:
        """The two-sided level of each test."""
        return ALPHA / self.num_compared

    @property
    def num_enough(self) -> int:
        """Number of amounts, from the last, that are enough for the curve."""
        return _run(self._is_told(gain, better=True) for gain in reversed(self.ours))

    @property
    def num_too_little(self) -> int:
        """Number of amounts, from the first, that are too little for the curve."""
        return _run(self._is_told(gain, better=False) for gain in self.ours)

    @property
    def num_lacking(self) -> int:
        """Number of amounts, from the first, that are too little for the reference."""
        return _run(self._is_told(gain, better=False) for gain in self.theirs)

    def _is_told(self, gain: Gain, *, better: bool) -> bool:
        return self.n >= self.fewest and gain.is_told(self.alpha, better=better)

    @property
    def at_least(self) -> float | None:
        """The curve needs at least this many times less; None if not even 1 is significant."""
        if not self.num_enough:
            return None
        factor = self.amounts[self.num_lacking] / self.amounts[-self.num_enough]
        return factor if factor >= 1 else None

    @property
    def less_than(self) -> float | None:
        """The curve needs less than this many times less; None if nothing is significant.

        1 if it does not reach the score with all of the amount.
        """
        if not self.num_too_little:
            return None
        return self.amounts[-1] / self.amounts[self.num_too_little - 1]

    @property
    def claimed(self) -> float | None:
        """The factor that may be claimed: `at_least` if it is more than 1."""
        return self.at_least if self.at_least is not None and self.at_least > 1 else None

    @property
    def is_testable(self) -> bool:
        """Whether any comparison can be tested."""
        return any(gain.p is not None for gain in self.ours)


def _run(flags: Iterable[bool]) -> int:
    """Return the number of true values before the first false one."""
    return sum(1 for _ in takewhile(bool, flags))


def efficiency(curve: Curve, reference: Curve, *, higher_is_better: bool) -> Efficiency | None:
    """Compare `curve` at every amount with `reference` at the last.

    Returns None if they share fewer than two amounts, or no seed has all of them.
    """
    amounts = sorted(curve.keys() & reference.keys())
    if len(amounts) < _MIN_AMOUNTS or amounts[0] <= 0:
        return None
    every = [points[amount].keys() for points in (curve, reference) for amount in amounts]
    seeds = sorted(set.intersection(*map(set, every)))
    if not seeds:
        return None
    sign = 1.0 if higher_is_better else -1.0
    ours_KS, theirs_KS = (
        np.array([[points[amount][seed] for seed in seeds] for amount in amounts])
        for points in (curve, reference)
    )
    last_S = theirs_KS[-1]
    scale = float(np.abs([ours_KS, theirs_KS]).max())
    return Efficiency(
        n=len(seeds),
        amounts=tuple(amounts),
        ours=tuple(paired_gain(sign * (row_S - last_S), scale=scale) for row_S in ours_KS),
        theirs=tuple(paired_gain(sign * (row_S - last_S), scale=scale) for row_S in theirs_KS[:-1]),
    )
