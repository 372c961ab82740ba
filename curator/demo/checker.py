"""What a free English caption claims about a scene, and how much of it is true.

The caption may be a model's or the web's, in other words and another order than those of
`curator.demo.language`. `read` finds the claims: words of a table, the rest is passed over, so it
misses what it does not know rather than guess. `check` holds the claims against the scene.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

from curator.demo.language import WORDS
from curator.demo.scene import Relation, Scene, Shape, Solid

Fact = Literal["object", "color", "size", "material", "count", "relation", "ground", "sky"]
FACTS: tuple[Fact, ...] = get_args(Fact)
ATTRIBUTES: tuple[Fact, ...] = ("object", "color", "size", "material", "ground", "sky")
"""Facts whose number in a scene is plain, so that recall means something."""

_TABLE = {
    tuple(words.split()): (kind, meaning)
    for kind, meanings in WORDS.items()
    for meaning, listed in meanings.items()
    for words in listed.split(", ")
}
_LONGEST = max(map(len, _TABLE))
_TOKEN = re.compile(r"[a-z0-9]+|[.,;:!?\n]")


@dataclass(slots=True, eq=False)
class Mention:
    """A solid that a caption speaks of, and the (kind, value) pairs it tells of it."""

    shape: Shape
    told: set[tuple[str, str]] = field(default_factory=set)

    def right(self, solid: Solid) -> set[tuple[str, str]]:
        """What is told and true of the solid."""
        return {(kind, value) for kind, value in self.told if getattr(solid, kind) == value}

    def fits(self, solid: Solid) -> bool:
        """Whether shape and all that is told are true of the solid."""
        return self.shape == solid.shape and self.right(solid) == self.told

    def clashes(self, told: set[tuple[str, str]]) -> bool:
        """Whether `told` gives another value for a kind that is told already."""
        kinds = {kind for kind, _ in self.told - told}
        return any(kind in kinds for kind, _ in told - self.told)


@dataclass(slots=True)
class Reading:
    """The claims of a caption. A count is what was said, by example, and how many of it."""

    mentions: list[Mention] = field(default_factory=list)
    counts: list[tuple[Mention, int]] = field(default_factory=list)
    relations: list[tuple[list[Mention], Relation, list[Mention]]] = field(default_factory=list)
    ground: set[str] = field(default_factory=set)
    sky: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Tally:
    """How many claims are right, how many there are, and how many the truth would allow."""

    right: int = 0
    claimed: int = 0
    in_truth: int = 0

    def __add__(self, other: Tally) -> Tally:
        right, claimed = self.right + other.right, self.claimed + other.claimed
        return Tally(right, claimed, self.in_truth + other.in_truth)

    @property
    def precision(self) -> float:
        """Share of the claims that are right; 0 without claims."""
        return self.right / self.claimed if self.claimed else 0.0

    @property
    def recall(self) -> float:
        """Share of the truth that is told; 0 where there is nothing to tell."""
        return self.right / self.in_truth if self.in_truth else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * self.right / (self.claimed + self.in_truth) if self.right else 0.0


@dataclass(frozen=True, slots=True)
class Check:
    """A caption held against its scene; `precision`, `recall` and `f1` are over `ATTRIBUTES`."""

    facts: dict[Fact, Tally]

    @property
    def attributes(self) -> Tally:
        """All facts of `ATTRIBUTES` together."""
        return sum((self.facts[fact] for fact in ATTRIBUTES), Tally())

    @property
    def precision(self) -> float:
        """Share of what is told that is right."""
        return self.attributes.precision

    @property
    def recall(self) -> float:
        """Share of the scene's attributes that are told."""
        return self.attributes.recall

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return self.attributes.f1

    @property
    def mentioned(self) -> int:
        """Number of solids the caption speaks of."""
        return self.facts["object"].claimed

    @property
    def hallucinated(self) -> int:
        """Mentioned solids for which no solid of that shape is left (after CHAIR, 1809.02156)."""
        return self.mentioned - self.facts["object"].right

    @property
    def is_right(self) -> bool:
        """Whether a solid is mentioned and nothing that is claimed is wrong."""
        wrong = any(tally.right < tally.claimed for tally in self.facts.values())
        return self.mentioned > 0 and not wrong


@dataclass(frozen=True, slots=True)
class Summary:
    """Many checks added up; shares are 0 where there is nothing to divide by."""

    captions: int
    facts: dict[Fact, Tally]
    precision: float
    recall: float
    f1: float
    hallucination_rate: float  # of the mentioned solids
    right_share: float  # of the captions


