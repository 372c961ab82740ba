"""What a free English caption claims, whatever the scene.

The caption may be a model's or the web's, in other words and another order than those of
`curator.demo.language`. Words of a table make the claims and the rest is passed over, so it misses
what it does not know rather than guess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import cast

from curator.demo.language import WORDS
from curator.demo.scene import Relation, Shape, Solid

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
    """A solid that a caption speaks of, and the (kind, value) pairs it claims of it."""

    shape: Shape
    claims: set[tuple[str, str]] = field(default_factory=set)

    def right(self, solid: Solid) -> set[tuple[str, str]]:
        """What is claimed and true of the solid."""
        return {(kind, value) for kind, value in self.claims if getattr(solid, kind) == value}

    def fits(self, solid: Solid) -> bool:
        """Whether shape and all that is claimed are true of the solid."""
        return self.shape == solid.shape and self.right(solid) == self.claims

    def clashes(self, claims: set[tuple[str, str]]) -> bool:
        """Whether `claims` gives another value for a kind that is claimed already."""
        kinds = {kind for kind, _ in self.claims - claims}
        return any(kind in kinds for kind, _ in claims - self.claims)


@dataclass(slots=True)
class Reading:
    """The claims of a caption. A count is what was said, by example, and how many of it."""

    mentions: list[Mention] = field(default_factory=list)
    counts: list[tuple[Mention, int]] = field(default_factory=list)
    relations: list[tuple[list[Mention], Relation, list[Mention]]] = field(default_factory=list)
    ground: set[str] = field(default_factory=set)
    sky: set[str] = field(default_factory=set)


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


class _Reader:
    """Takes a caption word by word; `pending` are the attributes whose noun is still to come."""

    pending: set[tuple[str, str]]
    number: int | None
    definite: bool
    negated: bool
    last: list[Mention] | None
    subject: list[Mention] | None  # of the relation before
    relation: tuple[list[Mention], Relation] | None
    # "Behind the cube and the ring is a cone": the relation comes first, then what it refers to.
    ahead: tuple[Relation, list[list[Mention]]] | None
    # "A cube behind a ring and a cone": who is behind the next one as well, and the claim that
    # waits until it is sure that the cone has no relation or verb of its own.
    listing: tuple[list[Mention], Relation] | None
    waiting: tuple[list[Mention], Relation, list[Mention]] | None

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
            self._end_list(keep=False)
        elif kind == "relation":
            self._relate(cast("Relation", meaning), phrase)
        elif kind == "join":
            self._join(phrase)
        elif kind != "filler":
            getattr(self, f"_{kind}")(meaning)

    def finish(self) -> Reading:
        """All that was claimed, when the last word is taken."""
        for mention in self.reading.mentions:
            _drop_mark_color(mention.claims)
        if len(self.reading.sky) > 1:
            self.reading.sky.discard("clear")  # "a blue sky with clouds", "a clear sky at night"
        return self.reading

    def _noun(self, shape: Shape, plural: bool) -> None:
        claims, number = self.pending, self.number
        self.pending, self.number, self.linked, self.joined = set(), None, False, False
        if self.negated:
            return
        _drop_mark_color(claims)
        self.last = self._earlier(shape, claims, plural, number) if self.definite else None
        if self.last is None:
            self.last = [Mention(shape, set(claims)) for _ in range(number or 1)]
            self.reading.mentions += self.last
            if number:
                self.reading.counts.append((Mention(shape, set(claims)), number))
        self.definite, self.open = False, True
        self._close_relation(self.last)
        self.listed = False

    def _pattern(self, meaning: str) -> None:
        for mention in [] if self.negated else self.last or []:
            mention.claims.add(("material", meaning))
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
            self._end_list(keep=False)
            self.linked = True

    def _join(self, phrase: str) -> None:
        self._claim_waiting()
        self.joined, self.negated, self.listed = True, False, phrase == "and"

    def _negation(self, _: str) -> None:
        self._settle()
        self._end_list(keep=True)
        self.negated = True

    def _surface(self, _: str) -> None:
        if self.linked:
            self.stale = False
            self._settle()
        self._leave()

    def _mark(self, meaning: str) -> None:
        self._end_list(keep=True)
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
                mention.claims |= self.pending
        self.pending, self.stale = set(), False

    def _leave(self) -> None:
        """Go past something that is not a solid: what was named last is its own."""
        self.pending, self.number, self.definite, self.negated = set(), None, False, False
        self.open, self.relation = False, None
        self._end_list(keep=True)
        if self.ahead and not self.ahead[1]:
            self.ahead = None

    def _end_sentence(self) -> None:
        self.pending = set()
        self.number = self.last = self.subject = self.relation = self.ahead = None
        self.listing = self.waiting = None
        self.definite = self.linked = self.joined = self.listed = False
        self.stale = self.open = self.negated = False

    def _earlier(
        self, shape: Shape, claims: set[tuple[str, str]], plural: bool, number: int | None
    ) -> list[Mention] | None:
        """Whom "the red cube" means: None for a new solid, nobody if it could be several."""
        alike = [mention for mention in self.reading.mentions if mention.shape == shape]
        named = [mention for mention in alike if claims <= mention.claims]
        pool = named or [mention for mention in alike if not mention.clashes(claims)]
        if not pool or (number or 1) > len(pool):
            return None
        if not plural and any(mention.claims != pool[0].claims for mention in pool):
            return []
        for mention in (meant := pool[:number] if plural else pool[:1]):
            mention.claims |= claims
        return meant

    def _relate(self, name: Relation, phrase: str) -> None:
        self._settle()
        self.linked = self.definite = self.listed = False
        self.listing = None
        subject = self.subject if self.joined and self.subject else self.last
        if subject is not None:
            self.relation = None if self.negated else (subject, name)
        elif phrase != "on":
            self.ahead = (name, [])

    def _close_relation(self, others: list[Mention]) -> None:
        if self.relation:
            self.subject, name = self.relation
            self._claim(self.subject, name, others)
            self.relation = self.ahead = self.waiting = None
            # A solid stands on one other: "a cone on a cube and a ring" is a list of two.
            self.listing = None if name in ("on top of", "under") else (self.subject, name)
        elif self.ahead:
            name, references = self.ahead
            if not references or self.listed:
                references.append(others)
                return
            for reference in references:
                self._claim(others, name, reference)
            self.ahead = None
        elif self.listed and self.listing:
            self.waiting = (*self.listing, others)
        else:
            self._end_list(keep=True)

    def _claim(self, subject: list[Mention], name: Relation, others: list[Mention]) -> None:
        if subject and others:  # it may be open which solid is meant
            self.reading.relations.append((subject, name, others))

    def _claim_waiting(self) -> None:
        if self.waiting:
            self._claim(*self.waiting)
        self.waiting = None

    def _end_list(self, *, keep: bool) -> None:
        """No more solids for the last relation; `keep` says whether the one that waits is one."""
        if keep:
            self._claim_waiting()
        self.listing = self.waiting = None
        self.listed = False


def _drop_mark_color(claims: set[tuple[str, str]]) -> None:
    """Stripes and dots are white, or black on white: "red and white striped" is a red solid."""
    colors = {value for kind, value in claims if kind == "color"}
    if {("material", "striped"), ("material", "dotted")} & claims and len(colors) > 1:
        claims.discard(("color", "black" if "white" in colors and "black" in colors else "white"))
