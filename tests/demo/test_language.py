"""Captions of the rendered world: worked examples, a fixed order, a closed vocabulary."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.captioners.prompts import PRESETS
from curator.demo import language
from curator.demo.language import LENGTHS, VOCABULARY, ObjectGroup, SentencePlan, caption
from curator.demo.scene import KINDS, MATERIALS, Camera, Kind, Material, Scene, Thing, sample_scene
from curator.scorers.text import check_text


def thing(kind: Kind, color: str, x: float, z: float = 5.0, material: Material = "matte") -> Thing:
    return Thing(kind, color, material, radius=1.0, x=x, z=z, yaw=0.0)


def scene(*things: Thing) -> Scene:
    camera = Camera(height=2.0, pitch=0.2, focal=1.0)
    return Scene(0, things, "grass", "clear", camera, (0.0, 1.0, 0.0), 0.0, 0.0)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def plainly(text: str) -> str:
    text = text.replace("standing on the ", "standing on ")
    return text.replace("to the left", "left").replace("to the right", "right")


# A tree right of a shiny orange hourglass, which stands behind it.
TWO = scene(
    thing("tree", "green", 1.2, z=4.0), thing("hourglass", "orange", -1.5, z=5.2, material="shiny")
)


@pytest.mark.parametrize(
    ("length", "text"),
    [
        ("kinds", "an hourglass and a tree standing on grass under a clear sky"),
        ("short", "an orange hourglass and a green tree standing on grass"),
        (
            "detailed",
            "a shiny orange hourglass and a matte green tree standing on grass under a clear sky",
        ),
    ],
)
def test_each_length_from_left_to_right(length: language.Length, text: str) -> None:
    assert plainly(caption(TWO, length, rng())) == text


def test_spatial_adds_relations_in_either_direction() -> None:
    first = caption(TWO, "detailed", rng())
    said = set()
    for seed in range(60):
        text = plainly(caption(TWO, "spatial", rng(seed)))
        head, tail = text.split(". ", 1)
        assert head == plainly(first)
        said.add(tail)
    assert said == {  # one pair of things: one relation
        "the orange hourglass is left of the green tree.",
        "the green tree is right of the orange hourglass.",
        "the orange hourglass is behind the green tree.",
        "the green tree is in front of the orange hourglass.",
    }


def test_what_is_named_alike_is_counted() -> None:
    alike = scene(thing("box", "red", -1.5), thing("box", "blue", 1.5))
    end = " standing on grass"
    assert plainly(caption(alike, "kinds", rng())) == f"two boxes{end} under a clear sky"
    assert plainly(caption(alike, "short", rng())) == f"a red box and a blue box{end}"
    same = scene(thing("snowman", "red", -1.5), thing("snowman", "red", 1.5))
    assert plainly(caption(same, "short", rng())) == f"two red snowmen{end}"
    assert plainly(caption(same, "detailed", rng())) == (
        f"two matte red snowmen{end} under a clear sky"
    )


def test_spatial_is_detailed_where_names_are_shared() -> None:
    world = scene(thing("box", "red", -1.5), thing("box", "red", 1.5, material="shiny"))
    assert plainly(caption(world, "spatial", rng())) == plainly(caption(world, "detailed", rng()))


@pytest.mark.parametrize(
    ("group", "said"),
    [
        (ObjectGroup("cone", "orange"), "an orange cone"),
        (ObjectGroup("cone", "orange", "matte"), "a matte orange cone"),
        (ObjectGroup("hourglass"), "an hourglass"),
        (ObjectGroup("hourglass", "red"), "a red hourglass"),
        (ObjectGroup("hourglass", count=2), "two hourglasses"),
        (ObjectGroup("snowman"), "a snowman"),
        (ObjectGroup("box", "white", "shiny", 3), "three shiny white boxes"),
    ],
)
def test_groups(group: ObjectGroup, said: str) -> None:
    assert group.say() == said


@pytest.mark.parametrize(
    ("sky", "end"),
    [
        ("clear", "under a clear sky"),
        ("cloudy", "under a cloudy sky"),
        ("sunset", "at sunset"),
        ("night", "at night"),
    ],
)
def test_skies(sky: language.Sky, end: str) -> None:
    said = language.say(SentencePlan((ObjectGroup("cone"),), "snow", sky), rng())
    assert said.endswith(f"snow {end}")


def test_a_preset_asks_for_each_length() -> None:
    assert set(LENGTHS) <= set(PRESETS)


@given(st.integers(0, 10_000), st.sampled_from(LENGTHS))
def test_captions_are_deterministic_and_stay_in_the_vocabulary(
    seed: int, length: language.Length
) -> None:
    world = sample_scene(seed, MATERIALS)
    text = caption(world, length, rng(seed))
    assert text == caption(world, length, rng(seed))
    assert text.isascii()
    assert text == text.lower()
    assert set(re.findall(r"[a-z]+|[^a-z ]", text)) <= set(VOCABULARY)
    assert text.endswith(".") == ("." in text)  # a single sentence has no period
    named = {kind for kind in KINDS if kind in text or language.PLURALS[kind] in text}
    assert named == {one.kind for one in world.things}


def test_every_word_of_the_vocabulary_can_be_said() -> None:
    groups = [
        ObjectGroup(kind, "orange", count=count)
        for kind in KINDS
        for count in (1, *language.NUMBERS)
    ]
    text = language.say(SentencePlan(tuple(groups), "grass"), rng())
    for seed in range(200):
        text += " " + caption(sample_scene(seed, MATERIALS), "spatial", rng(seed))
    assert set(re.findall(r"[a-z]+|[.,]", text)) == set(VOCABULARY)


def test_true_captions_are_healthy_texts() -> None:
    texts = [
        caption(sample_scene(seed, MATERIALS), length, rng(seed))
        for seed in range(200)
        for length in LENGTHS
    ]
    assert [text for text in texts if not check_text(text).healthy] == []
