"""How many times fewer labels: gaps between curves, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from finetune.efficiency import Bound, Multiplier, _monotone, efficiency


def curve(**scores: list[float]) -> dict[float, dict[int, float]]:
    """`p1=[...]` are the scores of the seeds with 1 % of the labels, `p100` with all of them."""
    return {int(name[1:]) / 100: dict(enumerate(values)) for name, values in scores.items()}


def about(bound: Bound, value: float) -> Multiplier:
    """A multiplier to compare with, up to rounding."""
    return Multiplier(bound, pytest.approx(value))  # type: ignore[arg-type]  # equal to a float


def test_between_two_points() -> None:
    # The reference ends at 40. The curve has 30 at 10 % and 50 at 100 %: 40 is half way in the
    # logarithm, at 10^-0.5 of the labels, so sqrt(10) times fewer.
    found = efficiency(
        curve(p1=[10], p10=[30], p100=[50]),
        curve(p1=[5], p10=[20], p100=[40]),
        higher_is_better=True,
    )
    assert found is not None
    assert found.multiplier.bound == "="
    assert found.multiplier.value == pytest.approx(math.sqrt(10))
    assert (found.target, found.amount, found.n) == (40, 1.0, 1)
    assert found.low is None
    assert found.high is None


def test_at_a_point_that_was_measured() -> None:
    found = efficiency(
        curve(p1=[10], p10=[40], p100=[50]), curve(p1=[5], p10=[20], p100=[40]),
        higher_is_better=True,
    )  # fmt: skip
    assert found is not None
    assert found.multiplier == about("=", 10)


def test_nothing_is_extrapolated() -> None:
    better, worse = curve(p10=[50], p100=[60]), curve(p10=[30], p100=[40])
    found = efficiency(better, worse, higher_is_better=True)
    assert found is not None
    assert found.multiplier == about(">=", 10)
    back = efficiency(worse, better, higher_is_better=True)
    assert back is not None
    assert back.multiplier == Multiplier("<", 1.0)


def test_less_is_better() -> None:
    found = efficiency(
        curve(p1=[0.9], p10=[0.7], p100=[0.5]),
        curve(p1=[1.0], p10=[0.8], p100=[0.6]),
        higher_is_better=False,
    )
    assert found is not None
    assert found.target == pytest.approx(0.6)
    assert found.multiplier.value == pytest.approx(math.sqrt(10))


def test_a_dip_is_levelled() -> None:
    # 30, 50, 40 becomes 30, 45, 45: the target of 45 is reached at 10 %.
    found = efficiency(
        curve(p1=[30], p10=[50], p100=[40]), curve(p1=[1], p10=[2], p100=[45]),
        higher_is_better=True,
    )  # fmt: skip
    assert found is not None
    assert found.multiplier == about("=", 10)


def test_a_curve_against_itself_needs_as_many() -> None:
    same = curve(p1=[10, 11, 12], p10=[20, 22, 21], p100=[30, 29, 31])
    found = efficiency(same, same, higher_is_better=True)
    assert found is not None
    assert found.n == 3
    for one in (found.multiplier, found.low, found.high):
        assert one == about("=", 1.0)


def test_an_interval_can_end_in_a_bound() -> None:
    # Seed 2 is above the target at once, seed 0 needs nearly all: both ends are told as they are.
    found = efficiency(
        curve(p10=[20, 30, 60], p100=[41, 45, 70]),
        curve(p10=[20, 20, 20], p100=[40, 40, 40]),
        higher_is_better=True,
    )
    assert found is not None
    assert found.low is not None
    assert found.high == about(">=", 10)
    # Alone seed 0 would reach 40 at 10^(20/21 - 1) of the labels.
    assert found.low == about("=", 10 ** (1 / 21))


def test_only_complete_seeds_count() -> None:
    ours = {0.1: {0: 1.0, 1: 1.0}, 1.0: {0: 2.0}}
    theirs = {0.1: {0: 1.0}, 1.0: {0: 2.0, 1: 2.0}}
    found = efficiency(ours, theirs, higher_is_better=True)
    assert found is not None
    assert found.n == 1


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({1.0: {0: 1.0}}, {1.0: {0: 1.0}}),  # one amount is no curve
        ({0.1: {0: 1.0}, 1.0: {0: 1.0}}, {0.2: {0: 1.0}, 1.0: {0: 1.0}}),  # one in common
        ({0.1: {0: 1.0}, 1.0: {0: 1.0}}, {0.1: {1: 1.0}, 1.0: {1: 1.0}}),  # no seed in common
    ],
)
def test_nothing_to_compare(
    ours: dict[float, dict[int, float]], theirs: dict[float, dict[int, float]]
) -> None:
    assert efficiency(ours, theirs, higher_is_better=True) is None


SCORES = st.lists(st.integers(0, 100), min_size=3, max_size=3)


@settings(deadline=None)
@given(SCORES, SCORES, st.integers(1, 50))
def test_a_higher_curve_never_needs_more(ours: list[int], theirs: list[int], lift: int) -> None:
    def multiplier(scores: list[int]) -> float:
        found = efficiency(
            {0.01 * 10**place: {0: float(score)} for place, score in enumerate(scores)},
            {0.01 * 10**place: {0: float(score)} for place, score in enumerate(theirs)},
            higher_is_better=True,
        )
        assert found is not None
        return 0.0 if found.multiplier.bound == "<" else found.multiplier.value

    assert multiplier([score + lift for score in ours]) >= multiplier(ours) - 1e-9


@settings(deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=7))
def test_monotone_is_isotonic_regression(scores: list[float]) -> None:
    theirs = optimize.isotonic_regression(scores).x
    assert _monotone(np.array([scores]))[0] == pytest.approx(theirs, abs=1e-9)
