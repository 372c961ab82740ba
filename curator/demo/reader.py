"""Read the claims of a free English caption, without looking at the scene.

The caption may come from a model or the web, with other words and in another order than those of
`curator.demo.language`. Only words of a table make claims, all others are skipped: the reader
misses unknown words rather than guessing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import cast

from curator.demo.language import WORDS
from curator.demo.scene import Kind, Thing

_TABLE = {
    tuple(words.split()): (category, meaning)
    for category, meanings in WORDS.items()
    for meaning, listed in meanings.items()
    for words in listed.split(", ")
}
_LONGEST = max(map(len, _TABLE))
_TOKEN = re.compile(r"[a-z0-9]+|[.,;:!?\n]")


@dataclass(slots=True, eq=False)
class Mention:
    """A thing that a caption mentions, and the (attribute, value) pairs that it claims about it."""

    kind: Kind
    claims: set[tuple[str, str]] = field(default_factory=set)

    def right(self, thing: Thing) -> set[tuple[str, str]]:
        """Return the claims that are true of the thing."""
        return {(name, value) for name, value in self.claims if getattr(thing, name) == value}

    def fits(self, thing: Thing) -> bool:
        """Whether the kind and all claims are true of the thing."""
        return self.kind == thing.kind and self.right(thing) == self.claims

    def clashes(self, claims: set[tuple[str, str]]) -> bool:
        """Whether `claims` has a different value for an attribute already claimed."""
        named = {name for name, _ in self.claims - claims}
        return any(name in named for name, _ in claims - self.claims)


@dataclass(slots=True)
class Reading:
    """The claims of a caption. A count is a mention, standing for its kind, and the number."""

    mentions: list[Mention] = field(default_factory=list)
    counts: list[tuple[Mention, int]] = field(default_factory=list)
    relations: list[tuple[list[Mention], str, list[Mention]]] = field(default_factory=list)
    ground: set[str] = field(default_factory=set)
    sky: set[str] = field(default_factory=set)


def read(text: str) -> Reading:
    """Return the claims of an English caption."""
    tokens = _TOKEN.findall(text.lower())
    reader = _Reader()
    at = 0
    while at < len(tokens):
        for length in range(min(_LONGEST, len(tokens) - at), 0, -1):
            if (found := _TABLE.get(tuple(tokens[at : at + length]))) is not None:
                break
        category, meaning = found or ("mark" if tokens[at] in ".,;:!?\n" else "unknown", tokens[at])
        reader.take(category, meaning, phrase=" ".join(tokens[at : at + length]))
        at += length
    reader.take("mark", ".", phrase=".")
    return reader.finish()


class _Reader:
    """Reads a caption phrase by phrase; `pending` are attributes whose noun has not come yet."""

    pending: set[tuple[str, str]]
    number: int | None
    definite: bool
    negated: bool
    last: list[Mention] | None
    subject: list[Mention] | None  # of the previous relation
    relation: tuple[list[Mention], str] | None
    # "Behind the cube and the ring is a cone": the relation and its references precede the subject.
    ahead: tuple[str, list[list[Mention]]] | None
    # "A cube behind a ring and a cone": `listing` is the cube and "behind", which may apply to the
    # cone too; `waiting` is that claim until it is clear that the cone has no relation or verb.
    listing: tuple[list[Mention], str] | None
    waiting: tuple[list[Mention], str, list[Mention]] | None

    def __init__(self) -> None:
        self.reading = Reading()
        self._end_sentence()

    def take(self, category: str, meaning: str, phrase: str) -> None:
        """Process a phrase of the table, a punctuation mark, or an unknown word."""
        if category in ("color", "material"):
            if not self.negated:
                self.pending.add((category, meaning))
            self.stale = False
        elif category in ("thing", "things"):
            self._noun(cast("Kind", meaning), plural=category == "things")
        elif category in ("ground", "sky", "place"):
            if category != "place" and not self.negated:
                getattr(self.reading, category).add(meaning)
            self._leave()
        elif category == "unknown":
            self.stale = True
            self.relation = None
            self._end_list(keep=False)
        elif category == "relation":
            self._relate(meaning, phrase)
        elif category == "join":
            self._join(phrase)
        elif category != "filler":
            getattr(self, f"_{category}")(meaning)

    def finish(self) -> Reading:
        """Return all claims, after the last word."""
        for mention in self.reading.mentions:
            _drop_mark_color(mention.claims)
        if len(self.reading.sky) > 1:
            self.reading.sky.discard("clear")  # "a blue sky with clouds", "a clear sky at night"
        return self.reading

    def _noun(self, kind: Kind, plural: bool) -> None:
        claims, number = self.pending, self.number
        self.pending, self.number, self.linked, self.joined = set(), None, False, False
        if self.negated:
            return
        _drop_mark_color(claims)
        self.last = self._earlier(kind, claims, plural, number) if self.definite else None
        if self.last is None:
            self.last = [Mention(kind, set(claims)) for _ in range(number or 1)]
            self.reading.mentions += self.last
            if number:
                self.reading.counts.append((Mention(kind, set(claims)), number))
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
        """Assign pending attributes without a noun ("is red") to the thing before them."""
        if self.linked and self.open and not self.stale:
            for mention in self.last or []:
                mention.claims |= self.pending
        self.pending, self.stale = set(), False

    def _leave(self) -> None:
        """Pass something that is not a thing: the attributes named last belong to it."""
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
        self, kind: Kind, claims: set[tuple[str, str]], plural: bool, number: int | None
    ) -> list[Mention] | None:
        """Resolve "the red cube" to earlier mentions: None for a new thing, [] if ambiguous."""
        alike = [mention for mention in self.reading.mentions if mention.kind == kind]
        named = [mention for mention in alike if claims <= mention.claims]
        pool = named or [mention for mention in alike if not mention.clashes(claims)]
        if not pool or (number or 1) > len(pool):
            return None
        if not plural and any(mention.claims != pool[0].claims for mention in pool):
            return []
        for mention in (meant := pool[:number] if plural else pool[:1]):
            mention.claims |= claims
        return meant

    def _relate(self, name: str, phrase: str) -> None:
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
            # A thing stands on one thing only: in "a cone on a cube and a ring" the ring is apart.
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

    def _claim(self, subject: list[Mention], name: str, others: list[Mention]) -> None:
        if subject and others:  # empty if it is ambiguous which thing is meant
            self.reading.relations.append((subject, name, others))

    def _claim_waiting(self) -> None:
        if self.waiting:
            self._claim(*self.waiting)
        self.waiting = None

    def _end_list(self, *, keep: bool) -> None:
        """End the list of the last relation; `keep` tells whether the waiting claim is made."""
        if keep:
            self._claim_waiting()
        self.listing = self.waiting = None
        self.listed = False


def _drop_mark_color(claims: set[tuple[str, str]]) -> None:
    """Drop the color of the marks (white, or black on white): "red and white striped" is red."""
    colors = {value for name, value in claims if name == "color"}
    if {("material", "striped"), ("material", "dotted")} & claims and len(colors) > 1:
        claims.discard(("color", "black" if "white" in colors and "black" in colors else "white"))
