"""Generate alt text like that of the web: some good, most of it noise, every text labelled.

The label names the kind of noise, so that filters can be evaluated. False captions have one detail
changed; they also serve as hard negatives for an evaluation (`wrong`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TypeVar

import numpy as np

from curator.core.errors import UsageError, nearest
from curator.demo import language
from curator.demo.language import Length, Name, ObjectGroup, SentencePlan
from curator.demo.scene import COLORS, GROUNDS, MATERIALS, RADII, SHAPES, Ground, Relation, Scene

T = TypeVar("T")

DEFAULT_RATES: dict[str, float] = {
    "good": 0.30,
    "file_name": 0.08,
    "sku": 0.05,
    "spam": 0.08,
    "other_caption": 0.15,
    "wrong_attribute": 0.15,
    "vague": 0.07,
    "foreign": 0.05,
    "html": 0.05,
    "empty": 0.02,
}
KINDS = tuple(DEFAULT_RATES)
"""good, foreign and html contain a true caption; the others a false one or none."""

_SAID: tuple[Length, ...] = ("short", "detailed")
_TOLERANCE = 1e-6
_MOST_COUNTED = max(language.NUMBERS)
_OPPOSITES: dict[Relation, Relation] = {
    "left of": "right of",
    "right of": "left of",
    "in front of": "behind",
    "behind": "in front of",
    "on top of": "under",
    "under": "on top of",
}


@dataclass(frozen=True, slots=True)
class NoisyAltText:
    """A text and its label, one of `KINDS`."""

    text: str
    kind: str


def parse_rates(text: str) -> dict[str, float]:
    """Parse shares of kinds, "good=0.5,spam=0.5"; kinds that are not listed have share 0.

    Raises:
        UsageError: an unknown or repeated kind, not a share, or shares that do not add up to 1.
    """
    rates: dict[str, float] = {}
    for part in text.split(","):
        kind, _, share = (piece.strip() for piece in part.partition("="))
        if kind not in KINDS:
            raise UsageError(f"unknown kind of alt text {kind!r}", hint=nearest(kind, KINDS))
        if kind in rates:
            raise UsageError(f"alt text {kind!r} has two shares", hint="name every kind once")
        rates[kind] = _share(kind, share)
    if abs(math.fsum(rates.values()) - 1) > _TOLERANCE:
        raise UsageError(
            f"the shares of alt texts add up to {math.fsum(rates.values()):g}, not to 1",
            hint=f"shares like good=0.5,spam=0.5; allowed: {', '.join(KINDS)}",
        )
    return {kind: rates.get(kind, 0.0) for kind in KINDS}


def alt_text(
    scene: Scene, other_scene: Scene, rates: dict[str, float], rng: np.random.Generator
) -> NoisyAltText:
    """Generate an alt text for an image of `scene`, of a kind drawn with probabilities `rates`.

    If the caption of `other_scene` happens to be true of `scene` too, one detail of a caption of
    `scene` is made wrong instead, and the label says so.
    """
    shares = list(accumulate(rates.get(kind, 0.0) for kind in KINDS))
    kind = KINDS[int(np.searchsorted(shares, rng.random() * shares[-1], side="right"))]
    length = _pick(rng, _SAID)
    if kind == "good":
        return NoisyAltText(dress(language.caption(scene, length, rng), rng), kind)
    if kind == "html":
        return NoisyAltText(_wrap(language.caption(scene, length, rng), _MARKUP, rng), kind)
    if kind == "foreign":
        return NoisyAltText(_foreign(scene, rng), kind)
    if kind == "other_caption":
        other = language.plan(other_scene, length, rng)
        if not all(any(map(group.fits, scene.solids)) for group in other.groups):
            return NoisyAltText(dress(language.say(other, rng), rng), kind)
        kind = "wrong_attribute"
    if kind == "wrong_attribute":
        return NoisyAltText(dress(wrong(scene, rng, length), rng), kind)
    return NoisyAltText(_fill(_pick(rng, _TEMPLATES[kind]), rng), kind)


def wrong(scene: Scene, rng: np.random.Generator, length: Length) -> str:
    """Generate a false caption: a true one with one color, count, shape, ... changed.

    Detailed captions may get a wrong size or material instead, spatial ones a wrong relation. No
    solid of the scene fits the changed description, and a changed count is never the true one.
    """
    true = language.plan(scene, length, rng)
    changes = {
        "color": _other_names(scene, true, "color"),
        "shape": _other_names(scene, true, "shape"),
        "count": _other_counts(true),
        "material": _other_attributes(scene, true, "material"),
        "size": _other_attributes(scene, true, "size"),
        "ground": [replace(true, ground=g) for g in GROUNDS if g != true.ground],
        "relation": _other_relations(true),
    }
    plans = _pick(rng, tuple(plans for plans in changes.values() if plans))
    return language.say(_pick(rng, tuple(plans)), rng)


def dress(text: str, rng: np.random.Generator) -> str:
    """Wrap a caption in words typical of alt texts: "Photo: a red cube on sand"."""
    return _wrap(text, _DRESSES, rng)


def _share(kind: str, text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise UsageError(
            f"the share of alt text {kind!r} is {text!r}", hint=f"0 to 1, as in {kind}=0.5"
        )
    return share


# -- one thing wrong -------------------------------------------------------------------------------


def _other_names(scene: Scene, plan: SentencePlan, kind: str) -> list[SentencePlan]:
    """Change a group's color or shape, also in relations, to a pair that no solid has."""
    taken: set[Name] = {(solid.color, solid.shape) for solid in scene.solids}
    found = []
    for number, group in enumerate(plan.groups):
        for value in COLORS if kind == "color" else SHAPES:
            new = _changed(group, kind, value)
            names = {(group.color, group.shape): (new.color, new.shape)}
            if (new.color, new.shape) not in taken:
                relations = tuple(
                    (names.get(a, a), relation, names.get(b, b))
                    for a, relation, b in plan.relations
                )
                found.append(replace(_with_group(plan, number, new), relations=relations))
    return found


