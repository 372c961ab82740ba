"""Generate alt text like that of the web: some good, most of it noise, every text labelled.

The label names the noise, so that filters can be evaluated. Alt texts that describe an image name
what the captions of length "kinds" name: an alt text is worse than a generated caption because it
is wrong or says nothing, not because it names other things. False captions have one detail changed;
they also serve as hard negatives for an evaluation (`wrong`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal, TypeVar

import numpy as np

from curator.core.errors import UsageError, nearest
from curator.demo import language
from curator.demo.language import Length, Name, ObjectGroup, SentencePlan
from curator.demo.scene import COLORS, GROUNDS, KINDS, MATERIALS, SKIES, Ground, Relation, Scene

T = TypeVar("T")

DEFAULT_RATES: dict[str, float] = {
    "good": 0.30,
    "file_name": 0.08,
    "sku": 0.05,
    "spam": 0.08,
    "other_caption": 0.15,
    "wrong_detail": 0.15,
    "vague": 0.07,
    "foreign": 0.05,
    "html": 0.05,
    "empty": 0.02,
}
NOISES = tuple(DEFAULT_RATES)
"""good, foreign and html contain a true caption; the others a false one or none."""

_TOLERANCE = 1e-6
_MOST_COUNTED = max(language.NUMBERS)
_OPPOSITES: dict[Relation, Relation] = {
    "left of": "right of",
    "right of": "left of",
    "in front of": "behind",
    "behind": "in front of",
}


@dataclass(frozen=True, slots=True)
class NoisyAltText:
    """A text and its label, one of `NOISES`."""

    text: str
    noise: str


def parse_rates(text: str) -> dict[str, float]:
    """Parse rates of noises, "good=0.5,spam=0.5"; noises that are not listed have rate 0.

    Raises:
        UsageError: an unknown or repeated noise, not a rate, or rates that do not add up to 1.
    """
    rates: dict[str, float] = {}
    for part in text.split(","):
        noise, _, rate = (piece.strip() for piece in part.partition("="))
        if noise not in NOISES:
            raise UsageError(f"unknown kind of alt text {noise!r}", hint=nearest(noise, NOISES))
        if noise in rates:
            raise UsageError(f"alt text {noise!r} has two rates", hint="name every kind once")
        rates[noise] = _rate(noise, rate)
    if abs(math.fsum(rates.values()) - 1) > _TOLERANCE:
        raise UsageError(
            f"the rates of alt texts add up to {math.fsum(rates.values()):g}, not to 1",
            hint=f"rates like good=0.5,spam=0.5; allowed: {', '.join(NOISES)}",
        )
    return {noise: rates.get(noise, 0.0) for noise in NOISES}


def alt_text(
    scene: Scene, other_scene: Scene, rates: dict[str, float], rng: np.random.Generator
) -> NoisyAltText:
    """Generate an alt text for an image of `scene`, with a noise drawn by `rates`.

    If the caption of `other_scene` happens to be true of `scene` too, one detail of a caption of
    `scene` is made wrong instead, and the label says so.
    """
    cumulated = list(accumulate(rates.get(noise, 0.0) for noise in NOISES))
    noise = NOISES[int(np.searchsorted(cumulated, rng.random() * cumulated[-1], side="right"))]
    if noise == "good":
        return NoisyAltText(dress(language.caption(scene, "kinds", rng), rng), noise)
    if noise == "html":
        return NoisyAltText(_wrap(language.caption(scene, "kinds", rng), _MARKUP, rng), noise)
    if noise == "foreign":
        return NoisyAltText(_foreign(scene, rng), noise)
    if noise == "other_caption":
        other = language.plan(other_scene, "kinds", rng)
        if not all(any(map(group.fits, scene.things)) for group in other.groups):
            return NoisyAltText(dress(language.say(other, rng), rng), noise)
        noise = "wrong_detail"
    if noise == "wrong_detail":
        return NoisyAltText(dress(wrong(scene, rng, "kinds"), rng), noise)
    return NoisyAltText(_fill(_pick(rng, _TEMPLATES[noise]), rng), noise)


def wrong(scene: Scene, rng: np.random.Generator, length: Length, detail: str | None = None) -> str:
    """Generate a false caption: a true one with one detail changed.

    The detail is a kind, a count, the ground, and whatever else captions of this length name:
    color, material, sky, a relation. No thing of the scene fits the changed description, and a
    changed count is never the true one. `detail` asks for one of "kind", "ground" and (where
    captions name one) "sky".
    """
    true = language.plan(scene, length, rng)
    skies = [sky for sky in SKIES if true.sky not in (None, sky)]
    changes = {
        "kind": _other_names(scene, true, "kind"),
        "color": _other_names(scene, true, "color") if true.groups[0].color else [],
        "count": _other_counts(true),
        "material": _other_materials(scene, true),
        "ground": [replace(true, ground=g) for g in GROUNDS if g != true.ground],
        "sky": [replace(true, sky=sky) for sky in skies],
        "relation": _other_relations(true),
    }
    plans = changes[detail] if detail else _pick(rng, tuple(p for p in changes.values() if p))
    return language.say(_pick(rng, tuple(plans)), rng)


def dress(text: str, rng: np.random.Generator) -> str:
    """Wrap a caption in words typical of alt texts: "Photo: a box standing on sand"."""
    return _wrap(text, _DRESSES, rng)


def _rate(noise: str, text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 <= rate <= 1:
        raise UsageError(
            f"the rate of alt text {noise!r} is {text!r}", hint=f"0 to 1, as in {noise}=0.5"
        )
    return rate


# -- one thing wrong -------------------------------------------------------------------------------


def _other_names(
    scene: Scene, plan: SentencePlan, attribute: Literal["kind", "color"]
) -> list[SentencePlan]:
    """Change a group's kind or color, also in relations, so that no thing fits it."""
    found = []
    for number, group in enumerate(plan.groups):
        for value in KINDS if attribute == "kind" else COLORS:
            # Without the material: a relation's name has only color and kind.
            new = _changed(group, attribute, value)
            if any(map(replace(new, material=None).fits, scene.things)):
                continue
            names: dict[tuple[str | None, str], Name] = {}
            if group.color is not None and new.color is not None:
                names[group.color, group.kind] = (new.color, new.kind)
            relations = tuple(
                (names.get(a, a), relation, names.get(b, b)) for a, relation, b in plan.relations
            )
            found.append(replace(_with_group(plan, number, new), relations=relations))
    return found


