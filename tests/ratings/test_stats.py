"""What a few blind ratings say, worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from curator.ratings import log as rating_log
from curator.ratings import stats as rating_stats
from curator.ratings.log import Vote

# -- win rate -------------------------------------------------------------------------------------


def cast(*said: str) -> list[Vote]:
    """A vote for each word like `1:new` (item 1, by Anna) or `1:new:Bob`."""
    found = []
    for word in said:
        item, verdict, who = (*word.split(":"), "Anna")[:3]
        assert verdict in rating_log.VERDICTS
        found.append(Vote(item=item, who=who, verdict=verdict))
    return found


def outcome(wins: int = 0, losses: int = 0, equal: int = 0, both_bad: int = 0) -> list[Vote]:
    counts = {"new": wins, "old": losses, "equal": equal, "both_bad": both_bad}
    return [
        Vote(item=f"{verdict} {number}", who="Anna", verdict=verdict)
        for verdict in rating_log.VERDICTS
        for number in range(counts[verdict])
    ]


def wilson(rate: float, n: int) -> tuple[float, float]:
    """Wilson 1927, written out."""
    z = 1.959963985
    middle = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    return middle - half, middle + half


def test_a_win_rate_by_hand() -> None:
    found = rating_stats.win_rate(outcome(wins=8, losses=2))
    assert (found.wins, found.losses, found.ties, found.num_items) == (8, 2, 0, 10)
    assert found.rate == 0.8
    assert (found.low, found.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    # (1 + 10 + 45) / 1024 on either side
    assert found.p_value == pytest.approx(2 * 56 / 1024)


def test_ties_are_half_a_win_and_not_in_the_sign_test() -> None:
    found = rating_stats.win_rate(outcome(wins=5, losses=1, equal=3, both_bad=1))
    assert (found.ties, found.num_both_bad) == (4, 1)
    assert found.rate == 0.7
    assert (found.low, found.high) == pytest.approx(wilson(0.7, 10))
    assert found.p_value == pytest.approx(2 * (1 + 6) / 64)


def test_ties_alone_have_no_sign() -> None:
    found = rating_stats.win_rate(outcome(equal=2, both_bad=2))
    assert (found.rate, found.p_value, found.num_both_bad) == (0.5, None, 2)


def test_nobody_rated() -> None:
    found = rating_stats.win_rate([])
    assert (found.num_items, found.rate, found.low, found.high, found.p_value) == (0,) + (None,) * 4
    assert rating_stats.sentence(found, "v1", "v2") == "There are no ratings yet."


def test_ratings_of_one_item_are_one_vote_of_the_majority() -> None:
    found = rating_stats.win_rate(
        cast(
            "1:new:Anna", "1:new:Bob", "1:old:Cleo",           # a win
            "2:old:Anna", "2:equal:Bob",                       # one for, none against: a loss
            "3:new:Anna", "3:old:Bob",                         # divided: a tie
            "4:both_bad:Anna", "4:both_bad:Bob", "4:equal:Cleo",   # a tie, both bad
            "5:both_bad:Anna", "5:equal:Bob",                  # a tie, not by most both bad
        )
    )  # fmt: skip
    assert (found.wins, found.losses, found.ties, found.num_both_bad) == (1, 1, 3, 1)
    assert found.num_ratings == 12
    assert found.rate == 0.5


@pytest.mark.parametrize(
    ("wins", "losses", "begins"),
    [
        (18, 2, "The texts of v2 are preferred to those of v1: win rate of 90%"),
        (2, 18, "The texts of v1 are preferred to those of v2: v2 has a win rate of 10%"),
        (8, 4, "No significant difference between v1 and v2: v2 has a win rate of 67%"),
    ],
)
def test_no_winner_is_named_inside_noise(wins: int, losses: int, begins: str) -> None:
    said = rating_stats.sentence(
        rating_stats.win_rate(outcome(wins=wins, losses=losses)), "v1", "v2"
    )
    assert said.startswith(begins)
    assert f"n = {wins + losses}, sign test p =" in said


# -- agreement ------------------------------------------------------------------------------------


def two_raters(table: Sequence[Sequence[int]]) -> list[Vote]:
    """Votes of Anna (rows) and Bob (columns): new, old, equal, both bad."""
    found: list[Vote] = []
    for row, counts in zip(rating_log.VERDICTS, table, strict=False):
        for column, count in zip(rating_log.VERDICTS, counts, strict=False):
            for _ in range(count):
                item = str(len(found))
                found.append(Vote(item=item, who="Anna", verdict=row))
                found.append(Vote(item=item, who="Bob", verdict=column))
    return found


def test_cohens_kappa_by_hand() -> None:
    """20 and 15 of 50 the same: 0.7; by chance 0.5 x 0.6 + 0.5 x 0.4 = 0.5."""
    (found,) = rating_stats.agreement(two_raters([[20, 5], [10, 15]]))
    assert (found.raters, found.num_items) == (("Anna", "Bob"), 50)
    assert found.same == pytest.approx(0.7)
    assert found.kappa == pytest.approx((0.7 - 0.5) / (1 - 0.5))
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.4 < found.high < 0.7


def test_fleiss_kappa_by_hand() -> None:
    """Agreement 1 and 1/3, so 2/3; by chance (5/6)^2 + (1/6)^2 = 13/18."""
    votes = cast("1:new:A", "1:new:B", "1:new:C", "2:new:A", "2:new:B", "2:old:C", "3:old:A")
    everybody, *pairs = rating_stats.agreement(votes)
    assert (everybody.raters, everybody.num_items) == (("A", "B", "C"), 2)
    assert everybody.same == 0.5
    assert everybody.kappa == pytest.approx((2 / 3 - 13 / 18) / (1 - 13 / 18))
    assert [(pair.raters, pair.num_items, pair.same) for pair in pairs] == [
        (("A", "B"), 2, 1.0),
        (("A", "C"), 2, 0.5),
        (("B", "C"), 2, 0.5),
    ]


def test_the_same_answer_to_everything_has_no_kappa() -> None:
    (found,) = rating_stats.agreement(cast("1:new:A", "1:new:B", "2:new:A", "2:new:B"))
    assert (found.same, found.kappa, found.low) == (1.0, None, None)


def test_two_who_never_agree() -> None:
    (found,) = rating_stats.agreement(cast("1:new:A", "1:old:B", "2:new:A", "2:old:B"))
    assert (found.same, found.kappa) == (0.0, 0.0)


def test_raters_without_a_common_item_are_left_out() -> None:
    assert rating_stats.agreement(cast("1:new:A", "2:new:B")) == []
    assert rating_stats.agreement(cast("1:new:A", "2:new:A")) == []
