"""Statistics of blind ratings: how often the new text wins, and how well the raters agree.

The statistics come from scipy and statsmodels; this module decides what is counted:

* The win rate is (wins + ties / 2) / items, as for MT-Bench (Zheng et al. 2023); "both bad" is a
  tie. Its 95 % interval is Wilson's (1927), which treats every item as a win or a loss: with ties,
  it is slightly wider than necessary.
* Several ratings of one item are not independent evidence: they are one vote, by majority.
* The sign test leaves ties out (Dixon and Mood 1946) and is exact and two-sided.
* Agreement is Cohen's kappa (1960) for two raters, Fleiss' (1971) for more, over the items that
  all of them rated, with four unordered answers.

All of this assumes a number of items fixed beforehand: stopping as soon as the result looks good
gives intervals that are too narrow.
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
    """How often the new text is better. All fields except `num_ratings` count items.

    `rate` is (wins + ties / 2) / items with its 95 % interval, None without items. `num_both_bad`
    are ties in which most ratings were "both bad". `p_value` is that of the sign test, None if
    every item is a tie.
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
        """Return the number of items with at least one rating."""
        return self.wins + self.losses + self.ties


def win_rate(cast: Sequence[Vote]) -> WinRate:
    """Compute the new version's win rate; several votes on an item count once, by majority."""
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
    """Return the win rate in words; "preferred" only if the interval excludes one half."""
    if found.rate is None or found.low is None or found.high is None:
        return "There are no ratings yet."
    about = (
        f"win rate of {found.rate:.0%} (95% interval {found.low:.0%} to {found.high:.0%}, "
        f"n = {found.num_items:,}"
        + (f", sign test p = {found.p_value:.2g})" if found.p_value is not None else ")")
    )
    if found.low > _EVEN:
        return f"The texts of {new} are preferred to those of {old}: {about}."
    if found.high < _EVEN:
        return f"The texts of {old} are preferred to those of {new}: {new} has a {about}."
    return f"No significant difference between {old} and {new}: {new} has a {about}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How well some raters agree on the `num_items` items that all of them rated.

    `same` is the fraction of items with the same answer by all. `kappa` corrects for chance: 1 is
    full agreement, 0 is chance level; None if it is undefined, because everybody gave the same
    answer to everything. `low` and `high` are its 95 % interval, for two raters only.
    """

    raters: tuple[str, ...]
    num_items: int
    same: float
    kappa: float | None
    low: float | None = None
    high: float | None = None


def agreement(cast: Iterable[Vote]) -> list[Agreement]:
    """Return the agreement of all raters if there are three or more, then of each pair, by name.

    Groups without a common item are left out.
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
    with np.errstate(divide="ignore", invalid="ignore"):  # from a test that is not used
        found = cohens_kappa(table)
    return Agreement(
        raters=raters,
        num_items=len(common),
        same=same,
        kappa=float(found.kappa),
        low=max(float(found.kappa_low), -1.0),
        high=min(float(found.kappa_upp), 1.0),
    )
