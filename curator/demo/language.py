"""Generate true captions of a scene at four lengths, with a vocabulary of about sixty words.

Tiny models are trained on these captions, so the grammar is small and its order is fixed: things
from left to right, then ground and sky. A caption is first planned (`plan`), then worded (`say`),
so that a false caption is a plan with one change.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from curator.demo.scene import (
    COLORS,
    GROUNDS,
    KINDS,
    MATERIALS,
    SKIES,
    Ground,
    Kind,
    Material,
    Relation,
    Scene,
    Sky,
    Thing,
)

Length = Literal["kinds", "short", "detailed", "spatial"]
"""kinds: kinds of things, the ground and the sky, which is what the dense tasks ask for. short:
colors, kinds and the ground. detailed: every thing with its color and material, the ground and the
sky, in one sentence. spatial: the same, then a sentence or two with relations."""
LENGTHS: tuple[Length, ...] = get_args(Length)

Name = tuple[str, Kind]
"""Color and kind: the name of a thing in relations."""

NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
PLURALS: dict[Kind, str] = {
    "ball": "balls",
    "box": "boxes",
    "cone": "cones",
    "ring": "rings",
    "snowman": "snowmen",
    "tree": "trees",
    "mushroom": "mushrooms",
    "table": "tables",
    "hourglass": "hourglasses",
    "pillar": "pillars",
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
}
_MAX_RELATIONS = 2


@dataclass(frozen=True, slots=True)
class ObjectGroup:
    """`count` things that are named together; an attribute that is not named is None."""

    kind: Kind
    color: str | None = None
    material: Material | None = None
    count: int = 1

    def fits(self, thing: Thing) -> bool:
        """Whether all named attributes, ignoring the count, are true of the thing."""
        return (
            thing.kind == self.kind
            and self.color in (None, thing.color)
            and self.material in (None, thing.material)
        )

    def say(self) -> str:
        """Put the group into words: "a shiny red box", "two blue balls"."""
        noun = self.kind if self.count == 1 else PLURALS[self.kind]
        words = " ".join(word for word in (self.material, self.color, noun) if word)
        if self.count > 1:
            return f"{NUMBERS[self.count]} {words}"
        return f"an {words}" if words.startswith((*"aeiou", "hour")) else f"a {words}"


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
    left_to_right = sorted(scene.things, key=lambda t: scene.camera.project(t.x, t.radius, t.z)[0])
    counts = Counter(_group(thing, length) for thing in left_to_right)
    groups = tuple(
        ObjectGroup(one.kind, one.color, one.material, count) for one, count in counts.items()
    )
    relations = _pick_relations(scene, rng) if length == "spatial" else ()
    return SentencePlan(groups, scene.ground, None if length == "short" else scene.sky, relations)


def say(plan: SentencePlan, rng: np.random.Generator) -> str:
    """Put a plan into words; `rng` chooses among equivalent wordings."""
    *most, last = [group.say() for group in plan.groups]
    things = f"{', '.join(most)} and {last}" if most else last
    scenery = f"{things} {_pick(rng, ON_GROUND[plan.ground])}"
    if plan.sky is None:
        return scenery
    first = f"{scenery} {UNDER_SKY[plan.sky]}"
    if not plan.relations:
        return first
    sentences = [
        f"the {' '.join(subject)} is {_pick(rng, RELATION_WORDS[relation])} the {' '.join(other)}."
        for subject, relation, other in plan.relations
    ]
    return " ".join([f"{first}.", *sentences])


def _group(thing: Thing, length: Length) -> ObjectGroup:
    if length == "kinds":
        return ObjectGroup(thing.kind)
    if length == "short":
        return ObjectGroup(thing.kind, thing.color)
    return ObjectGroup(thing.kind, thing.color, thing.material)


def _pick_relations(
    scene: Scene, rng: np.random.Generator
) -> tuple[tuple[Name, Relation, Name], ...]:
    """Choose up to two true relations of uniquely named things, at most one per pair."""
    names: list[Name] = [(thing.color, thing.kind) for thing in scene.things]
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
        *(*NUMBERS.values(), *MATERIALS, *COLORS, *KINDS, *PLURALS.values()),
        *(phrase for ground in GROUNDS for phrase in ON_GROUND[ground]),
        *(UNDER_SKY[sky] for sky in SKIES),
        *(phrase for phrases in RELATION_WORDS.values() for phrase in phrases),
    ]
    return tuple(dict.fromkeys(word for phrase in phrases for word in phrase.split()))


VOCABULARY: tuple[str, ...] = _vocabulary()
"""Every word of the captions; comma and period count as words."""

WORDS: dict[str, dict[str, str]] = {
    "thing": {
        "ball": "ball, sphere, orb, globe",
        "box": "box, cube, block, crate",
        "cone": "cone, traffic cone",
        "ring": "ring, torus, donut, doughnut, hoop, toroid",
        "snowman": "snowman, snow man",
        "tree": "tree, fir, fir tree, pine, pine tree, christmas tree",
        "mushroom": "mushroom, toadstool",
        "table": "table, desk",
        "hourglass": "hourglass, hour glass, sand timer",
        "pillar": "pillar, column, post, cylinder",
    },
    "things": {
        "ball": "balls, spheres, orbs, globes",
        "box": "boxes, cubes, blocks, crates",
        "cone": "cones, traffic cones",
        "ring": "rings, tori, toruses, donuts, doughnuts, hoops, toroids",
        "snowman": "snowmen, snow men",
        "tree": "trees, firs, fir trees, pines, pine trees, christmas trees",
        "mushroom": "mushrooms, toadstools",
        "table": "tables, desks",
        "hourglass": "hourglasses, hour glasses, sand timers",
        "pillar": "pillars, columns, posts, cylinders",
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
        "wood": "wooden floor, wooden surface",
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
        "": "one, object, objects, shape, shapes, solid, solids, ground, floor, field,"
        " background, foreground, middle, center, sky, skies, scene, image, picture,"
        " left, right, side, on the left, on the right, on the left side, on the right side,"
        " on top, three dimensional"
    },
    # After "with a": the color is the thing's.
    "surface": {"": "surface, finish, texture, pattern, material, color, colour, coating"},
    # Sizes claim nothing: there is no telling what is large.
    "filler": {
        "": "very, bright, dark, to, both, all, small, smaller, little, tiny, mini, large, larger,"
        " big, bigger, huge, giant, medium sized"
    },
}
"""Phrases of free captions, outside this grammar: category -> meaning -> phrases.

Includes colors, grounds and relations that no scene has: claiming them is always wrong.
"""