def _other_materials(scene: Scene, plan: SentencePlan) -> list[SentencePlan]:
    """Change the material of a group that names one, so that no thing fits it."""
    found = []
    for number, group in enumerate(plan.groups):
        if group.material is not None:
            for value in MATERIALS:
                new = _changed(group, "material", value)
                if not any(map(new.fits, scene.things)):
                    found.append(_with_group(plan, number, new))
    return found


def _other_counts(plan: SentencePlan) -> list[SentencePlan]:
    """Change a count by one or two, but never to "a", which is also true of two things."""
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


def _changed(group: ObjectGroup, attribute: str, value: str) -> ObjectGroup:
    return replace(group, **{attribute: value})  # type: ignore[arg-type]  # of three fields


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
        "Buy now! {color} {kinds} - free shipping worldwide",
        "Cheap {kinds} best price {n2}% off, click here",
        "{kinds}, cheap {kinds}, buy {kinds} online, {color} {kinds}, best {kinds}, {kinds}",
        "HOT SALE {kinds} wholesale lot {n2} pcs $ {n2}.99 add to cart",
        "Call 555-01{n2} today for the lowest prices on {kinds}!",
        "Free download HD {kind} wallpaper royalty-free stock photo",
        "#{kind} #{color} #deals #sale #toys #giftideas #{kinds} follow us",
        "Limited time special offer: {color} {kind}, {n2}% discount, order now",
        "{color} {kind} | Best Deals | Fast Delivery | www.{kind}-deals.com",
        "Sign up today and get a coupon for your next {kind}",
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
    kind = _pick(rng, KINDS)
    return template.format(
        n1=rng.integers(1, 10),
        n2=rng.integers(10, 60),
        n4=rng.integers(1000, 10000),
        letter=_pick(rng, tuple("ABCDEFGHKLMNPRSTX")),
        color=_pick(rng, tuple(COLORS)),
        kind=kind,
        kinds=language.PLURALS[kind],
        nice=_pick(rng, _NICE),
        picture=_pick(rng, _PICTURE),
    )