def _other_attributes(scene: Scene, plan: SentencePlan, kind: str) -> list[SentencePlan]:
    """Change the size or material of a group that names one, so that no solid fits it."""
    found = []
    for number, group in enumerate(plan.groups):
        if getattr(group, kind) is not None:
            for value in RADII if kind == "size" else MATERIALS:
                new = _changed(group, kind, value)
                if not any(map(new.fits, scene.solids)):
                    found.append(_with_group(plan, number, new))
    return found


def _other_counts(plan: SentencePlan) -> list[SentencePlan]:
    """Change a count by one or two, but never to "a", which is also true of two solids."""
    return [
        _with_group(plan, number, replace(group, count=count))
        for number, group in enumerate(plan.groups)
        for count in range(max(group.count - 2, 2), min(group.count + 2, _MOST_COUNTED) + 1)
        if count != group.count
    ]


def _other_relations(plan: SentencePlan) -> list[SentencePlan]:
    found = []
    for number, (a, relation, b) in enumerate(plan.relations):
        turned = (a, _OPPOSITES[relation], b)
        relations = (*plan.relations[:number], turned, *plan.relations[number + 1 :])
        found.append(replace(plan, relations=relations))
    return found


def _changed(group: ObjectGroup, kind: str, value: str) -> ObjectGroup:
    return replace(group, **{kind: value})  # type: ignore[arg-type]  # of four fields


def _with_group(plan: SentencePlan, number: int, group: ObjectGroup) -> SentencePlan:
    return replace(plan, groups=(*plan.groups[:number], group, *plan.groups[number + 1 :]))


# -- words around a caption, and words instead of one ----------------------------------------------

