"""What blind ratings say: how often the new text wins, and how far the raters agree.

The statistics are those of scipy and statsmodels; ours is what is counted:

* The win rate is (wins + ties / 2) / items, as for MT-Bench (Zheng et al. 2023); "both bad" is a
  tie. Its 95 % interval is Wilson's (1927), which takes every item for a win or a loss: with ties,
  that is a little wider than need be.
* Several ratings of one item are no independent evidence: they are one vote, of the majority.
* The sign test leaves ties out (Dixon and Mood 1946) and is exact and two-sided.
* Agreement is Cohen's kappa (1960) for two raters, Fleiss' (1971) for more, over the items that
  all of them rated, with four unordered answers.

All of it is for a number of items that was fixed beforehand: who stops as soon as the result
pleases gets intervals that are too narrow.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest
from statsmodels.stats.inter_rater import aggregate_raters, cohens_kappa, fleiss_kappa
from statsmodels.stats.proportion import proportion_confint

from curator.ratings.log import VERDICTS, Verdict, Vote

_FEW_RATERS = 2
_EVEN = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class WinRate:
    """How often the new text is the better one. All but `num_ratings` count items.

    `rate` is (wins + ties / 2) / items with its 95 % interval, None without items. `num_both_bad`
    are ties in which most ratings said so. `p_value` is that of the sign test, None where every
    item is a tie.
    """

    num_ratings: int
    wins: int
    losses: int
    ties: int
    num_both_bad: int
    rate: float | None
    low: float | None
    high: float | None
    p_value: float | None

    @property
    def num_items(self) -> int:
        """Items with at least one rating."""
        return self.wins + self.losses + self.ties


def win_rate(cast: Sequence[Vote]) -> WinRate:
    """The new version against the old one; several votes on an item are one, of the majority."""
    by_item: dict[str, Counter[Verdict]] = defaultdict(Counter)
    for vote in cast:
        by_item[vote.item][vote.verdict] += 1
    leads = [said["new"] - said["old"] for said in by_item.values()]
    wins, losses = sum(lead > 0 for lead in leads), sum(lead < 0 for lead in leads)
    ties = len(leads) - wins - losses
    num_both_bad = sum(
        said["new"] == said["old"] and 2 * said["both_bad"] > said.total()
        for said in by_item.values()
    )
    points = wins + ties / 2
    low, high = (
        proportion_confint(points, len(leads), alpha=0.05, method="wilson")
        if leads
        else (None, None)
    )
    return WinRate(
        num_ratings=len(cast),
        wins=wins,
        losses=losses,
        ties=ties,
        num_both_bad=num_both_bad,
        rate=points / len(leads) if leads else None,
        low=None if low is None else float(low),
        high=None if high is None else float(high),
        p_value=float(binomtest(wins, wins + losses).pvalue) if wins + losses else None,
    )


def sentence(found: WinRate, old: str, new: str) -> str:
    """The win rate in words; better or worse only where the interval leaves one half out."""
    if found.rate is None or found.low is None or found.high is None:
        return "Nobody has rated yet."
    about = (
        f"win rate of {found.rate:.0%} (95% interval {found.low:.0%} to {found.high:.0%}, "
        f"n = {found.num_items:,}"
        + (f", sign test p = {found.p_value:.2g})" if found.p_value is not None else ")")
    )
    if found.low > _EVEN:
        return f"The texts of {new} are preferred to those of {old}: {about}."
    if found.high < _EVEN:
        return f"The texts of {old} are preferred to those of {new}: {new} has a {about}."
    return f"No difference between {old} and {new} beyond noise: {new} has a {about}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far some raters agree over the `num_items` items that all of them rated.

    `same` is the share of items on which all said the same. `kappa` takes off what chance would
    do: 1 is full agreement, 0 that of chance. None where it is not defined, since everybody said
    the same thing of everything. `low` and `high` are its 95 % interval, for two raters only.
    """

    raters: tuple[str, ...]
    num_items: int
    same: float
    kappa: float | None
    low: float | None = None
    high: float | None = None


def agreement(cast: Iterable[Vote]) -> list[Agreement]:
    """All raters together where there are three or more, then every two of them, by name.

    Groups that have no item in common are left out.
    """
    said: dict[str, dict[str, int]] = defaultdict(dict)
    for vote in cast:
        said[vote.who][vote.item] = VERDICTS.index(vote.verdict)
    names = sorted(said)
    groups = [tuple(names)] if len(names) > _FEW_RATERS else []
    groups += list(itertools.combinations(names, 2))
    return [found for group in groups if (found := _agreement(group, said)) is not None]


def _agreement(raters: tuple[str, ...], said: Mapping[str, Mapping[str, int]]) -> Agreement | None:
    common = set.intersection(*(set(said[who]) for who in raters))
    if not common:
        return None
    answers = np.array([[said[who][item] for who in raters] for item in sorted(common)])
    same = float((answers == answers[:, :1]).all(axis=1).mean())
    if (answers == answers[0, 0]).all():
        return Agreement(raters=raters, num_items=len(common), same=same, kappa=None)
    if len(raters) > _FEW_RATERS:
        kappa = float(fleiss_kappa(aggregate_raters(answers, len(VERDICTS))[0]))
        return Agreement(raters=raters, num_items=len(common), same=same, kappa=kappa)
    table = np.zeros((len(VERDICTS), len(VERDICTS)))
    np.add.at(table, (answers[:, 0], answers[:, 1]), 1)
    with np.errstate(divide="ignore", invalid="ignore"):  # of a test that is not used
        found = cohens_kappa(table)
    return Agreement(
        raters=raters,
        num_items=len(common),
        same=same,
        kappa=float(found.kappa),
        low=max(float(found.kappa_low), -1.0),
        high=min(float(found.kappa_upp), 1.0),
    )