def check(text: str, scene: Scene) -> Check:
    """Hold every claim of an English caption against the scene.

    Mentions are matched to different solids so that most of what is told is right. "Two red
    cubes" is a right count if exactly two solids fit; "a" and "the" count nothing. The truth has
    a count for every color and shape that several solids share, and relations in both directions.
    """
    reading = read(text)
    tallies = _match(reading.mentions, scene.solids)
    counted = [sum(map(mention.fits, scene.solids)) == number for mention, number in reading.counts]
    shared = Counter((solid.color, solid.shape) for solid in scene.solids)
    tallies["count"] = Tally(sum(counted), len(counted), sum(n > 1 for n in shared.values()))
    held = [_holds(subjects, name, others, scene) for subjects, name, others in reading.relations]
    tallies["relation"] = Tally(sum(held), len(held), len(scene.relations()))
    tallies["ground"] = Tally(int(scene.ground in reading.ground), len(reading.ground), 1)
    tallies["sky"] = Tally(int(scene.sky in reading.sky), len(reading.sky), 1)
    return Check(tallies)


def total(checks: Iterable[Check]) -> Summary:
    """Add up the checks of many captions: micro averages, every claim weighs the same."""
    listed = list(checks)
    facts = {fact: sum((one.facts[fact] for one in listed), Tally()) for fact in FACTS}
    whole = Check(facts)
    return Summary(
        captions=len(listed),
        facts=facts,
        precision=whole.precision,
        recall=whole.recall,
        f1=whole.f1,
        hallucination_rate=whole.hallucinated / max(whole.mentioned, 1),
        right_share=sum(one.is_right for one in listed) / max(len(listed), 1),
    )


def read(text: str) -> Reading:
    """The claims of an English caption, whatever the scene."""
    tokens = _TOKEN.findall(text.lower())
    reader = _Reader()
    at = 0
    while at < len(tokens):
        for length in range(min(_LONGEST, len(tokens) - at), 0, -1):
            if (found := _TABLE.get(tuple(tokens[at : at + length]))) is not None:
                break
        kind, meaning = found or ("mark" if tokens[at] in ".,;:!?\n" else "unknown", tokens[at])
        reader.take(kind, meaning, phrase=" ".join(tokens[at : at + length]))
        at += length
    reader.take("mark", ".", phrase=".")
    return reader.finish()


def _match(mentions: list[Mention], solids: tuple[Solid, ...]) -> dict[Fact, Tally]:
    """Tallies of objects and their attributes under the best matching, shape by shape."""
    right: Counter[str] = Counter()
    for shape in {mention.shape for mention in mentions}:
        there = [solid for solid in solids if solid.shape == shape]
        # Best facts for every set of solids that is taken; later mentions extend the sets.
        best: dict[int, list[tuple[str, str]]] = {0: []}
        for mention in (mention for mention in mentions if mention.shape == shape):
            longer = dict(best)
            for taken, facts in best.items():
                for number, solid in enumerate(there):
                    if not taken >> number & 1:
                        more = [*facts, *mention.right(solid)]
                        key = taken | 1 << number
                        if key not in longer or len(more) > len(longer[key]):
                            longer[key] = more
            best = longer
        most = max(key.bit_count() for key in best)
        chosen = max((facts for key, facts in best.items() if key.bit_count() == most), key=len)
        right["object"] += most
        right.update(kind for kind, _ in chosen)
    claimed = Counter(kind for mention in mentions for kind, _ in mention.told)
    claimed["object"] = len(mentions)
    return {kind: Tally(right[kind], claimed[kind], len(solids)) for kind in ATTRIBUTES[:4]}


def _holds(subjects: list[Mention], name: Relation, others: list[Mention], scene: Scene) -> bool:
    return any(
        told == name
        and any(mention.fits(scene.solids[a]) for mention in subjects)
        and any(mention.fits(scene.solids[b]) for mention in others)
        for a, told, b in scene.relations()
    )