_DRESSES = (
    "{text}",
    "{text}",
    "{Text}",
    "{Text}",
    "Photo: {text}",
    "{Text} | Toys and Gifts",
    "{Text} - the Toy Corner",
    "{Text} (photo by A. Moreau)",
    "Picture of {text}",
)
_MARKUP = (
    "{text}&lt;br&gt;",
    "&nbsp;&nbsp;{Text}&nbsp;",
    "<p>{Text}</p>",
    '<img src="/thumbs/{n4}.jpg" alt="{text}">',
    '<a href="/item/{n4}">{Text}</a>',
    '<span class="caption">{text}</span><br/>',
    "&quot;{Text}&quot; &amp; more",
    "{Text}</div></td>",
)
_TEMPLATES: dict[str, tuple[str, ...]] = {
    "file_name": (
        "IMG_{n4}.JPG",
        "DSC0{n4}.jpg",
        "PXL_2023{n4}_{n4}.jpg",
        "render-{n4}-1024x768-scaled.png",
        "scene_{n4}_final_v2.png",
        "Screenshot 2022-0{n1}-1{n1} at 10.{n2}.{n2}.png",
        "photo-{n4}-edited.jpeg",
        "{n4}_{n4}_large.webp",
        "product_main_{n4}.jpg",
    ),
    "sku": (
        "SKU: {n4}-{letter}{n2}",
        "Item No. {n4}{n2}",
        "Art. {n2}-{n4} / {n2} pcs",
        "Model {letter}{letter}-{n4}",
        "{letter}{n4}-{n2}-{letter}",
        "EAN 40{n4}{n4}{n2}{n1}",
        "Product code: {letter}{letter}{n4}",
        "MPN {n4}.{n2}.{n1}",
    ),
    "spam": (
        "Buy now! {color} {shapes} - free shipping worldwide",
        "Cheap {shapes} best price {n2}% off, click here",
        "{shapes}, cheap {shapes}, buy {shapes} online, {color} {shapes}, best {shapes}, {shapes}",
        "HOT SALE {shapes} wholesale lot {n2} pcs $ {n2}.99 add to cart",
        "Call 555-01{n2} today for the lowest prices on {shapes}!",
        "Free download HD {shape} wallpaper royalty-free stock photo",
        "#{shape} #{color} #deals #sale #toys #giftideas #{shapes} follow us",
        "Limited time special offer: {color} {shape}, {n2}% discount, order now",
        "{color} {shape} | Best Deals | Fast Delivery | www.{shape}-deals.com",
        "Sign up today and get a coupon for your next {shape}",
    ),
    "vague": (
        "{nice} {picture}",
        "a {nice} {picture}",
        "{picture} of something",
        "my favorite {picture}",
        "untitled {picture}",
        "just a {picture}",
        "some things",
        "look at this",
        "what a {nice} day",
        "see description",
        "various items",
        "{nice} view, taken last summer",
    ),
    "empty": ("", " "),
}
_NICE = ("nice", "beautiful", "cool", "wonderful", "lovely", "great")
_PICTURE = ("picture", "image", "photo", "shot")


def _wrap(text: str, templates: tuple[str, ...], rng: np.random.Generator) -> str:
    capital = text[0].upper() + text[1:]
    template = _fill(_pick(rng, templates).replace("{text}", "\0").replace("{Text}", "\1"), rng)
    return template.replace("\0", text).replace("\1", capital)


def _fill(template: str, rng: np.random.Generator) -> str:
    shape = _pick(rng, SHAPES)
    return template.format(
        n1=rng.integers(1, 10),
        n2=rng.integers(10, 60),
        n4=rng.integers(1000, 10000),
        letter=_pick(rng, tuple("ABCDEFGHKLMNPRSTX")),
        color=_pick(rng, tuple(COLORS)),
        shape=shape,
        shapes=language.PLURALS[shape],
        nice=_pick(rng, _NICE),
        picture=_pick(rng, _PICTURE),
    )


def _pick(rng: np.random.Generator, options: tuple[T, ...]) -> T:
    return options[int(rng.integers(len(options)))]


