"""What a few seeds can tell: by hand, against scipy and statsmodels, and by simulation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from finetune.report.stats import (
    Difference,
    PairedValues,
    difference,
    expanded_level,
    fewest_pairs,
    hedges,
    holm,
    mean_of,
    pair,
    pooled_sd,
    power,
    relative_change,
    seeds_needed,
    smallest_detectable,
)


def pairs_of(gains: list[float]) -> PairedValues:
    """Pairs with these differences; the values of the second arm vary as seeds do."""
    second = {seed: 10.0 + seed for seed in range(len(gains))}
    return pair({seed: second[seed] + gain for seed, gain in enumerate(gains)}, second)


def told(gains: list[float]) -> Difference:
    return difference(pairs_of(gains), higher_is_better=True)


def test_pairs_are_by_seed_and_what_is_missing_is_named() -> None:
    found = pair({3: 30.0, 1: 10.0, 2: 20.0}, {1: 1.0, 3: 3.0, 7: 7.0})
    assert (found.seeds, found.first, found.second) == ((1, 3), (10.0, 30.0), (1.0, 3.0))
    assert (found.only_first, found.only_second) == ((2,), (7,))


def test_a_difference_by_hand() -> None:
    # Gains 1, 2, 3: mean 2, sd 1, standard error 1/sqrt(3); t(0.975, 2) = 4.302653.
    found = told([1.0, 2.0, 3.0])
    half = 4.302653 / math.sqrt(3)
    assert found.mean == pytest.approx(2.0)
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half), abs=1e-5)
    assert found.method == "paired t"
    # d_z = 2, J(2) = Gamma(1) / (sqrt(1) Gamma(1/2)) = 1/sqrt(pi).
    assert found.effect == pytest.approx(2 / math.sqrt(math.pi))
    assert found.p == pytest.approx(scipy_stats.ttest_1samp([1.0, 2.0, 3.0], 0).pvalue)
    assert found.outcome == "unclear"


def test_where_less_is_better_a_fall_is_a_gain() -> None:
    pairs = pair({0: 0.5, 1: 0.52, 2: 0.51}, {0: 0.6, 1: 0.61, 2: 0.62})
    found = difference(pairs, higher_is_better=False)
    assert found.mean == pytest.approx(0.1)
    assert found.outcome == "better"
    assert difference(pairs, higher_is_better=True).outcome == "worse"


def test_one_pair_has_no_interval() -> None:
    found = told([5.0])
    assert (found.n, found.mean, found.low, found.p, found.effect) == (1, 5.0, None, None, None)
    assert found.outcome == "unclear"


def test_differences_that_never_vary_prove_nothing() -> None:
    # A seed that does not reach the runs would otherwise be the surest of all results. 0.1 + 0.2
    # is not 0.3, so "the same" has to be told from rounding.
    pairs = pair({0: 0.1 + 0.2, 1: 0.4}, {0: 0.2, 1: 0.3})
    found = difference(pairs, higher_is_better=True)
    assert (found.method, found.low, found.outcome) == ("none", None, "unclear")


def test_ten_pairs_are_bootstrapped_and_reproducible() -> None:
    gains = [0.1, 0.4, 0.2, 0.9, 0.3, 0.5, 0.2, 0.1, 0.6, 0.3]
    found = told(gains)
    assert found.method == "BCa bootstrap"
    assert found == told(gains)
    again = scipy_stats.bootstrap(
        (gains,), np.mean, confidence_level=expanded_level(10), rng=np.random.default_rng(5)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((again.low, again.high), abs=0.02)


# Simulated with 400 studies each: the standard error of a coverage of 95 % is 1.1 %.
@pytest.mark.parametrize("n", [3, 5, 9, 10])
def test_intervals_cover_as_often_as_they_say(n: int) -> None:
    rng = np.random.default_rng(n)
    hits = 0
    for _ in range(400):
        found = told(list(rng.normal(0.5, 1.0, n)))
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0.5 <= found.high
    assert 0.915 <= hits / 400 <= 0.985


def test_a_plain_bootstrap_of_few_would_not() -> None:
    # Why there is no bootstrap below ten pairs: at the plain level five values cover 85 %.
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        values = rng.normal(0.5, 1.0, 5)
        found = scipy_stats.bootstrap(
            (values,), np.mean, n_resamples=999, rng=np.random.default_rng(0)
        ).confidence_interval
        hits += found.low <= 0.5 <= found.high
    assert hits / 300 < 0.9


def test_expanded_level() -> None:
    # n = 4: t(0.975, 3) = 3.182446, times sqrt(4/3) = 3.674773; 1 - 2 * (1 - Phi(that)).
    assert expanded_level(4) == pytest.approx(1 - 2 * scipy_stats.norm.sf(3.674773), abs=1e-8)
    assert expanded_level(1000) == pytest.approx(0.95, abs=1e-3)


@pytest.mark.parametrize(("degrees", "factor"), [(2, 0.5642), (4, 0.7979), (9, 0.9139)])
def test_hedges(degrees: int, factor: float) -> None:
    assert hedges(degrees) == pytest.approx(factor, abs=5e-5)
    assert hedges(degrees) == pytest.approx(1 - 3 / (4 * degrees - 1), abs=0.02)  # Hedges 1981


def test_two_pairs_name_no_winner() -> None:
    # 1.00 and 1.01 over 0: p = 0.003, and towers of which half learn the task would do the same.
    found = told([1.00, 1.01])
    assert found.excludes_zero
    assert found.is_significant
    assert found.outcome == "unclear"


def test_fewest_pairs_by_hand() -> None:
    # The towers of the baseline all fail: 1 / 2^n. Those of one of k candidates all learn:
    # 1 - (1 - 1 / 2^n)^k. Twice the product: 1/32 for n = 3, k = 1; 0.0586 for k = 2; for n = 4
    # 0.0454 with k = 7 and 0.0504 with k = 8.
    assert [fewest_pairs(k) for k in (1, 2, 7, 8, 50, 51)] == [3, 4, 4, 5, 5, 6]


def test_pooled_sd() -> None:
    # Variances 1 (two degrees of freedom) and 4 (one): (2 * 1 + 1 * 4) / 3 = 2.
    sd, degrees = pooled_sd([told([1.0, 2.0, 3.0]), told([0.0, math.sqrt(8)]), told([5.0])])
    assert (sd, degrees) == (pytest.approx(math.sqrt(2)), 3)


def with_p(p: float | None) -> Difference:
    base = told([1.0, 1.2, 0.8, 1.1])
    return replace(base, p=p) if p is not None else told([1.0])


def test_holm_by_hand() -> None:
    # Sorted: 0.01 * 3, 0.02 * 2, 0.04 * 1, each at least as large as the one before it.
    found = holm([with_p(0.04), with_p(0.01), with_p(0.02), with_p(None)])
    assert [one.p_adjusted for one in found] == pytest.approx([0.04, 0.03, 0.04, None])
    assert [one.num_compared for one in found] == [3, 3, 3, 1]  # one without a p is not counted
    assert holm([]) == []


@pytest.mark.parametrize("number", [1, 2, 9])
def test_holm_is_that_of_statsmodels(number: int) -> None:
    values = list(np.random.default_rng(number).uniform(0, 0.3, number))
    theirs = multipletests(values, method="holm")[1]
    assert [one.p_adjusted for one in holm(list(map(with_p, values)))] == pytest.approx(theirs)


def test_a_win_has_to_survive_the_correction() -> None:
    alone = with_p(0.03)
    assert alone.outcome == "better"
    assert [one.outcome for one in holm([alone, alone])] == ["unclear", "unclear"]


@settings(deadline=None)
@given(st.integers(2, 60), st.floats(0.05, 3.0), st.sampled_from([0.05, 0.01, 0.005]))
def test_power_is_that_of_statsmodels(n: int, effect: float, alpha: float) -> None:
    theirs = TTestPower().power(effect, n, alpha)
    ours = power(effect, n, alpha=alpha)
    assert math.isfinite(ours)
    if math.isfinite(theirs):  # it is not for some large effects, which is why ours exists
        assert ours == pytest.approx(theirs, abs=1e-6)


def test_seeds_needed() -> None:
    # Cohen's table: an effect of 1 needs 10 pairs at 5 %, two-sided, 80 % power; 0.5 needs 34.
    assert seeds_needed(1.0, 1.0) == 10
    assert seeds_needed(-0.5, 1.0) == 34
    assert power(50.0, 2) > 0.8  # two pairs would do, but name no winner
    assert seeds_needed(50.0, 1.0) == 3
    assert seeds_needed(50.0, 1.0, fewest=4) == 4
    assert seeds_needed(0.0, 1.0) is None
    assert seeds_needed(1.0, 0.0) is None
    assert seeds_needed(0.01, 1.0) is None


@settings(deadline=None)
@given(st.integers(3, 30), st.floats(0.1, 10))
def test_the_smallest_detectable_difference_is_detectable(n: int, sd: float) -> None:
    least = smallest_detectable(sd, n)
    assert power(least / sd, n) == pytest.approx(0.8, abs=1e-6)
    needed = seeds_needed(least * (1 + 1e-6), sd)
    assert needed is not None
    assert needed <= n


def test_mean_of() -> None:
    found = mean_of([1.0, 2.0, 3.0])
    assert found.sd == pytest.approx(1.0)
    assert (found.low, found.high) == pytest.approx((2 - 2.48414, 2 + 2.48414), abs=1e-4)
    assert mean_of([4.0]).low is None


def test_relative_change_as_papers_print_it() -> None:
    # 53.9 over 48.1 is +12.1 %, in both seeds.
    found = relative_change(pair({0: 53.9, 1: 53.9}, {0: 48.1, 1: 48.1}))
    assert found is not None
    assert found.change == pytest.approx(0.1206, abs=1e-4)
    one = relative_change(pair({0: 0.356}, {0: 0.402}))
    assert one is not None
    assert one.change == pytest.approx(-0.1144, abs=1e-4)
    assert one.low is None
    assert relative_change(pair({0: 0.0}, {0: 1.0})) is None
    assert relative_change(pair({0: 1.0}, {1: 1.0})) is None


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=9))
def test_who_is_first_turns_the_sign_and_nothing_else(values: list[float]) -> None:
    first = {seed: value for seed, value in enumerate(values)}
    second = {seed: 50.0 + seed for seed in first}
    there = difference(pair(first, second), higher_is_better=True)
    back = difference(pair(second, first), higher_is_better=True)
    assert there.mean == pytest.approx(-back.mean)
    assert (there.low is None) == (back.low is None)
    if there.low is not None and back.high is not None:
        assert there.low == pytest.approx(-back.high)
