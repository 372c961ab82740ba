"""Captions of the rendered world: worked examples, a fixed order, a closed vocabulary."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.demo import language
from curator.demo.language import LENGTHS, VOCABULARY, ObjectGroup, SentencePlan, caption
from curator.demo.scene import Camera, Scene, Shape, Size, Solid, sample_scene
from curator.scorers.text import check_text


def solid(
    shape: Shape,
    color: str,
    x: float,
    z: float = 5.0,
    *,
    size: Size = "small",
    on: int | None = None,
) -> Solid:
    return Solid(shape, color, size, "matte", x, z, 0.0, bottom=0.0 if on is None else 1.2, on=on)


def scene(*solids: Solid) -> Scene:
    camera = Camera(height=2.0, pitch=0.2, focal=1.0)
    return Scene(0, solids, "grass", "clear", camera, (0.0, 1.0, 0.0), 0.0, 0.0)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def plainly(text: str) -> str:
    return text.replace("standing on the ", "standing on ").replace("to the left", "left")


def test_short_groups_color_and_shape_from_left_to_right() -> None:
    world = scene(
        solid("sphere", "blue", 0.0), solid("cube", "red", -1.5), solid("sphere", "blue", 1.5)
    )
    text = language.caption(world, "short", rng())
    assert plainly(text) == "a red cube and two blue spheres standing on grass"


def test_detailed_tells_all_and_groups_only_what_is_alike() -> None:
    world = scene(
        solid("torus", "orange", 0.5),
        solid("torus", "orange", 1.5),
        solid("torus", "orange", -1.5, size="large"),
    )
    text = language.caption(world, "detailed", rng())
    assert plainly(text) == (
        "a large matte orange torus and two small matte orange tori standing on grass"
        " under a clear sky."
    )


def test_a_stacked_solid_comes_right_after_the_one_below() -> None:
    world = scene(
        solid("cone", "green", 0.0, on=2),
        solid("sphere", "blue", 0.05, z=8.0),
        solid("cube", "red", 0.0, size="large"),
    )
    text = language.caption(world, "short", rng())
    assert plainly(text) == "a red cube, a green cone and a blue sphere standing on grass"


def test_spatial_tells_a_relation_of_solids_with_their_own_names() -> None:
    world = scene(solid("cube", "red", -1.5), solid("sphere", "blue", 1.5))
    left = "the red cube is left of the blue sphere."
    right = "the blue sphere is right of the red cube."
    said = {
        plainly(language.caption(world, "spatial", rng(seed))).split(". ", 1)[1]
        for seed in range(20)
    }
    assert {text.replace("to the right", "right") for text in said} == {left, right}


def test_spatial_is_detailed_where_names_are_shared() -> None:
    world = scene(solid("cube", "red", -1.5), solid("cube", "red", 1.5, size="large"))
    assert language.caption(world, "spatial", rng()).count(".") == 1


def test_an_before_a_vowel() -> None:
    assert ObjectGroup("cone", "orange").say() == "an orange cone"
    assert ObjectGroup("cone", "orange", "small", "matte").say() == "a small matte orange cone"


@pytest.mark.parametrize(
    ("sky", "end"),
    [("cloudy", "under a cloudy sky."), ("sunset", "at sunset."), ("night", "at night.")],
)
def test_skies(sky: language.Sky, end: str) -> None:
    assert language.say(SentencePlan((ObjectGroup("cone", "red"),), "snow", sky), rng()).endswith(
        f"snow {end}"
    )


@given(st.integers(0, 10_000), st.sampled_from(LENGTHS))
def test_captions_are_deterministic_and_stay_in_the_vocabulary(
    seed: int, length: language.Length
) -> None:
    world = sample_scene(seed)
    text = caption(world, length, rng(seed))
    assert text == caption(world, length, rng(seed))
    assert text.isascii()
    assert text == text.lower()
    assert set(re.findall(r"[a-z]+|[^a-z ]", text)) <= set(VOCABULARY)
    assert text.endswith(".") == (length != "short")


def test_every_word_of_the_vocabulary_can_be_said() -> None:
    groups = [ObjectGroup("cube", "red", count=count) for count in language.NUMBERS]
    said = language.say(SentencePlan(tuple(groups), "grass"), rng()).split()
    for seed in range(200):
        said += re.findall(r"[a-z]+|[.,]", caption(sample_scene(seed), "spatial", rng(seed)))
        said += re.findall(r"[a-z]+", caption(sample_scene(seed), "short", rng(seed)))
    assert set(VOCABULARY) <= {word.strip(",") or word for word in said}


def test_true_captions_are_healthy_texts() -> None:
    texts = [
        caption(sample_scene(seed), kind, rng(seed)) for seed in range(200) for kind in LENGTHS
    ]
    flagged = [text for text in texts if not check_text(text).healthy]
    assert len(flagged) <= 2, flagged  # the language detector errs once in a thousand
