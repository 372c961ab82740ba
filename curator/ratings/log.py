"""Blind ratings: which of two texts fits a picture better, as a person said it. Append-only facts.

    facts/ratings/<item>.<rater>.<nth>.json

An item is a picture and two texts, whatever their order and whatever versions they came from, so a
rating outlives a recommit and counts in every comparison in which the same two texts meet. A rater
who thinks again adds one more file; the latest counts, in the order of `nth` and not of any clock.

A rating is a file of its own, put there whole and only if it is absent: it is on disk when `add`
returns, no lock is needed, any number of processes may rate at once, and damage to one file is the
loss of one rating, by name. Writing costs two syncs, reading some 30 microseconds a rating.
What the ratings say is in `curator.ratings.stats`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from curator.core import clock, hashing
from curator.core.errors import DamageError, UsageError
from curator.core.hashing import text_sha256
from curator.core.validation import explain
from curator.store import fsops, sealed
from curator.store.listing import Listing
from curator.store.store import Store

Answer = Literal["left", "right", "equal", "both_bad"]
Verdict = Literal["new", "old", "equal", "both_bad"]
VERDICTS: tuple[Verdict, ...] = ("new", "old", "equal", "both_bad")
MAX_NAME_LENGTH = 80
_ITEM_HEX, _RATER_HEX = 32, 12


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownPair:
    """What a rater has before the eyes: a picture and two texts, in this order.

    `shard` and `key` say where the picture is; the rating does not depend on them.
    """

    image_sha256: str
    left: str
    right: str
    shard: str
    key: str | None


class Rating(BaseModel):
    """One answer. `left` and `right` are the texts as they were shown.

    `nth` counts the rater's ratings of this item, from 0; `created` is in seconds since the epoch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    image_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    left: str
    right: str
    shard: str
    key: str | None
    answer: Answer
    who: str
    nth: Annotated[int, Field(ge=0)] = 0
    created: Annotated[float, Field(allow_inf_nan=False)]

    @model_validator(mode="after")
    def _whole(self) -> Rating:
        if self.left == self.right:
            raise ValueError("left and right are the same text: there is nothing to choose")
        if not self.who or self.who != " ".join(self.who.split()):
            raise ValueError(f"who is {self.who!r}: a name on one line, no spaces around it")
        if len(self.who) > MAX_NAME_LENGTH:
            raise ValueError(f"who has {len(self.who)} characters, at most {MAX_NAME_LENGTH}")
        return self

    @property
    def item(self) -> str:
        """What was rated; see `item_id`."""
        return item_id(self.image_sha256, self.left, self.right)

    @property
    def said(self) -> str:
        """The sha256 of the better text, or `equal` or `both_bad`: whatever the order was."""
        better = {"left": self.left, "right": self.right}.get(self.answer)
        return self.answer if better is None else text_sha256(better)


def item_id(image_sha256: str, first: str, second: str) -> str:
    """The identity of a picture with two texts: the same whichever comes first."""
    texts = sorted((text_sha256(first), text_sha256(second)))
    return hashing.digest([image_sha256, *texts])[:_ITEM_HEX]


def add(store: Store, shown: ShownPair, answer: Answer, who: str) -> Rating:
    """Keep a rating; it is on disk when this returns. The same answer again adds nothing.

    Returns:
        the rating that counts now.

    Raises:
        UsageError: a field is not as it should be. StorageError: it could not be kept.
        DamageError: an earlier rating of this item by this rater is not readable.
    """
    try:
        rating = Rating(**asdict(shown), answer=answer, who=who, created=clock.now())
    except ValidationError as error:
        raise UsageError(explain(error, Rating), reason="rating.invalid") from error
    item = rating.item
    before: Rating | None = None
    nth = 0
    while True:
        path = _folder(store) / f"{item}.{_rater_id(who)}.{nth:04d}.json"
        if not path.exists():
            if before is not None and before.said == rating.said:
                return before
            numbered = rating.model_copy(update={"nth": nth})
            if fsops.put_if_absent(path, sealed.to_bytes(numbered.model_dump())):
                listing(store).add([("there", path)], found=_files(store))
                return numbered
        before = _load(path)  # also when another process with this name was faster
        nth += 1


def read(store: Store, items: Collection[str] | None = None) -> list[Rating]:
    """The ratings that count, the latest of each rater and item; of these `items` only.

    Raises:
        DamageError: a rating is not readable, or gone.
    """
    listing(store).check()
    latest: dict[tuple[str, str], Path] = {}
    for path in _files(store):
        item, rater, _ = path.name.split(".", 2)
        if items is None or item in items:
            latest[item, rater] = path
    return [_load(path) for path in latest.values()]


def listing(store: Store) -> Listing:
    """The ratings that should be there."""
    return Listing(store.root, "ratings")


def unreadable(store: Store) -> Iterator[DamageError]:
    """All ratings that are damaged, those that no longer count as well."""
    for path in _files(store):
        try:
            _load(path)
        except DamageError as error:
            yield error


def _files(store: Store) -> list[Path]:
    return sorted(_folder(store).glob("*.*.????.json"))


def _folder(store: Store) -> Path:
    return store.root / "facts" / "ratings"


def _rater_id(who: str) -> str:
    return text_sha256(who)[:_RATER_HEX]


def _load(path: Path) -> Rating:
    try:
        rating = Rating.model_validate(sealed.read(path))
    except ValidationError as error:
        raise DamageError("the rating is not readable", where=path) from error
    if path.name != f"{rating.item}.{_rater_id(rating.who)}.{rating.nth:04d}.json":
        raise DamageError("the rating does not fit its name", where=path)
    return rating


# -- in terms of two versions --------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Matchup:
    """A picture with the text of an old and a new version."""

    image_sha256: str
    old: str
    new: str

    @property
    def item(self) -> str:
        """As `item_id`."""
        return item_id(self.image_sha256, self.old, self.new)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """What one rater thinks of one item, in terms of the two versions."""

    item: str
    who: str
    verdict: Verdict


def votes(matchups: Iterable[Matchup], ratings: Iterable[Rating]) -> list[Vote]:
    """Ratings in terms of the two versions; those of other items are left out."""
    sides: dict[str, dict[str, Verdict]] = {
        matchup.item: {text_sha256(matchup.old): "old", text_sha256(matchup.new): "new"}
        for matchup in matchups
    }
    found = []
    for rating in ratings:
        if rating.item in sides:
            said: dict[str, Verdict] = {
                **sides[rating.item],
                "equal": "equal",
                "both_bad": "both_bad",
            }
            found.append(Vote(item=rating.item, who=rating.who, verdict=said[rating.said]))
    return found
