"""What a comparison counts: scores, lengths, words, names."""

from __future__ import annotations

import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.compare import words as compare_words
from curator.compare.stats import (
    LengthCounter,
    PairCounter,
    ScoreCounter,
)
from curator.compare.words import Sketch, WordCounter
from curator.core.names import MAYBE, NUMBER_WORDS, items_of, lost_items


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=50), st.integers(1, 4))
def test_scores_can_come_in_parts(values: list[float], num_parts: int) -> None:
    whole, parts = ScoreCounter(), ScoreCounter()
    whole.add(pl.Series(values, dtype=pl.Float32))
    for start in range(num_parts):
        parts.add(pl.Series(values[start::num_parts], dtype=pl.Float32))
    assert whole.result().histogram == parts.result().histogram
    assert whole.result().mean == pytest.approx(parts.result().mean, abs=1e-9)
    quartiles = whole.result().quartiles
    assert quartiles is not None
    exact = sorted(values)[math.ceil(0.5 * len(values)) - 1]
    assert quartiles[1] == pytest.approx(exact, abs=0.00051)


def test_the_interval_is_students() -> None:
    pairs = PairCounter()
    pairs.add(pl.Series([1.0, 2.0, 3.0, 4.0, 5.0, None]))
    found = pairs.result()
    # mean 3, sd sqrt(2.5), t(4 degrees, 97.5 %) = 2.776: 3 -+ 2.776 * sqrt(2.5 / 5)
    assert (found.n, found.mean, found.improved) == (5, 3.0, 1.0)
    assert found.low == pytest.approx(3 - 2.776 * math.sqrt(0.5), abs=0.01)
    assert found.high == pytest.approx(3 + 2.776 * math.sqrt(0.5), abs=0.01)


def test_lengths_share_the_last_bin() -> None:
    lengths = LengthCounter()
    lengths.add(pl.Series(["", "one", "one two", " ".join(["w"] * 500)]))
    found = lengths.result()
    assert found.histogram[:3] == (1, 1, 1)
    assert (len(found.histogram), found.histogram[-1]) == (201, 1)
    assert found.quantiles == (0, 0, 1, 2, 500)


def test_distinct_counts_are_exact_then_close() -> None:
    few, many = Sketch(), Sketch()
    for start in range(0, 30_000, 10_000):
        few.add(pl.Series(range(start, start + 20_000)).hash(seed=0))  # halves overlap
    assert few.count() == 40_000
    numbers = pl.Series(range(400_000))
    for _ in range(2):  # a second time changes nothing
        many.add(numbers.hash(seed=0))
    assert many.count() == pytest.approx(400_000, rel=0.02)


def test_vocabulary_by_hand() -> None:
    words = WordCounter()
    words.add(
        pl.Series(["a red car", "a red car", "Zug fährt"]),
        pl.Series(["a blue car", "a blue car", "a blue car", "a car's door", "a red car"]),
    )
    found = words.result()
    # old: a red car (2x), zug, fährt = 8 tokens, 5 distinct; pairs: a-red, red-car, zug-fährt of 5
    assert (found.old.num_tokens, found.old.num_distinct) == (8, 5)
    assert found.old.distinct_2 == pytest.approx(3 / 5)
    # new: 15 tokens; a, blue, car, car's, door, red
    assert (found.new.num_tokens, found.new.num_distinct) == (15, 6)
    assert [(w.word, w.old, w.new) for w in found.gained] == [("blue", 0, 3)]
    assert found.lost == ()  # "zug" stood there once: not frequent
    assert [(o.word, o.old, o.new) for o in found.openers][:2] == [
        ("a blue", 0, 3),
        ("a red", 2, 1),
    ]


@pytest.mark.parametrize(
    ("old", "new", "bits"),
    [
        (["a b"], ["b a"], 0.0),
        (["a"], ["b"], 1.0),
        # p = (1/2, 1/2), q = (1, 0), m = (3/4, 1/4):
        # (1/2 lb(2/3) + 1/2 lb 2) / 2 + lb(4/3) / 2 = 0.3113
        (["a b"], ["a"], 0.3113),
        ([], ["a"], 0.0),
    ],
)
def test_divergence_by_hand(old: list[str], new: list[str], bits: float) -> None:
    words = WordCounter()
    words.add(pl.Series(old, dtype=pl.String), pl.Series(new, dtype=pl.String))
    assert words.result().jsd_bits == pytest.approx(bits, abs=1e-4)


def test_rare_words_are_pooled_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_words, "_MAX_COUNTED", 4)
    words = WordCounter()
    words.add(pl.Series(["a a a b b c d e f"]), pl.Series(["a a a b b c d e f"]))
    found = words.result()
    assert found.old.num_distinct == 6  # counted apart, and still exact
    assert found.jsd_bits == 0.0
    assert "" not in [w.word for w in (*found.gained, *found.lost, *found.openers)]


@pytest.mark.parametrize(
    ("alt", "names", "numbers"),
    [
        ("Two dogs near Brighton", ("Brighton",), ("2",)),
        ("a boy at the Eiffel Tower in Paris, 1999.", ("Eiffel Tower", "Paris"), ("1999",)),
        ("He waits. Then Obama's dog comes", ("Obama",), ()),  # "Then" opens a sentence
        ('"Hello" they say', (), ()),  # so does a word behind a quote
        ("Red Summer Dress For Women 2021", (), ("2021",)),  # a headline
        ("IMG_2034.JPG www.shop.com/Paris", (), ()),  # no prose
        ("a 10-year-old and 3,000 people", (), ("10", "3000")),
        ("I see one of them", (), ()),  # "one" and "I" are pronouns
    ],
)
def test_names_and_numbers(alt: str, names: tuple[str, ...], numbers: tuple[str, ...]) -> None:
    assert items_of(alt) == (names, numbers)


def test_lost_names_and_numbers() -> None:
    items = items_of("Three kids with Anna Lee in New York in 1999")
    assert lost_items(items, ["3 kids in new york", "anna waves"]) == (("Anna Lee",), ("1999",))
    assert lost_items(items, ["THREE: Lee-Anna's NEW YORK of 1999"]) == ((), ())


@given(st.text(st.characters(codec="utf-8"), max_size=80))
def test_a_text_never_loses_its_own_names(text: str) -> None:
    assert lost_items(items_of(text), [text]) == ((), ())


_PIECES = [*"aB3é;.-_Ⅷ", "Anna", "1,000", "two", "TWELVE", " ", "  ", "'s"]


@given(st.lists(st.sampled_from([*_PIECES, *NUMBER_WORDS]), max_size=8).map("".join))
def test_no_name_or_number_passes_the_cheap_test_unseen(text: str) -> None:
    seen = pl.Series([text]).str.contains(MAYBE).item()
    assert seen or items_of(text) == ((), ())
