"""How many times fewer labels: told at measured points by paired tests; by hand and simulated."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from finetune.report.build import correct_gaps
from finetune.report.efficiency import Curve, Efficiency, efficiency
from finetune.report.text import _times, factor, factor_limit, gap_sentence
from finetune.report.values import Gap, TaskResult
from finetune.study.results import metric_of


def curve(**scores: list[float]) -> dict[float, dict[int, float]]:
    """`p1=[...]` are the scores of the seeds with 1 label, `p100` with 100."""
    return {float(name[1:]): dict(enumerate(values)) for name, values in scores.items()}


def told(ours: Curve, theirs: Curve, *, higher: bool = True) -> Efficiency:
    found = efficiency(ours, theirs, higher_is_better=higher)
    assert found is not None
    return found


# Three seeds each; differences of two rows spread by 0.1 or less, so that a gap of 1 is told.
V1 = curve(p1=[10.0, 10.1, 10.2], p10=[20.1, 20.0, 20.2], p100=[30.0, 30.2, 30.1])


def test_enough_is_what_beats_the_reference_with_all() -> None:
    v2 = curve(p1=[15.0, 15.1, 15.3], p10=[35.0, 35.2, 35.3], p100=[40.1, 40.2, 40.0])
    found = told(v2, V1)
    assert (found.n, found.amounts) == (3, (1.0, 10.0, 100.0))
    # 35 with 10 beats 30 with 100; 15 with 1 is worse: at least 10 times and less than 100.
    assert (found.at_least, found.less_than, found.claimed) == (10.0, 100.0, 10.0)
    by_hand = scipy_stats.ttest_1samp(np.array([35.0, 35.2, 35.3]) - [30.0, 30.2, 30.1], 0)
    assert found.ours[1].p == pytest.approx(by_hand.pvalue)


def test_the_other_way_round_it_does_not_reach_the_score() -> None:
    v2 = curve(p1=[15.0, 15.1, 15.3], p10=[35.0, 35.2, 35.3], p100=[40.1, 40.2, 40.0])
    found = told(V1, v2)
    assert (found.at_least, found.less_than, found.claimed) == (None, 1.0, None)


def test_better_with_all_alone_is_no_factor() -> None:
    v2 = curve(p1=[11.0, 11.1, 11.3], p10=[22.0, 22.2, 22.3], p100=[33.1, 33.2, 33.0])
    found = told(v2, V1)
    assert (found.at_least, found.less_than, found.claimed) == (1.0, 10.0, None)


def test_what_does_not_help_the_reference_is_not_saved_by_anybody() -> None:
    flat = curve(p1=[30.0, 30.1, 30.3], p10=[30.1, 30.0, 30.2], p100=[30.0, 30.2, 30.1])
    better = curve(p1=[40.0, 40.1, 40.3], p10=[40.1, 40.0, 40.2], p100=[40.0, 40.1, 40.3])
    found = told(better, flat)
    assert (found.num_enough, found.num_lacking) == (3, 0)
    assert found.claimed is None
    # A reference that is settled from 10 on needs those 10: 10 times fewer, not 100.
    settled = flat | curve(p1=[10.0, 10.1, 10.2])
    assert told(better, settled).claimed == 10.0


def test_less_is_better() -> None:
    theirs = curve(p1=[1.0, 1.01, 1.02], p10=[0.81, 0.80, 0.82], p100=[0.60, 0.62, 0.61])
    ours = curve(p1=[0.9, 0.91, 0.93], p10=[0.5, 0.51, 0.53], p100=[0.4, 0.41, 0.43])
    assert told(ours, theirs, higher=False).claimed == 10.0
    assert told(ours, theirs, higher=True).claimed is None


def test_the_level_is_shared_by_all_that_are_looked_at() -> None:
    # Gains of 10 over 100: 1.0, 0.7, 1.4: t = 1.033 / (0.351 / sqrt(3)) = 5.10, p = 0.036.
    v2 = curve(p1=[15.0, 15.1, 15.3], p10=[31.0, 30.9, 31.5], p100=[40.1, 40.2, 40.0])
    alone = told(v2, V1)
    p = alone.ours[1].p
    assert p is not None
    assert p == pytest.approx(0.036, abs=0.001)
    assert alone.claimed == 10.0
    assert replace(alone, num_compared=2).claimed is None


@pytest.mark.parametrize("values", [[50.0], [50.0, 50.0, 50.0]])
def test_one_seed_and_seeds_that_do_nothing_tell_nothing(values: list[float]) -> None:
    ours = curve(p10=[value + 10 for value in values], p100=[value + 20 for value in values])
    theirs = curve(p10=[value - 10 for value in values], p100=values)
    found = told(ours, theirs)
    assert not found.is_testable
    assert (found.at_least, found.less_than, found.claimed) == (None, None, None)


def test_two_seeds_tell_nothing_and_several_arms_need_four() -> None:
    # 35 with 10 labels beats 30 with 100 in either, by the t test of two or three pairs.
    v2 = curve(p1=[15.0, 15.1, 15.3], p10=[35.0, 35.2, 35.3], p100=[40.1, 40.2, 40.0])
    assert told(v2, V1).claimed == 10.0
    two = [{a: {s: row[s] for s in (0, 2)} for a, row in curves.items()} for curves in (v2, V1)]
    found = told(*two)
    assert found.ours[1].p is not None
    assert found.ours[1].p < 0.05
    assert (found.num_enough, found.num_too_little, found.num_lacking) == (0, 0, 0)
    assert "3 seeds are the least that tell a difference from chance" in gap_sentence(gap_of(found))
    # Of a family of two arms four seeds are the least; controls, which win nothing, need three.
    for asked, claimed in ((["v2", "v3"], None), (["v1"], 10.0)):
        gaps = [gap_of(told(v2, V1), arm=arm) for arm in ("v2", "v3")]
        (task,) = correct_gaps([task_of(gaps)], asked)
        wide = [replace(gap.efficiency, num_compared=1) for gap in task.gaps]
        assert [one.claimed for one in wide] == [claimed, claimed]


def test_only_complete_seeds_count() -> None:
    ours = {0.1: {0: 1.0, 1: 1.0}, 1.0: {0: 2.0}}
    theirs = {0.1: {0: 1.0}, 1.0: {0: 2.0, 1: 2.0}}
    assert told(ours, theirs).n == 1


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({1.0: {0: 1.0}}, {1.0: {0: 1.0}}),  # one amount is not a curve
        ({0.1: {0: 1.0}, 1.0: {0: 1.0}}, {0.2: {0: 1.0}, 1.0: {0: 1.0}}),  # one in common
        ({0.1: {0: 1.0}, 1.0: {0: 1.0}}, {0.1: {1: 1.0}, 1.0: {1: 1.0}}),  # no seed in common
    ],
)
def test_nothing_to_compare(
    ours: dict[float, dict[int, float]], theirs: dict[float, dict[int, float]]
) -> None:
    assert efficiency(ours, theirs, higher_is_better=True) is None


SCORES = st.lists(st.lists(st.integers(0, 100), min_size=3, max_size=3), min_size=3, max_size=3)


@settings(deadline=None)
@given(SCORES, SCORES, st.integers(1, 9))
def test_what_is_claimed_was_measured(
    ours: list[list[int]], theirs: list[list[int]], family: int
) -> None:
    made = [
        curve(**{f"p{10**place}": list(map(float, row)) for place, row in enumerate(rows)})
        for rows in (ours, theirs)
    ]
    found = replace(told(*made), num_compared=family)
    # Limits are never in the wrong order, and a larger family claims no more.
    low, high = found.at_least or 0.0, found.less_than or math.inf
    assert low < high
    more = replace(found, num_compared=family + 1)
    assert (more.at_least or 0.0) <= low
    assert (more.less_than or math.inf) >= high
    if found.claimed is None:
        return
    assert found.claimed in (10.0, 100.0)
    with_less, with_all = made[0][100.0 / found.claimed], made[1][100.0]
    if found.num_lacking == 2:  # a reference that gains to its end
        assert np.mean(list(with_less.values())) > np.mean(list(with_all.values()))


# -- simulated -------------------------------------------------------------------------------------

Score = Callable[[float], float]
SHAPES: dict[str, Score] = {
    "steep": lambda share: 50 + 10 * math.log2(share),
    "saturating": lambda share: 50 - 40 * math.exp(-6 * share),
    "settled": lambda share: 50 - 40 * math.exp(-40 * share),
    "flat": lambda _: 50.0,
}
AMOUNTS = {"labels": (24.0, 72.0, 240.0), "samples": (12_800.0, 25_600.0, 51_200.0)}
STUDIES = 400


def studies(
    score: Score, amounts: Sequence[float], n: int, *, times: float = 1.0
) -> list[Efficiency]:
    """Many studies of two arms, of which one does with an amount what the other does with `times`
    as much; a seed moves both arms by as much as every run moves by itself.
    """
    rng = np.random.default_rng(n)
    found = []
    for _ in range(STUDIES):
        seeds = rng.normal(0, 1, n)
        arms = [
            {
                amount: dict(
                    enumerate(score(a * amount / amounts[-1]) + seeds + rng.normal(0, 1, n))
                )
                for amount in amounts
            }
            for a in (times, 1.0)
        ]
        found.append(told(*arms))
    return found


def at_most(rate: float, num: int) -> int:
    """What a rate gives in `num` tries, but for one case in a thousand."""
    return int(scipy_stats.binom.ppf(0.999, num, rate))


@pytest.mark.parametrize("what", AMOUNTS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [3, 5, 7])
def test_nothing_is_claimed_where_arms_do_not_differ(what: str, shape: str, n: int) -> None:
    found = studies(SHAPES[shape], AMOUNTS[what], n)
    said = [gap_sentence(gap_of(one, what)) for one in found]
    wrong = sum("at least" in line or "worse than" in line for line in said)
    assert wrong <= at_most(0.05, STUDIES)
    assert sum("at least" in line for line in said) <= at_most(0.01, STUDIES)
    # The limits: the true factor is 1. Where more is of no use to the reference either, "1" is
    # what it needs at the least, which is fewer amounts than it had.
    outside = [one for one in found if (one.claimed or 1) > 1 or (one.less_than or 2) <= 1]
    assert len(outside) <= at_most(0.05, STUDIES)


SHARES = (15.0, 30.0, 60.0, 120.0, 240.0)


@pytest.mark.parametrize("times", [2.0, 4.0, 3.0])
@pytest.mark.parametrize("shape", ["steep", "saturating"])
@pytest.mark.parametrize("n", [3, 5, 7])
def test_the_limits_hold_as_often_as_they_say(times: float, shape: str, n: int) -> None:
    # A limit at the very factor is the hardest case: it is the null hypothesis of one test.
    found = studies(SHAPES[shape], SHARES, n, times=times)
    outside = sum(
        (one.at_least or 0) > times or (one.less_than or math.inf) <= times for one in found
    )
    assert outside <= at_most(0.05, STUDIES)


@pytest.mark.parametrize("n", [3, 5, 7])
def test_a_large_effect_is_claimed(n: int) -> None:
    # Four times fewer on a steep curve: with half of the labels it is ten points above, which is
    # seven standard deviations of the difference of two runs.
    found = studies(SHAPES["steep"], SHARES, n, times=4.0)
    assert sum((one.claimed or 1) >= 2 for one in found) >= 0.95 * STUDIES
    assert sum(one.less_than is not None and one.less_than <= 8 for one in found) > 0.9 * STUDIES


def test_many_arms_together_claim_no_more_than_one() -> None:
    # 5 % are of a whole family: ten arms that are just as good with a third of the labels as the
    # baseline with all, at which "at least 3.3 times" is right and "less than 3.3 times" is not.
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(200):
        found = studies_of_a_family(rng, arms=10)
        wrong += any((one.less_than or math.inf) <= 240 / 72 for one in found)
    assert wrong <= at_most(0.05, 200)


def studies_of_a_family(rng: np.random.Generator, *, arms: int) -> list[Efficiency]:
    amounts = AMOUNTS["labels"]
    means = {24.0: 40.0, 72.0: 50.0, 240.0: 60.0}
    theirs = {
        amount: dict(enumerate(means[amount] - 10 + rng.normal(0, 1, 5))) for amount in amounts
    }
    gaps = [
        gap_of(
            told({a: dict(enumerate(means[a] + rng.normal(0, 1, 5))) for a in amounts}, theirs),
            "labels",
            arm=f"v{number}",
        )
        for number in range(arms)
    ]
    (task,) = correct_gaps([task_of(gaps)], ["v0", *(f"v{number}" for number in range(arms))])
    return [gap.efficiency for gap in task.gaps]


def task_of(gaps: list[Gap]) -> TaskResult:
    return TaskResult(
        name="segmentation", kind="segmentation", protocol="quick", protocol_digest="0",
        metric=metric_of("mIoU"),
        fraction=1.0, num_train=240, num_test=120, values={}, means={}, others=[],
        comparisons=[], relative={}, curves={}, ladders={}, gaps=gaps, pictures=[],
    )  # fmt: skip


def gap_of(found: Efficiency, what: str = "labels", *, arm: str = "v2") -> Gap:
    return Gap(arm=arm, reference="v1", what=what, metric=metric_of("AbsRel"), efficiency=found)


# -- in words --------------------------------------------------------------------------------------


def said(ours: Curve, theirs: Curve, what: str = "labels", *, family: int = 1) -> str:
    found = replace(told(ours, theirs), num_compared=family)
    gap = Gap(arm="v2", reference="v1", what=what, metric=metric_of("mIoU"), efficiency=found)
    return f"{factor(gap)} | {factor_limit(gap)} | {gap_sentence(gap)}"


W1 = curve(p24=[0.20, 0.21, 0.22], p72=[0.31, 0.30, 0.32], p240=[0.40, 0.42, 0.41])


def test_a_factor() -> None:
    v2 = curve(p24=[0.25, 0.26, 0.28], p72=[0.45, 0.46, 0.47], p240=[0.50, 0.52, 0.53])
    # Gains of 72 over 240: 5, 4, 6 mIoU: mean 5, sd 1, t(0.975, 2) / sqrt(3) = 2.484.
    assert said(v2, W1) == (
        "\u2265 3.3\u00d7 | < 10\u00d7 | v2 with 72 of 240 labels beats v1 with 240 by 5.0 mIoU "
        "[2.5, 7.5]: at least 3.3 times fewer labels (< 10\u00d7), 3 seeds."
    )
    assert "at least 3.3 times less pretraining compute (< 10\u00d7)" in said(v2, W1, "compute")
    assert "v2 with 30 % of the pretraining compute beats v1 with 100 %" in said(v2, W1, "compute")
    assert "v2 with 72 of 240 pretraining samples beats" in said(v2, W1, "samples")
    # Of a family of four the interval is as wide as what is claimed: t(0.99375, 2) = 8.860.
    assert "(+5.0 mIoU [\u22120.1, +10.1])" in said(v2, W1, family=4)


def test_a_reference_that_is_settled() -> None:
    v2 = curve(p24=[0.45, 0.46, 0.47], p72=[0.45, 0.46, 0.47], p240=[0.50, 0.52, 0.53])
    settled = W1 | curve(p72=[0.41, 0.41, 0.42])
    assert said(v2, settled) == (
        "\u2265 3\u00d7 |  | v2 with 24 of 240 labels beats v1 with 240 by 5.0 mIoU [2.5, 7.5], "
        "and v1 does not measurably gain from more than 72: at least 3 times fewer labels, 3 seeds."
    )
    flat = settled | curve(p24=[0.40, 0.43, 0.42])
    # 24 over 240: 0, 1, 1 mIoU: mean 0.667, sd 0.577, so plus or minus 1.434.
    assert said(v2, flat) == (
        "undetermined |  | How many times fewer labels v2 needs than v1 is undetermined: v1 with "
        "24 does not differ significantly from v1 with 240 (+0.7 mIoU [\u22120.8, +2.1]), 3 seeds."
    )


def test_what_cannot_be_told_says_why() -> None:
    same = {amount: {s: v + 0.01 * (s - 1) for s, v in row.items()} for amount, row in W1.items()}
    assert (
        "with 240 the difference is not significant (+0.0 mIoU [\u22122.5, +2.5]), 3 seeds."
        in said(same, W1)
    )
    v2 = curve(p24=[0.25, 0.26, 0.28], p72=[0.41, 0.43, 0.45], p240=[0.50, 0.52, 0.53])
    assert said(v2, W1).startswith(
        "undetermined | < 10\u00d7 | How many times fewer labels v2 needs than v1 is undetermined "
        "(but < 10\u00d7): v2 with 72 is not significantly better than v1 with 240 (+2.0 mIoU ["
    )
    one = {amount: {0: row[0]} for amount, row in v2.items()}
    assert "undetermined: there is no interval, 1 seed." in said(one, W1)
    fixed = {amount: dict.fromkeys(range(3), row[0]) for amount, row in v2.items()}
    assert "the seed does not affect these runs" in said(
        fixed, {amount: dict.fromkeys(range(3), row[0]) for amount, row in W1.items()}
    )


def test_worse_with_all() -> None:
    v2 = curve(p24=[0.15, 0.16, 0.18], p72=[0.25, 0.26, 0.27], p240=[0.35, 0.36, 0.37])
    assert said(v2, W1) == (
        "< 1\u00d7 |  | v2 with 240 of 240 labels is worse than v1 with the same amount by 5.0 "
        "mIoU [2.5, 7.5]: it does not need fewer, 3 seeds."
    )


@given(st.floats(1.01, 1e6))
def test_limits_are_never_rounded_to_what_would_claim_more(value: float) -> None:
    low, high = (float(_times(value, up=up).replace(",", "")) for up in (False, True))
    assert low <= value + 1e-8
    assert high >= value - 1e-8
    assert high - low <= (1.001 if value >= 9.9 else 0.101)
