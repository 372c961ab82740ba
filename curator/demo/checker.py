"""Check what a free English caption claims about a scene, and how much of it is true.

`curator.demo.reader` finds the claims, `check` compares them with the scene.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from curator.demo.reader import Mention, read
from curator.demo.scene import Scene, Thing
from curator.scorers.text import check_text

Fact = Literal["object", "color", "material", "count", "relation", "ground", "sky"]
FACTS: tuple[Fact, ...] = get_args(Fact)
ATTRIBUTES: tuple[Fact, ...] = ("object", "color", "material", "ground", "sky")
"""Kinds of facts that a scene has a definite number of, so that recall is well defined."""


@dataclass(frozen=True, slots=True)
class ClaimCounts:
    """Numbers of correct claims, of all claims, and of claims that the truth allows."""

    right: int = 0
    claimed: int = 0
    in_truth: int = 0

    def __add__(self, other: ClaimCounts) -> ClaimCounts:
        right, claimed = self.right + other.right, self.claimed + other.claimed
        return ClaimCounts(right, claimed, self.in_truth + other.in_truth)

    @property
    def precision(self) -> float:
        """Share of the claims that are correct; 0 without claims."""
        return self.right / self.claimed if self.claimed else 0.0

    @property
    def recall(self) -> float:
        """Share of the truth that is claimed; 0 if there is nothing to claim."""
        return self.right / self.in_truth if self.in_truth else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * self.right / (self.claimed + self.in_truth) if self.right else 0.0


@dataclass(frozen=True, slots=True)
class CaptionCheck:
    """A caption checked against its scene; `precision`, `recall` and `f1` are over `ATTRIBUTES`."""

    facts: dict[Fact, ClaimCounts]
    is_spam: bool = False

    @property
    def attributes(self) -> ClaimCounts:
        """All facts of `ATTRIBUTES` together."""
        return sum((self.facts[fact] for fact in ATTRIBUTES), ClaimCounts())

    @property
    def precision(self) -> float:
        """Share of the claimed attributes that are correct."""
        return self.attributes.precision

    @property
    def recall(self) -> float:
        """Share of the scene's attributes that are claimed."""
        return self.attributes.recall

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return self.attributes.f1

    @property
    def mentioned(self) -> int:
        """Number of things that the caption mentions."""
        return self.facts["object"].claimed

    @property
    def hallucinated(self) -> int:
        """Number of mentions without an unmatched thing of that kind (after CHAIR, 1809.02156)."""
        return self.mentioned - self.facts["object"].right

    @property
    def is_right(self) -> bool:
        """Whether it names a thing, makes one more claim, has no false claim and is not spam."""
        tallies = self.facts.values()
        tells_more = sum(tally.claimed for tally in tallies) > self.mentioned > 0
        return tells_more and all(t.right == t.claimed for t in tallies) and not self.is_spam


@dataclass(frozen=True, slots=True)
class CheckSummary:
    """Totals over many checks; shares are 0 if the denominator is 0."""

    captions: int
    facts: dict[Fact, ClaimCounts]
    precision: float
    recall: float
    f1: float
    hallucination_rate: float  # of the mentioned things
    right_share: float  # of the captions


def check(text: str, scene: Scene) -> CaptionCheck:
    """Check every claim of an English caption against the scene.

    Mentions are matched to distinct things so that as many claims as possible are correct. "Two red
    boxes" is a correct count if exactly two things fit; "a" and "the" are not counts. The truth has
    a count for every color and kind that several things share, and relations in both directions.
    """
    reading = read(text)
    tallies = _match(reading.mentions, scene.things)
    counted = [sum(map(mention.fits, scene.things)) == number for mention, number in reading.counts]
    shared = Counter((thing.color, thing.kind) for thing in scene.things)
    tallies["count"] = ClaimCounts(sum(counted), len(counted), sum(n > 1 for n in shared.values()))
    held = [_holds(subjects, name, others, scene) for subjects, name, others in reading.relations]
    tallies["relation"] = ClaimCounts(sum(held), len(held), len(scene.relations()))
    tallies["ground"] = ClaimCounts(int(scene.ground in reading.ground), len(reading.ground), 1)
    tallies["sky"] = ClaimCounts(int(scene.sky in reading.sky), len(reading.sky), 1)
    return CaptionCheck(tallies, is_spam="spam" in check_text(text).flags)


def total(checks: Iterable[CaptionCheck]) -> CheckSummary:
    """Add up the checks of many captions as micro averages: every claim has the same weight."""
    listed = list(checks)
    facts = {fact: sum((one.facts[fact] for one in listed), ClaimCounts()) for fact in FACTS}
    whole = CaptionCheck(facts)
    return CheckSummary(
        captions=len(listed),
        facts=facts,
        precision=whole.precision,
        recall=whole.recall,
        f1=whole.f1,
        hallucination_rate=whole.hallucinated / max(whole.mentioned, 1),
        right_share=sum(one.is_right for one in listed) / max(len(listed), 1),
    )


def _match(mentions: list[Mention], things: tuple[Thing, ...]) -> dict[Fact, ClaimCounts]:
    """Count objects and their attributes under the best matching, kind by kind."""
    right: Counter[str] = Counter()
    for kind in {mention.kind for mention in mentions}:
        there = [thing for thing in things if thing.kind == kind]
        # The best counts for every set of matched things; later mentions extend the sets.
        best: dict[int, list[tuple[str, str]]] = {0: []}
        for mention in (mention for mention in mentions if mention.kind == kind):
            longer = dict(best)
            for taken, facts in best.items():
                for number, thing in enumerate(there):
                    if not taken >> number & 1:
                        more = [*facts, *mention.right(thing)]
                        key = taken | 1 << number
                        if key not in longer or len(more) > len(longer[key]):
                            longer[key] = more
            best = longer
        most = max(key.bit_count() for key in best)
        chosen = max((facts for key, facts in best.items() if key.bit_count() == most), key=len)
        right["object"] += most
        right.update(name for name, _ in chosen)
    claimed = Counter(name for mention in mentions for name, _ in mention.claims)
    claimed["object"] = len(mentions)
    return {fact: ClaimCounts(right[fact], claimed[fact], len(things)) for fact in ATTRIBUTES[:3]}


def _holds(subjects: list[Mention], name: str, others: list[Mention], scene: Scene) -> bool:
    return any(
        relation == name
        and any(mention.fits(scene.things[a]) for mention in subjects)
        and any(mention.fits(scene.things[b]) for mention in others)
        for a, relation, b in scene.relations()
    )
