"""Generate true captions of a scene at three lengths, with a vocabulary of about sixty words.

Tiny models are trained on these captions, so the grammar is small and its order is fixed: solids
from left to right, a solid on top of another right after it, then ground and sky. A caption is
first planned (`plan`), then worded (`say`), so that a false caption is a plan with one change.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from curator.demo.scene import (
    COLORS,
    GROUNDS,
    MATERIALS,
    RADII,
    SHAPES,
    SKIES,
    Ground,
    Material,
    Relation,
    Scene,
    Shape,
    Size,
    Sky,
    Solid,
)

Length = Literal["short", "detailed", "spatial"]
"""short: colors, shapes and the ground. detailed: every solid with all its attributes, the ground
and the sky, in one sentence. spatial: the same, then up to three sentences with relations."""
LENGTHS: tuple[Length, ...] = get_args(Length)

Name = tuple[str, Shape]
"""Color and shape: the name of a solid in relations."""

NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
PLURALS: dict[Shape, str] = {
    "sphere": "spheres",
    "cube": "cubes",
    "cylinder": "cylinders",
    "cone": "cones",
    "torus": "tori",
}
# Not a bare "on grass": the detector takes one in nine such captions for Italian or the like.
ON_GROUND: dict[Ground, tuple[str, ...]] = {
    ground: (f"standing on {ground}", f"standing on the {ground}") for ground in GROUNDS
}
UNDER_SKY: dict[Sky, str] = {
    "clear": "under a clear sky",
    "cloudy": "under a cloudy sky",
    "sunset": "at sunset",
    "night": "at night",
}
RELATION_WORDS: dict[Relation, tuple[str, ...]] = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "in front of": ("in front of",),
    "behind": ("behind",),
    "on top of": ("on top of",),
    "under": ("under", "below"),
}
_MAX_RELATIONS = 3


@dataclass(frozen=True, slots=True)
class ObjectGroup:
    """`count` solids that are named together; an attribute that is not named is None."""

    shape: Shape
    color: str
    size: Size | None = None
    material: Material | None = None
    count: int = 1

    def fits(self, solid: Solid) -> bool:
        """Whether all named attributes, ignoring the count, are true of the solid."""
        return (
            (solid.shape, solid.color) == (self.shape, self.color)
            and self.size in (None, solid.size)
            and self.material in (None, solid.material)
        )

    def say(self) -> str:
        """Put the group into words: "a small shiny red cube", "two blue spheres"."""
        noun = self.shape if self.count == 1 else PLURALS[self.shape]
        words = " ".join(word for word in (self.size, self.material, self.color, noun) if word)
        if self.count > 1:
            return f"{NUMBERS[self.count]} {words}"
        return f"an {words}" if words[0] in "aeiou" else f"a {words}"


@dataclass(frozen=True, slots=True)
class SentencePlan:
    """The content of a caption before it is worded; short captions have no sky."""

    groups: tuple[ObjectGroup, ...]
    ground: Ground
    sky: Sky | None = None
    relations: tuple[tuple[Name, Relation, Name], ...] = ()


def caption(scene: Scene, length: Length, rng: np.random.Generator) -> str:
    """Generate a true caption; `rng` chooses only the wording and the relations."""
    return say(plan(scene, length, rng), rng)


def plan(scene: Scene, length: Length, rng: np.random.Generator) -> SentencePlan:
    """Plan what a caption of this length says about the scene; `rng` chooses the relations."""
    counts = Counter(_group(solid, length) for solid in _in_order(scene))
    groups = tuple(
        ObjectGroup(one.shape, one.color, one.size, one.material, count)
        for one, count in counts.items()
    )
    if length == "short":
        return SentencePlan(groups, scene.ground)
    relations = _pick_relations(scene, rng) if length == "spatial" else ()
    return SentencePlan(groups, scene.ground, scene.sky, relations)


def say(plan: SentencePlan, rng: np.random.Generator) -> str:
    """Put a plan into words; `rng` chooses among equivalent wordings."""
    *most, last = [group.say() for group in plan.groups]
    solids = f"{', '.join(most)} and {last}" if most else last
    scenery = f"{solids} {_pick(rng, ON_GROUND[plan.ground])}"
    if plan.sky is None:
        return scenery
    sentences = [f"{scenery} {UNDER_SKY[plan.sky]}."]
    for subject, relation, other in plan.relations:
        words = _pick(rng, RELATION_WORDS[relation])
        sentences.append(f"the {' '.join(subject)} is {words} the {' '.join(other)}.")
    return " ".join(sentences)


def _in_order(scene: Scene) -> list[Solid]:
    """Order the solids from left to right; one on top of another comes right after it."""

    def place(solid: Solid) -> tuple[float, int]:
        foot = solid if solid.on is None else scene.solids[solid.on]
        middle = foot.bottom + foot.height / 2
        return scene.camera.project(foot.x, middle, foot.z)[0], int(solid.on is not None)

    return sorted(scene.solids, key=place)


def _group(solid: Solid, length: Length) -> ObjectGroup:
    if length == "short":
        return ObjectGroup(solid.shape, solid.color)
    return ObjectGroup(solid.shape, solid.color, solid.size, solid.material)


def _pick_relations(
    scene: Scene, rng: np.random.Generator
) -> tuple[tuple[Name, Relation, Name], ...]:
    """Choose 1 to 3 true relations of uniquely named solids (0 if none), at most one per pair."""
    names: list[Name] = [(solid.color, solid.shape) for solid in scene.solids]
    held = [(a, relation, b) for a, relation, b in scene.relations() if _unique(names, a, b)]
    wanted = int(rng.integers(1, _MAX_RELATIONS + 1))
    picked: dict[frozenset[int], tuple[Name, Relation, Name]] = {}
    for number in rng.permutation(len(held)):
        a, relation, b = held[number]
        if len(picked) < wanted:
            picked.setdefault(frozenset((a, b)), (names[a], relation, names[b]))
    return tuple(picked.values())


def _unique(names: list[Name], a: int, b: int) -> bool:
    return names.count(names[a]) == 1 and names.count(names[b]) == 1


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _vocabulary() -> tuple[str, ...]:
    phrases = [
        *("a", "an", "and", "the", "is", ",", "."),
        *(*NUMBERS.values(), *RADII, *MATERIALS, *COLORS, *SHAPES, *PLURALS.values()),
        *(phrase for ground in GROUNDS for phrase in ON_GROUND[ground]),
        *(UNDER_SKY[sky] for sky in SKIES),
        *(phrase for phrases in RELATION_WORDS.values() for phrase in phrases),
    ]
    return tuple(dict.fromkeys(word for phrase in phrases for word in phrase.split()))


VOCABULARY: tuple[str, ...] = _vocabulary()
"""Every word of the captions; comma and period count as words."""

WORDS: dict[str, dict[str, str]] = {
    "shape": {
        "sphere": "sphere, ball, orb, globe",
        "cube": "cube, box, block",
        "cylinder": "cylinder, drum, pillar, barrel",
        "cone": "cone, traffic cone",
        "torus": "torus, ring, donut, doughnut, hoop, toroid",
    },
    "shapes": {
        "sphere": "spheres, balls, orbs, globes",
        "cube": "cubes, boxes, blocks",
        "cylinder": "cylinders, drums, pillars, barrels",
        "cone": "cones, traffic cones",
        "torus": "tori, toruses, rings, donuts, doughnuts, hoops, toroids",
    },
    "color": {
        "red": "red, crimson, scarlet",
        "orange": "orange",
        "yellow": "yellow, gold, golden",
        "green": "green, lime",
        "cyan": "cyan, teal, turquoise, aqua, light blue",
        "blue": "blue, dark blue, navy",
        "purple": "purple, violet, lavender",
        "white": "white, off white, snow white, ivory",
        "black": "black",
        "gray": "gray, grey, silver",
        "brown": "brown, tan",
        "pink": "pink, magenta",
    },
    "size": {
        "small": "small, smaller, little, tiny, mini",
        "large": "large, larger, big, bigger, huge, giant",
    },
    "material": {
        "matte": "matte, matt, dull, non reflective",
        "shiny": "shiny, glossy, metallic, metal, reflective, polished",
        "striped": "striped, stripy",
        "dotted": "dotted, spotted, polka dotted, polka dot",
    },
    "pattern": {"striped": "stripes, bands", "dotted": "dots, spots, polka dots"},
    "ground": {
        "grass": "grass, grassy, lawn, meadow, green field, grassy field",
        "sand": "sand, sandy, beach, desert",
        "snow": "snow, snowy",
        "tiles": "tiles, tile, tiled, checkered floor, checkerboard floor, checkered ground",
        "wood": "wooden floor, wooden table, wooden surface",
        "water": "water",
    },
    "sky": {
        "clear": "clear sky, clear skies, clear blue sky, blue sky, sky is clear, sky is blue,"
        " cloudless, sunny",
        "cloudy": "cloudy, clouds, overcast",
        "sunset": "sunset, sunrise, dusk, dawn, orange sky, pink sky",
        "night": "night, nighttime, starry, stars, dark sky, sky is dark, moonlit",
    },
    "relation": {
        "left of": "left of, left side of, on the left of, on the left side of",
        "right of": "right of, right side of, on the right of, on the right side of",
        "in front of": "in front of",
        "behind": "behind",
        "on top of": "on top of, atop, above, on",
        "under": "under, below, beneath, underneath",
    },
    "number": {
        "2": "two, 2, pair of, couple of",
        "3": "three, 3",
        "4": "four, 4",
        "5": "five, 5",
        "6": "six, 6",
        "7": "seven, 7",
        "8": "eight, 8",
        "9": "nine, 9",
        "10": "ten, 10",
    },
    "article": {"the": "the, these, those", "a": "a, an, another, some, several"},
    "link": {
        "": "is, are, has, have, having, with, that, which, looks, appears,"
        " in, colored, coloured, painted"
    },
    "join": {"": "and, but, while"},
    "negation": {"": "no, without, not"},
    # Colors before these are theirs, and no relation reaches past them.
    "place": {
        "": "one, object, objects, shape, shapes, solid, solids, ground, floor, field, table,"
        " background, foreground, middle, center, sky, skies, scene, image, picture,"
        " left, right, side, on the left, on the right, on the left side, on the right side,"
        " on top, three dimensional"
    },
    # After "with a": the color is the solid's.
    "surface": {"": "surface, finish, texture, pattern, material, color, colour, coating"},
    "filler": {"": "very, bright, dark, to, both, all"},
}
"""Phrases of free captions, outside this grammar: kind of word -> meaning -> phrases.

Includes colors and grounds that no scene has: claiming them is always wrong.
"""