class _Reader:
    """Takes a caption word by word; `pending` are the attributes whose noun is still to come."""

    pending: set[tuple[str, str]]
    number: int | None
    definite: bool
    negated: bool
    last: list[Mention] | None
    subject: list[Mention] | None  # of the relation before
    relation: tuple[list[Mention], Relation] | None
    # "Behind the cube is a cone": the relation comes first, then what it refers to.
    ahead: tuple[Relation, list[Mention] | None] | None

    def __init__(self) -> None:
        self.reading = Reading()
        self._end_sentence()

    def take(self, kind: str, meaning: str, phrase: str) -> None:
        """Take a phrase of the table, a mark, or a word that is unknown."""
        if kind in ("color", "size", "material"):
            if not self.negated:
                self.pending.add((kind, meaning))
            self.stale = False
        elif kind in ("shape", "shapes"):
            self._noun(cast("Shape", meaning), plural=kind == "shapes")
        elif kind in ("ground", "sky", "place"):
            if kind != "place" and not self.negated:
                getattr(self.reading, kind).add(meaning)
            self._leave()
        elif kind == "unknown":
            self.stale = True
            self.relation = None
        elif kind == "relation":
            self._relate(cast("Relation", meaning), phrase)
        elif kind != "filler":
            getattr(self, f"_{kind}")(meaning)

    def finish(self) -> Reading:
        """All that was claimed, when the last word is taken."""
        for mention in self.reading.mentions:
            _drop_mark_color(mention.told)
        if len(self.reading.sky) > 1:
            self.reading.sky.discard("clear")  # "a blue sky with clouds", "a clear sky at night"
        return self.reading

    def _noun(self, shape: Shape, plural: bool) -> None:
        told, number = self.pending, self.number
        self.pending, self.number, self.linked, self.joined = set(), None, False, False
        if self.negated:
            return
        _drop_mark_color(told)
        self.last = self._earlier(shape, told, plural, number) if self.definite else None
        if self.last is None:
            self.last = [Mention(shape, set(told)) for _ in range(number or 1)]
            self.reading.mentions += self.last
            if number:
                self.reading.counts.append((Mention(shape, set(told)), number))
        self.definite, self.open = False, True
        self._close_relation(self.last)

    def _pattern(self, meaning: str) -> None:
        for mention in [] if self.negated else self.last or []:
            mention.told.add(("material", meaning))
        self.pending = set()

    def _article(self, meaning: str) -> None:
        self._settle()
        self.definite, self.number, self.negated = meaning == "the", None, False

    def _number(self, meaning: str) -> None:
        self._settle()
        self.number, self.negated = int(meaning), False

    def _link(self, _: str) -> None:
        if self.linked or not self.pending:  # not "a red colored cube"
            self._settle()
            self.linked = True

    def _join(self, _: str) -> None:
        self.joined, self.negated = True, False

    def _negation(self, _: str) -> None:
        self._settle()
        self.negated = True

    def _surface(self, _: str) -> None:
        if self.linked:
            self.stale = False
            self._settle()
        self._leave()

    def _mark(self, meaning: str) -> None:
        if meaning != ",":
            self._settle()
            self._end_sentence()
        elif self.linked:
            self._settle()
        self.joined, self.negated = True, False

    def _settle(self) -> None:
        """Give "is red", when no noun has followed, to the solid before it."""
        if self.linked and self.open and not self.stale:
            for mention in self.last or []:
                mention.told |= self.pending
        self.pending, self.stale = set(), False

    def _leave(self) -> None:
        """Go past something that is no solid: what was told last is its own."""
        self.pending, self.number, self.definite, self.negated = set(), None, False, False
        self.open, self.relation = False, None
        if self.ahead and self.ahead[1] is None:
            self.ahead = None

    def _end_sentence(self) -> None:
        self.pending = set()
        self.number = self.last = self.subject = self.relation = self.ahead = None
        self.definite = self.linked = self.joined = self.stale = self.open = self.negated = False

    def _earlier(
        self, shape: Shape, told: set[tuple[str, str]], plural: bool, number: int | None
    ) -> list[Mention] | None:
        """Whom "the red cube" means: None for a new solid, nobody if it could be several."""
        alike = [mention for mention in self.reading.mentions if mention.shape == shape]
        named = [mention for mention in alike if told <= mention.told]
        pool = named or [mention for mention in alike if not mention.clashes(told)]
        if not pool or (number or 1) > len(pool):
            return None
        if not plural and any(mention.told != pool[0].told for mention in pool):
            return []
        for mention in (meant := pool[:number] if plural else pool[:1]):
            mention.told |= told
        return meant

    def _relate(self, name: Relation, phrase: str) -> None:
        self._settle()
        self.linked = self.definite = False
        subject = self.subject if self.joined and self.subject else self.last
        if subject is not None:
            self.relation = None if self.negated else (subject, name)
        elif phrase != "on":
            self.ahead = (name, None)

    def _close_relation(self, others: list[Mention]) -> None:
        if self.relation:
            self.subject, name = self.relation
            claim = (self.subject, name, others)
        elif self.ahead:
            name, reference = self.ahead
            if reference is None:
                self.ahead = (name, others)
                return
            claim = (others, name, reference)
        else:
            return
        self.relation = self.ahead = None
        if claim[0] and claim[2]:  # it may be open which solid is meant
            self.reading.relations.append(claim)


def _drop_mark_color(told: set[tuple[str, str]]) -> None:
    """Stripes and dots are white, or black on white: "red and white striped" is a red solid."""
    colors = {value for kind, value in told if kind == "color"}
    if {("material", "striped"), ("material", "dotted")} & told and len(colors) > 1:
        told.discard(("color", "black" if "white" in colors and "black" in colors else "white"))