def _pick(rng: np.random.Generator, options: tuple[T, ...]) -> T:
    return options[int(rng.integers(len(options)))]


# -- other languages -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tongue:
    """The words of a language for kinds on a ground, in the order of `KINDS` and `GROUNDS`."""

    one: dict[str, str]  # by gender
    numbers: tuple[str, ...]  # from two on
    join: str
    nouns: tuple[tuple[str, str, str], ...]  # gender, one, several
    grounds: tuple[str, ...]

    def say(self, groups: tuple[ObjectGroup, ...], ground: Ground) -> str:
        """Name groups of things on a ground."""
        *most, last = [self._group(group) for group in groups]
        things = f"{', '.join(most)} {self.join} {last}" if most else last
        return f"{things} {self.grounds[GROUNDS.index(ground)]}"

    def _group(self, group: ObjectGroup) -> str:
        gender, single, several = self.nouns[KINDS.index(group.kind)]
        if group.count == 1:
            return f"{self.one[gender]} {single}"
        return f"{self.numbers[group.count - 2]} {several}"


def _nouns(words: str) -> tuple[tuple[str, str, str], ...]:
    split = [word.split("/") for word in words.split(", ")]
    return tuple((gender, single, several) for gender, single, several in split)


_TONGUES = (
    _Tongue(
        one={"m": "ein", "f": "eine"},
        numbers=("zwei", "drei", "vier", "fünf", "sechs"),
        join="und",
        nouns=_nouns(
            "f/Kugel/Kugeln, f/Kiste/Kisten, m/Kegel/Kegel, m/Ring/Ringe,"
            " m/Schneemann/Schneemänner, m/Baum/Bäume, m/Pilz/Pilze, m/Tisch/Tische,"
            " f/Sanduhr/Sanduhren, f/Säule/Säulen"
        ),
        # Not "auf dem Sand": the reader takes "ein Ring auf dem Sand" for English.
        grounds=(
            "auf grünem Gras",
            "auf sandigem Boden",
            "auf weißem Schnee",
            "auf grauen Fliesen",
        ),
    ),
    _Tongue(
        one={"m": "un", "f": "une"},
        numbers=("deux", "trois", "quatre", "cinq", "six"),
        join="et",
        nouns=_nouns(
            "f/boule/boules, f/boîte/boîtes, m/cône/cônes, m/anneau/anneaux,"
            " m/bonhomme de neige/bonhommes de neige, m/arbre/arbres,"
            " m/champignon/champignons, f/table/tables, m/sablier/sabliers,"
            " f/colonne/colonnes"
        ),
        # Not "sur la neige": the detector is not sure that "un cône sur la neige" is French.
        grounds=(
            "avec de l'herbe autour",
            "avec du sable autour",
            "avec de la neige autour",
            "avec du carrelage autour",
        ),
    ),
    _Tongue(
        one={"m": "un", "f": "una"},
        numbers=("dos", "tres", "cuatro", "cinco", "seis"),
        join="y",
        nouns=_nouns(
            "f/bola/bolas, f/caja/cajas, m/cono/conos, m/anillo/anillos,"
            " m/muñeco de nieve/muñecos de nieve, m/árbol/árboles, f/seta/setas,"
            " f/mesa/mesas, m/reloj de arena/relojes de arena, f/columna/columnas"
        ),
        grounds=("sobre la hierba", "sobre la arena", "sobre la nieve", "sobre las baldosas"),
    ),
)


def _foreign(scene: Scene, rng: np.random.Generator) -> str:
    plan = language.plan(scene, "kinds", rng)
    return _pick(rng, _TONGUES).say(plan.groups, plan.ground)
