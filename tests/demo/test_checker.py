"""The checker: free captions read and held against a scene, by hand and for every grammar's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.demo.checker import FACTS, ClaimCounts, check, total
from curator.demo.language import LENGTHS, Length, caption
from curator.demo.reader import read
from curator.demo.scene import Camera, Scene, Solid, sample_scene

# From left to right: a red cube with a cone on it, two blue spheres, one before the other.
WORLD = Scene(
    seed=0,
    solids=(
        Solid("cube", "red", "large", "shiny", -1.5, 6.0, 0.0),
        Solid("cone", "green", "small", "striped", -1.5, 6.0, 0.0, bottom=1.2, on=0),
        Solid("sphere", "blue", "small", "matte", 0.4, 4.0, 0.0),
        Solid("sphere", "blue", "large", "dotted", 1.8, 7.0, 0.0),
    ),
    ground="grass",
    sky="night",
    camera=Camera(height=2.0, pitch=0.2, focal=1.0),
    light=(0.0, 1.0, 0.0),
    noise=0.0,
    blur=0.0,
)


def said(text: str) -> list[tuple[str, ...]]:
    """The solids a text mentions: shape, then what is claims of it in alphabetical order."""
    return [
        (mention.shape, *sorted(value for _, value in mention.claims))
        for mention in read(text).mentions
    ]


def related(text: str) -> list[tuple[str, str, str]]:
    return [(a[0].shape, name, b[0].shape) for a, name, b in read(text).relations]


@pytest.mark.parametrize(
    ("text", "mentions"),
    [
        ("a big glossy ring", [("torus", "large", "shiny")]),
        ("2 little polka-dotted balls", [("sphere", "dotted", "small")] * 2),
        ("A pair of metallic donuts!", [("torus", "shiny")] * 2),
        ("a teal box, violet block", [("cube", "cyan"), ("cube", "purple")]),
        ("a small, shiny red cube", [("cube", "red", "shiny", "small")]),
        # Told after the noun.
        ("The cube is red and shiny; the ball blue.", [("cube", "red", "shiny"), ("sphere",)]),
        ("The cube is red, the ball is blue.", [("cube", "red"), ("sphere", "blue")]),
        ("a cube, colored red, with a shiny surface", [("cube", "red", "shiny")]),
        ("a cone in purple with stripes", [("cone", "purple", "striped")]),
        ("a red-colored cylinder", [("cylinder", "red")]),
        # The same solid again.
        ("a red cube. the red cube is small.", [("cube", "red", "small")]),
        ("a red cube. another red cube", [("cube", "red"), ("cube", "red")]),
        ("Three balls. The red ball is left.", [("sphere", "red"), ("sphere",), ("sphere",)]),
        ("two cones. the two cones are green", [("cone", "green"), ("cone", "green")]),
        ("a red cube and a blue cube. the cube is small", [("cube", "red"), ("cube", "blue")]),
        # Colors of other things.
        ("a cube on green grass under a blue sky with white clouds", [("cube",)]),
        ("a cube on a white background, red light", [("cube",)]),
        ("a cube casting a dark shadow in soft white light", [("cube",)]),
        ("six three-dimensional objects: a cone", [("cone",)]),
        # Stripes and dots are white, on white solids black.
        ("a red and white striped ball", [("sphere", "red", "striped")]),
        ("a white ball with black dots", [("sphere", "dotted", "white")]),
        # Not there.
        ("There is no cone, only a cube without stripes", [("cube",)]),
        ("nice picture", []),
        ("", []),
    ],
)
def test_mentions(text: str, mentions: list[tuple[str, ...]]) -> None:
    assert said(text) == mentions


@pytest.mark.parametrize(
    ("text", "relations"),
    [
        ("the cube is to the left of the ball", [("cube", "left of", "sphere")]),
        ("a cone sits on a red block", [("cone", "on top of", "cube")]),
        ("a cube on the right of a small, red ball", [("cube", "right of", "sphere")]),
        ("a ring beneath a cone", [("torus", "under", "cone")]),
        ("In front of the cube there is a ball.", [("sphere", "in front of", "cube")]),
        (
            "A cube left of a ball and behind a cone",
            [("cube", "left of", "sphere"), ("cube", "behind", "cone")],
        ),
        (
            "A cube left of a ball behind a cone",
            [("cube", "left of", "sphere"), ("sphere", "behind", "cone")],
        ),
        # The next one as well, but for one that has a relation or a verb of its own.
        (
            "a cube behind a ball and a red cone on grass",
            [("cube", "behind", "sphere"), ("cube", "behind", "cone")],
        ),
        (
            "The cube is left of the ball and two cones and the ring.",
            [
                ("cube", "left of", "sphere"),
                ("cube", "left of", "cone"),
                ("cube", "left of", "torus"),
            ],
        ),
        (
            "a cube behind a ball and a cone in front of a ring",
            [("cube", "behind", "sphere"), ("cone", "in front of", "torus")],
        ),
        ("the cube is left of the ball and the cone is red", [("cube", "left of", "sphere")]),
        ("a cube left of a ball and a cone stands on sand", [("cube", "left of", "sphere")]),
        ("a cube left of a ball, a cone and a ring", [("cube", "left of", "sphere")]),
        ("a cube left of a ball and no cone", [("cube", "left of", "sphere")]),
        ("a cone on a cube and a ring on grass", [("cone", "on top of", "cube")]),
        (
            "Behind the cube and the ball is a cone.",
            [("cone", "behind", "cube"), ("cone", "behind", "sphere")],
        ),
        ("a cube on grass, a ball under a cloudy sky and a cone", []),
        ("On the left is a cube, on the right a ball. A cone behind it.", []),
        ("a cube on a platform near a ball", []),
        ("the cube is not behind the ball", []),
    ],
)
def test_relations_are_read(text: str, relations: list[tuple[str, str, str]]) -> None:
    assert related(text) == relations


@pytest.mark.parametrize(
    ("text", "ground", "sky"),
    [
        ("on a grassy field at sunset", {"grass"}, {"sunset"}),
        ("on a tiled floor under a starry sky", {"tiles"}, {"night"}),
        ("on the beach, the sky is clear", {"sand"}, {"clear"}),
        ("in the snow under a blue sky with clouds", {"snow"}, {"cloudy"}),
        ("no snow, on a wooden floor", {"wood"}, set()),
        ("a clear glass on the ground", set(), set()),
    ],
)
def test_ground_and_sky_are_read(text: str, ground: set[str], sky: set[str]) -> None:
    reading = read(text)
    assert (reading.ground, reading.sky) == (ground, sky)


def test_a_right_caption_tells_its_share() -> None:
    done = check("a large red cube and a blue sphere on grass", WORLD)
    assert done.is_right
    assert done.facts["object"] == ClaimCounts(2, 2, 4)
    assert done.facts["color"] == ClaimCounts(2, 2, 4)
    assert done.facts["size"] == ClaimCounts(1, 1, 4)
    assert done.facts["material"] == ClaimCounts(0, 0, 4)
    assert done.facts["ground"] == ClaimCounts(1, 1, 1)
    assert done.facts["sky"] == ClaimCounts(0, 0, 1)
    assert done.attributes == ClaimCounts(6, 6, 18)
    assert (done.precision, done.recall) == (1.0, 1 / 3)
    assert done.f1 == pytest.approx(0.5)


def test_a_missing_solid_and_its_color_are_wrong() -> None:
    done = check("a red cube, a red torus and three cones on sand", WORLD)
    assert (done.mentioned, done.hallucinated) == (5, 3)
    assert done.facts["color"] == ClaimCounts(1, 2, 4)
    assert done.facts["count"] == ClaimCounts(0, 1, 1)
    assert done.facts["ground"] == ClaimCounts(0, 1, 1)
    assert not done.is_right


def test_mentions_are_matched_to_different_solids_for_most_right_facts() -> None:
    # Taken in order, "a blue ball" would take the small one and make "small" wrong.
    done = check("a blue ball and a small matte ball", WORLD)
    assert done.is_right
    assert check("a small ball and a small ball", WORLD).facts["size"] == ClaimCounts(1, 2, 4)
    # One more right fact never costs a mention its solid.
    assert check("a dotted ball and a large dotted ball", WORLD).hallucinated == 0


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("two blue spheres", True),
        ("2 balls", True),
        ("the blue spheres", True),
        ("three blue spheres", False),
        ("two small blue spheres", False),
        ("two red cubes", False),
    ],
)
def test_counts(text: str, right: bool) -> None:
    assert check(text, WORLD).is_right == right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("the cube is left of the small ball", True),
        ("the cube is right of the small ball", False),
        ("the green cone is on top of the red cube", True),
        ("the cube is below the cone", True),
        ("the cube is on top of the cone", False),
        ("a ball in front of a cube", True),  # the small one is
        ("a large ball in front of a cube", False),
        ("the small ball is to the left of the large ball and in front of the cube", True),
    ],
)
def test_relations_are_held_against_the_scene(text: str, right: bool) -> None:
    assert check(text, WORLD).is_right == right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        # A solid and one thing more: an attribute, a count, a relation, ground or sky.
        ("a sphere", False),
        ("best spheres and cubes", False),
        ("a blue sphere", True),
        ("a sphere at night", True),
        ("a cube and a cone on grass", True),
        ("the cone is on top of the cube", True),
        ("a blue sphere on sand", False),
        ("a blue sphere and a torus", False),
        # All of it true, but nobody's description.
        ("blue spheres - free shipping worldwide", False),
        ("Limited time special offer: red cube, 20% discount, order now", False),
        ("red cube | Best Deals | Fast Delivery | www.cube-deals.com", False),
    ],
)
def test_right_needs_more_than_the_name_of_a_solid(text: str, right: bool) -> None:
    assert check(text, WORLD).is_right == right


def test_a_text_without_a_solid_is_not_right() -> None:
    for text in ("", "nice picture", "grass at night"):
        assert not check(text, WORLD).is_right


def test_total_adds_claims_up() -> None:
    added = total([check(text, WORLD) for text in ("a red cube", "a blue cube", "a torus", "")])
    assert added.captions == 4
    assert added.facts["object"] == ClaimCounts(2, 3, 16)
    assert added.facts["color"] == ClaimCounts(1, 2, 16)
    assert added.precision == pytest.approx(3 / 5)
    assert added.recall == pytest.approx(3 / (4 * 18))
    assert added.f1 == pytest.approx(2 * 3 / (5 + 72))
    assert added.hallucination_rate == pytest.approx(1 / 3)
    assert added.right_share == 1 / 4


def test_total_of_nothing_is_zero() -> None:
    added = total([])
    assert (added.captions, added.f1, added.hallucination_rate, added.right_share) == (0, 0, 0, 0)
    assert set(added.facts) == set(FACTS)


@given(st.integers(0, 100_000), st.sampled_from(LENGTHS))
def test_captions_of_the_grammar_are_right(seed: int, length: Length) -> None:
    world = sample_scene(seed)
    done = check(caption(world, length, np.random.default_rng(seed)), world)
    assert done.is_right
    claims = ("object", "color") if length == "short" else ("object", "color", "size", "material")
    assert [done.facts[fact].recall for fact in claims] == [1.0] * len(claims)
    if length != "short":
        assert done.recall == 1.0


_WORDS = (
    *("a", "the", "two", "3", "and", "is", "with", "no", "on", "left of", "behind", "one", "in"),
    *(
        "red",
        "white",
        "striped",
        "small",
        "cube",
        "balls",
        "ring",
        "grass",
        "sky",
        "clouds",
        "dots",
    ),
    *(",", ".", "\n", "surface", "dog", "it", "Fünf"),
)


@given(st.lists(st.sampled_from(_WORDS), max_size=60), st.integers(0, 50))
def test_any_words_give_sound_numbers(words: list[str], seed: int) -> None:
    done = check(" ".join(words), sample_scene(seed))
    for tally in done.facts.values():
        assert 0 <= tally.right <= tally.claimed
    assert all(done.facts[fact].right <= done.facts[fact].in_truth for fact in ("object", "color"))
    assert 0 <= done.hallucinated <= done.mentioned
    assert 0 <= done.f1 <= 1
    assert not math.isnan(done.precision + done.recall)


@given(st.text(max_size=300))
def test_any_text_is_read(text: str) -> None:
    check(text, WORLD)