# -- other languages -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tongue:
    """The words of a language for a short caption, in the order of `SHAPES`, `COLORS`, ..."""

    one: dict[str, str]  # by gender
    numbers: tuple[str, ...]  # two to six
    join: str
    nouns: tuple[tuple[str, str, str], ...]  # gender, one, several
    colors: tuple[tuple[str, str, str, str], ...]  # masculine, feminine; several of them
    grounds: tuple[str, ...]
    color_first: bool = False

    def say(self, groups: tuple[ObjectGroup, ...], ground: Ground) -> str:
        """Name groups of color and shape on a ground."""
        *most, last = [self._group(group) for group in groups]
        solids = f"{', '.join(most)} {self.join} {last}" if most else last
        return f"{solids} {self.grounds[GROUNDS.index(ground)]}"

    def _group(self, group: ObjectGroup) -> str:
        gender, single, several = self.nouns[SHAPES.index(group.shape)]
        form = 2 * (group.count > 1) + (gender == "f")
        color = self.colors[tuple(COLORS).index(group.color)][form]
        count = self.one[gender] if group.count == 1 else self.numbers[group.count - 2]
        noun = single if group.count == 1 else several
        return " ".join((count, color, noun) if self.color_first else (count, noun, color))


def _nouns(words: str) -> tuple[tuple[str, str, str], ...]:
    split = [word.split() for word in words.split(", ")]
    return tuple((gender, single, several) for gender, single, several in split)


def _colors(words: str) -> tuple[tuple[str, str, str, str], ...]:
    split = [word.split() for word in words.split(", ")]
    return tuple((m, f, ms, fs) for m, f, ms, fs in split)


_GERMAN_STEMS = ("rot", "orangefarben", "gelb", "grün", "türkisfarben", "blau", "violett", "weiß")
_TONGUES = (
    _Tongue(
        one={"m": "ein", "f": "eine"},
        numbers=("zwei", "drei", "vier", "fünf", "sechs"),
        join="und",
        nouns=_nouns(
            "f Kugel Kugeln, m Würfel Würfel, m Zylinder Zylinder, m Kegel Kegel, m Ring Ringe"
        ),
        colors=tuple((f"{stem}er", f"{stem}e", f"{stem}e", f"{stem}e") for stem in _GERMAN_STEMS),
        grounds=("auf Gras", "auf Sand", "auf Schnee", "auf Fliesen"),
        color_first=True,
    ),
    _Tongue(
        one={"m": "un", "f": "une"},
        numbers=("deux", "trois", "quatre", "cinq", "six"),
        join="et",
        nouns=_nouns(
            "f sphère sphères, m cube cubes, m cylindre cylindres, m cône cônes, m anneau anneaux"
        ),
        colors=_colors(
            "rouge rouge rouges rouges, orange orange orange orange, jaune jaune jaunes jaunes,"
            " vert verte verts vertes, turquoise turquoise turquoise turquoise,"
            " bleu bleue bleus bleues, violet violette violets violettes,"
            " blanc blanche blancs blanches"
        ),
        grounds=("sur l'herbe", "sur le sable", "sur la neige", "sur le carrelage"),
    ),
    _Tongue(
        one={"m": "un", "f": "una"},
        numbers=("dos", "tres", "cuatro", "cinco", "seis"),
        join="y",
        nouns=_nouns(
            "f esfera esferas, m cubo cubos, m cilindro cilindros, m cono conos, m anillo anillos"
        ),
        colors=_colors(
            "rojo roja rojos rojas, naranja naranja naranjas naranjas,"
            " amarillo amarilla amarillos amarillas, verde verde verdes verdes,"
            " turquesa turquesa turquesas turquesas, azul azul azules azules,"
            " morado morada morados moradas, blanco blanca blancos blancas"
        ),
        grounds=("sobre la hierba", "sobre la arena", "sobre la nieve", "sobre las baldosas"),
    ),
)


def _foreign(scene: Scene, rng: np.random.Generator) -> str:
    plan = language.plan(scene, "short", rng)
    return _pick(rng, _TONGUES).say(plan.groups, plan.ground)
