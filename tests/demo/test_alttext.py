"""Alt texts: shares, labels that hold, and false captions with one thing wrong."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.core.errors import UsageError
from curator.demo import language
from curator.demo.alttext import DEFAULT_RATES, KINDS, alt_text, parse_rates, wrong
from curator.demo.checker import check
from curator.demo.language import LENGTHS, Length
from curator.demo.scene import Scene, Solid, sample_scene
from curator.scorers.text import check_text

SEEDS = st.integers(0, 10_000)
TRUE = ("good", "html")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def only(kind: str) -> dict[str, float]:
    return parse_rates(f"{kind}=1")


def texts(kind: str, number: int = 100) -> list[tuple[str, Scene]]:
    found = []
    for seed in range(number):
        world = sample_scene(seed)
        alt = alt_text(world, sample_scene(seed + 50_000), only(kind), rng(seed))
        assert kind in (alt.kind, "other_caption")  # another scene's may be true by chance
        found.append((alt.text, world))
    return found


def red_cube(world: Scene) -> Scene:
    cube = Solid("cube", "red", "small", "matte", 0.0, 5.0, 0.0)
    return replace(world, solids=(cube,), ground="grass", sky="clear")


def test_default_rates_add_up() -> None:
    assert sum(DEFAULT_RATES.values()) == pytest.approx(1)
    assert tuple(DEFAULT_RATES) == KINDS


def test_rates_are_read() -> None:
    rates = parse_rates("good=0.5, spam = 0.5")
    assert rates == {kind: 0.5 if kind in ("good", "spam") else 0.0 for kind in KINDS}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("god=1", "did you mean 'good'"),
        ("", "unknown kind"),
        ("good=0.5", "add up to 0.5"),
        ("good=0.5,good=0.5", "two shares"),
        ("good=much", "'much'"),
        ("good=-1,spam=2", "'-1'"),
        ("good=nan", "'nan'"),
        ("good", "'good' is ''"),
    ],
)
def test_bad_rates_are_usage_errors(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        parse_rates(text)


def test_kinds_come_at_their_rates() -> None:
    draw = rng()
    pairs = [(sample_scene(seed), sample_scene(seed + 50_000)) for seed in range(40)]
    kinds = Counter(
        alt_text(*pairs[number % 40], DEFAULT_RATES, draw).kind for number in range(4000)
    )
    for kind, rate in DEFAULT_RATES.items():
        assert kinds[kind] / 4000 == pytest.approx(rate, abs=0.03), kind


@pytest.mark.parametrize("kind", TRUE)
def test_true_kinds_are_right(kind: str) -> None:
    assert [text for text, world in texts(kind) if not check(text, world).is_right] == []


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in (*TRUE, "foreign")])
def test_other_kinds_are_not_right(kind: str) -> None:
    assert [text for text, world in texts(kind) if check(text, world).is_right] == []


def test_good_texts_are_healthy() -> None:
    flagged = [text for text, _ in texts("good", 300) if not check_text(text).healthy]
    assert len(flagged) <= 2, flagged  # the language detector errs once in a thousand


@pytest.mark.parametrize(
    ("kind", "flag", "share"),
    [("file_name", "file_name", 0.9), ("spam", "spam", 0.9), ("html", "html", 1.0)],
)
def test_noise_is_what_the_text_scorer_knows(kind: str, flag: str, share: float) -> None:
    flagged = [flag in check_text(text).flags for text, _ in texts(kind)]
    assert np.mean(flagged) >= share


def test_empty_texts_have_nothing_to_read() -> None:
    assert {text.strip() for text, _ in texts("empty")} == {""}


def test_there_are_many_noise_texts() -> None:
    for kind, least in (("vague", 30), ("spam", 50), ("sku", 90), ("file_name", 90)):
        assert len({text for text, _ in texts(kind, 200)}) >= least, kind


def test_foreign_captions_are_true() -> None:
    world = red_cube(sample_scene(0))
    said = {alt_text(world, world, only("foreign"), rng(seed)).text for seed in range(30)}
    assert said == {
        "ein roter Würfel auf Gras",
        "un cube rouge sur l'herbe",
        "un cubo rojo sobre la hierba",
    }


def test_foreign_plurals_and_genders() -> None:
    one = red_cube(sample_scene(0)).solids[0]
    ball, other = replace(one, shape="sphere", color="blue"), replace(one, shape="sphere", x=1.0)
    world = replace(sample_scene(0), solids=(ball, replace(other, color="blue")), ground="snow")
    said = {alt_text(world, world, only("foreign"), rng(seed)).text for seed in range(30)}
    assert said == {
        "zwei blaue Kugeln auf Schnee",
        "deux sphères bleues sur la neige",
        "dos esferas azules sobre la nieve",
    }


def test_a_true_caption_of_another_scene_is_no_noise() -> None:
    world = red_cube(sample_scene(0))
    alt = alt_text(world, world, only("other_caption"), rng())
    assert alt.kind == "wrong_attribute"
    assert not check(alt.text, world).is_right


@given(SEEDS, st.sampled_from(LENGTHS))
def test_wrong_captions_are_wrong(seed: int, length: Length) -> None:
    world = sample_scene(seed)
    assert not check(wrong(world, rng(seed), length), world).is_right


def pieces(text: str) -> list[str]:
    text = text.replace("standing on the ", "standing on ").rstrip(".")
    return re.split(r", | and | standing | under | at ", text)


@given(SEEDS, st.sampled_from(["short", "detailed"]))
def test_one_thing_is_wrong(seed: int, length: Length) -> None:
    world = sample_scene(seed)
    true = pieces(language.caption(world, length, rng(seed)))
    false = pieces(wrong(world, rng(seed), length))
    changed = [pair for pair in zip(true, false, strict=True) if pair[0] != pair[1]]
    assert len(changed) == 1
    before, after = (re.sub(r"\ban\b", "a", phrase).split() for phrase in changed[0])
    num_words = sum(a != b for a, b in zip(before, after, strict=True))
    assert num_words <= 2  # "a cube" -> "two cubes"


def test_everything_that_can_be_wrong_is_wrong_once_in_a_while() -> None:
    world = red_cube(sample_scene(0))
    false = {" ".join(pieces(wrong(world, rng(seed), "detailed"))) for seed in range(300)}
    assert "a small matte blue cube on grass a clear sky" in false
    assert "a small matte red cone on grass a clear sky" in false
    assert "two small matte red cubes on grass a clear sky" in false
    assert "a small shiny red cube on grass a clear sky" in false
    assert "a large matte red cube on grass a clear sky" in false
    assert "a small matte red cube on snow a clear sky" in false
    # 7 colors, 4 shapes, 2 counts, 3 materials, 1 size, 3 grounds
    assert len(false) == 20


def test_a_wrong_relation_turns_a_true_one() -> None:
    cube = red_cube(sample_scene(0)).solids[0]
    ball = replace(cube, shape="sphere", color="blue", x=2.0)
    world = replace(red_cube(sample_scene(0)), solids=(cube, ball))
    false = [wrong(world, rng(seed), "spatial") for seed in range(60)]
    assert any("red cube is right of the blue sphere" in text for text in false)
