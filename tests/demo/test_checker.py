"""The checker: free captions read and held against a scene, by hand and for every grammar's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.demo.checker import FACTS, ClaimCounts, check, total
from curator.demo.language import LENGTHS, WORDS, Length, caption
from curator.demo.reader import read
from curator.demo.scene import KINDS, MATERIALS, Camera, Scene, Thing, sample_scene

# From left to right: a red box, two blue balls, one before the other, and a green tree. A made
# world has two things at most; the checker takes any number.
WORLD = Scene(
    seed=0,
    things=(
        Thing("box", "red", "shiny", 1.0, -1.5, 6.0, 0.0),
        Thing("ball", "blue", "matte", 1.0, 0.4, 4.0, 0.0),
        Thing("ball", "blue", "dotted", 1.0, 1.8, 7.0, 0.0),
        Thing("tree", "green", "striped", 1.0, 3.2, 6.0, 0.0),
    ),
    ground="grass",
    sky="night",
    camera=Camera(height=2.0, pitch=0.2, focal=1.0),
    light=(0.0, 1.0, 0.0),
    noise=0.0,
    blur=0.0,
)


def said(text: str) -> list[tuple[str, ...]]:
    """The things a text mentions: kind, then what it claims of it in alphabetical order."""
    return [
        (mention.kind, *sorted(value for _, value in mention.claims))
        for mention in read(text).mentions
    ]


def related(text: str) -> list[tuple[str, str, str]]:
    return [(a[0].kind, name, b[0].kind) for a, name, b in read(text).relations]


@pytest.mark.parametrize(
    ("text", "mentions"),
    [
        ("a big glossy ring", [("ring", "shiny")]),  # sizes are no claims
        ("2 little polka-dotted balls", [("ball", "dotted")] * 2),
        ("A pair of metallic donuts!", [("ring", "shiny")] * 2),
        ("a teal box, violet block", [("box", "cyan"), ("box", "purple")]),
        ("a small, shiny red cube", [("box", "red", "shiny")]),
        ("an hour glass beside a christmas tree", [("hourglass",), ("tree",)]),
        ("a white column and a red toadstool", [("pillar", "white"), ("mushroom", "red")]),
        ("two snowmen, three tables", [("snowman",)] * 2 + [("table",)] * 3),
        # Told after the noun.
        ("The box is red and shiny; the ball blue.", [("box", "red", "shiny"), ("ball",)]),
        ("The box is red, the ball is blue.", [("box", "red"), ("ball", "blue")]),
        ("a box, colored red, with a shiny surface", [("box", "red", "shiny")]),
        ("a cone in purple with stripes", [("cone", "purple", "striped")]),
        ("a red-colored pillar", [("pillar", "red")]),
        # The same thing again.
        ("a red box. the red box is shiny.", [("box", "red", "shiny")]),
        ("a red box. another red box", [("box", "red"), ("box", "red")]),
        ("Three balls. The red ball is left.", [("ball", "red"), ("ball",), ("ball",)]),
        ("two cones. the two cones are green", [("cone", "green"), ("cone", "green")]),
        ("a red box and a blue box. the box is shiny", [("box", "red"), ("box", "blue")]),
        # Colors of other things.
        ("a box on green grass under a blue sky with white clouds", [("box",)]),
        ("a box on a white background, red light", [("box",)]),
        ("a box casting a dark shadow in soft white light", [("box",)]),
        ("six three-dimensional objects: a cone", [("cone",)]),
        # Stripes and dots are white, on white things black.
        ("a red and white striped ball", [("ball", "red", "striped")]),
        ("a white ball with black dots", [("ball", "dotted", "white")]),
        # Not there.
        ("There is no cone, only a box without stripes", [("box",)]),
        ("nice picture", []),
        ("", []),
    ],
)
def test_mentions(text: str, mentions: list[tuple[str, ...]]) -> None:
    assert said(text) == mentions


@pytest.mark.parametrize("kind", KINDS)
def test_every_word_for_a_kind_is_read(kind: str) -> None:
    for one in WORDS["thing"][kind].split(", "):
        assert said(f"there is a red {one} here") == [(kind, "red")], one
    for several in WORDS["things"][kind].split(", "):
        assert said(f"there are two red {several} here") == [(kind, "red")] * 2, several


@pytest.mark.parametrize(
    ("text", "relations"),
    [
        ("the box is to the left of the ball", [("box", "left of", "ball")]),
        ("a cone sits on a red block", [("cone", "on top of", "box")]),
        ("a box on the right of a small, red ball", [("box", "right of", "ball")]),
        ("a ring beneath a cone", [("ring", "under", "cone")]),
        ("In front of the box there is a ball.", [("ball", "in front of", "box")]),
        (
            "A box left of a ball and behind a cone",
            [("box", "left of", "ball"), ("box", "behind", "cone")],
        ),
        (
            "A box left of a ball behind a cone",
            [("box", "left of", "ball"), ("ball", "behind", "cone")],
        ),
        # The next one as well, but for one that has a relation or a verb of its own.
        (
            "a box behind a ball and a red cone on grass",
            [("box", "behind", "ball"), ("box", "behind", "cone")],
        ),
        (
            "The box is left of the ball and two cones and the ring.",
            [("box", "left of", "ball"), ("box", "left of", "cone"), ("box", "left of", "ring")],
        ),
        (
            "a box behind a ball and a cone in front of a ring",
            [("box", "behind", "ball"), ("cone", "in front of", "ring")],
        ),
        ("the box is left of the ball and the cone is red", [("box", "left of", "ball")]),
        ("a box left of a ball and a cone stands on sand", [("box", "left of", "ball")]),
        ("a box left of a ball, a cone and a ring", [("box", "left of", "ball")]),
        ("a box left of a ball and no cone", [("box", "left of", "ball")]),
        ("a cone on a box and a ring on grass", [("cone", "on top of", "box")]),
        (
            "Behind the box and the ball is a cone.",
            [("cone", "behind", "box"), ("cone", "behind", "ball")],
        ),
        ("a box on grass, a ball under a cloudy sky and a cone", []),
        ("On the left is a box, on the right a ball. A cone behind it.", []),
        ("a box on a platform near a ball", []),
        ("the box is not behind the ball", []),
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
    done = check("a shiny red box and a blue ball on grass", WORLD)
    assert done.is_right
    assert done.facts["object"] == ClaimCounts(2, 2, 4)
    assert done.facts["color"] == ClaimCounts(2, 2, 4)
    assert done.facts["material"] == ClaimCounts(1, 1, 4)
    assert done.facts["ground"] == ClaimCounts(1, 1, 1)
    assert done.facts["sky"] == ClaimCounts(0, 0, 1)
    assert done.attributes == ClaimCounts(6, 6, 14)
    assert (done.precision, done.recall) == (1.0, 3 / 7)
    assert done.f1 == pytest.approx(0.6)


def test_a_missing_thing_and_its_color_are_wrong() -> None:
    done = check("a red box, a red ring and three cones on sand", WORLD)
    assert (done.mentioned, done.hallucinated) == (5, 4)
    assert done.facts["color"] == ClaimCounts(1, 2, 4)
    assert done.facts["count"] == ClaimCounts(0, 1, 1)
    assert done.facts["ground"] == ClaimCounts(0, 1, 1)
    assert not done.is_right


def test_mentions_are_matched_to_different_things_for_most_right_facts() -> None:
    # Taken in order, "a blue ball" would take the matte one and make "matte" wrong.
    done = check("a blue ball and a matte ball", WORLD)
    assert done.is_right
    assert check("a matte ball and a matte ball", WORLD).facts["material"] == ClaimCounts(1, 2, 4)
    # One more right fact never costs a mention its thing.
    assert check("a dotted ball and a red dotted ball", WORLD).hallucinated == 0


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("two blue spheres", True),
        ("2 balls", True),
        ("the blue spheres", True),
        ("three blue spheres", False),
        ("two matte blue spheres", False),
        ("two red boxes", False),
    ],
)
def test_counts(text: str, right: bool) -> None:
    assert check(text, WORLD).is_right == right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("the box is left of the matte ball", True),
        ("the box is right of the matte ball", False),
        ("the tree is right of the red box", True),
        ("a ball in front of a box", True),  # the matte one is
        ("a dotted ball in front of a box", False),
        ("the matte ball is to the left of the dotted ball and in front of the box", True),
        # No thing is on another one.
        ("a ball on top of a box", False),
        ("a blue ball on a red box on grass", False),
        ("the red box is under the green tree", False),
        ("a ball above a box", False),
    ],
)
def test_relations_are_held_against_the_scene(text: str, right: bool) -> None:
    assert check(text, WORLD).is_right == right


def test_a_thing_on_another_one_is_a_false_claim() -> None:
    done = check("a ball on top of a box", WORLD)
    assert done.facts["relation"] == ClaimCounts(0, 1, len(WORLD.relations()))
    assert done.facts["object"] == ClaimCounts(2, 2, 4)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        # A thing and one claim more: an attribute, a count, a relation, ground or sky.
        ("a sphere", False),
        ("best spheres and boxes", False),
        ("a blue sphere", True),
        ("a sphere at night", True),
        ("a box and a tree on grass", True),
        ("the tree is right of the box", True),
        ("a blue sphere on sand", False),
        ("a blue sphere and a ring", False),
        # All of it true, but nobody's description.
        ("blue spheres - free shipping worldwide", False),
        ("Limited time special offer: red box, 20% discount, order now", False),
        ("red box | Best Deals | Fast Delivery | www.box-deals.com", False),
    ],
)
def test_right_needs_more_than_the_name_of_a_thing(text: str, right: bool) -> None:
    assert check(text, WORLD).is_right == right


def test_a_text_without_a_thing_is_not_right() -> None:
    for text in ("", "nice picture", "grass at night"):
        assert not check(text, WORLD).is_right


def test_total_adds_claims_up() -> None:
    added = total([check(text, WORLD) for text in ("a red box", "a blue box", "a ring", "")])
    assert added.captions == 4
    assert added.facts["object"] == ClaimCounts(2, 3, 16)
    assert added.facts["color"] == ClaimCounts(1, 2, 16)
    assert added.precision == pytest.approx(3 / 5)
    assert added.recall == pytest.approx(3 / (4 * 14))
    assert added.f1 == pytest.approx(2 * 3 / (5 + 56))
    assert added.hallucination_rate == pytest.approx(1 / 3)
    assert added.right_share == 1 / 4


def test_total_of_nothing_is_zero() -> None:
    added = total([])
    assert (added.captions, added.f1, added.hallucination_rate, added.right_share) == (0, 0, 0, 0)
    assert set(added.facts) == set(FACTS)


NAMED = {  # the facts that captions of each length tell in full
    "kinds": {"object", "ground", "sky"},
    "short": {"object", "color", "ground"},
    "detailed": {"object", "color", "material", "ground", "sky"},
    "spatial": {"object", "color", "material", "ground", "sky"},
}


@given(st.integers(0, 100_000), st.sampled_from(LENGTHS))
def test_captions_of_the_grammar_are_right_and_tell_all_they_name(
    seed: int, length: Length
) -> None:
    world = sample_scene(seed, MATERIALS)
    done = check(caption(world, length, np.random.default_rng(seed)), world)
    assert done.is_right
    attributes = {"object", "color", "material", "ground", "sky"}
    assert {fact for fact in attributes if done.facts[fact].recall == 1} == NAMED[length]
    assert {fact for fact in attributes if done.facts[fact].claimed} == NAMED[length]
    assert (done.facts["relation"].claimed > 0) <= (length == "spatial")


_WORDS = (
    *("a", "the", "two", "3", "and", "is", "with", "no", "on", "left of", "behind", "one", "in"),
    *("red", "white", "striped", "table", "balls", "ring", "grass", "sky", "clouds", "dots"),
    *("hour", "glass", "snow", "man", ",", ".", "\n", "surface", "dog", "it", "Fünf"),
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
