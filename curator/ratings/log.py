"""Log of blind ratings: which of two texts fits an image better. Append-only facts.

    facts/ratings/<item>.<rater>.<nth>.json

An item is an image and two texts, in any order and from any versions, so a rating survives a new
commit and counts in every comparison of the same two texts. A rater who changes an answer adds one
more file; the latest counts, by `nth` and not by any clock.

Each rating is its own file, written atomically and only if absent: it is on disk when `add`
returns, no lock is needed, any number of processes may rate at once, and damage to one file loses
one rating, which is named. Writing costs two fsyncs, reading about 30 microseconds per rating.
`curator.ratings.stats` evaluates the ratings.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from curator.core import clock, hashing
from curator.core.errors import ConflictError, DamageError, UsageError
from curator.core.hashing import text_sha256
from curator.core.validation import explain
from curator.store import fsops, sealed
from curator.store.listing import Listing
from curator.store.store import Store
from curator.store.union import united

Answer = Literal["left", "right", "equal", "both_bad"]
Verdict = Literal["new", "old", "equal", "both_bad"]
VERDICTS: tuple[Verdict, ...] = ("new", "old", "equal", "both_bad")
MAX_NAME_LENGTH = 80
_ITEM_HEX, _RATER_HEX = 32, 12


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownPair:
    """What a rater sees: an image and two texts, in this order.

    `shard` and `key` locate the image; the rating does not depend on them.
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
            raise ValueError("left and right are the same text: there is nothing to choose between")
        if not self.who or self.who != " ".join(self.who.split()):
            raise ValueError(f"who is {self.who!r}: give a name on one line, no spaces around it")
        if len(self.who) > MAX_NAME_LENGTH:
            raise ValueError(f"who has {len(self.who)} characters, at most {MAX_NAME_LENGTH}")
        return self

    @property
    def item(self) -> str:
        """Return the id of the rated item; see `item_id`."""
        return item_id(self.image_sha256, self.left, self.right)

    @property
    def said(self) -> str:
        """Return the sha256 of the better text, or `equal` or `both_bad`, in whatever order."""
        better = {"left": self.left, "right": self.right}.get(self.answer)
        return self.answer if better is None else text_sha256(better)


def item_id(image_sha256: str, first: str, second: str) -> str:
    """Return the identity of an image with two texts, independent of their order."""
    texts = sorted((text_sha256(first), text_sha256(second)))
    return hashing.digest([image_sha256, *texts])[:_ITEM_HEX]


def add(store: Store, shown: ShownPair, answer: Answer, who: str) -> Rating:
    """Record a rating; it is on disk when this returns. A repeated answer adds nothing.

    Returns:
        The rating that counts now.

    Raises:
        UsageError: a field is invalid. StorageError: it could not be written.
        DamageError: an earlier rating of this item by this rater is unreadable.
    """
    store.check_writable()
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
        before = _load(path)  # also if another process of the same rater was faster
        nth += 1


def read(store: Store, items: Collection[str] | None = None) -> list[Rating]:
    """Read the latest rating of each rater and item, only of `items` if given.

    Raises:
        DamageError: a rating is unreadable or missing.
    """
    listing(store).check()
    latest: dict[tuple[str, str], Path] = {}
    for path in _files(store):
        item, rater, _ = path.name.split(".", 2)
        if items is None or item in items:
            latest[item, rater] = path
    return [_load(path) for path in latest.values()]


def listing(store: Store) -> Listing:
    """Return the listing of ratings that must exist."""
    return Listing(store.root, "ratings")


def unreadable(store: Store) -> Iterator[DamageError]:
    """Yield an error for each damaged rating, including superseded ones."""
    for path in _files(store):
        try:
            _load(path)
        except DamageError as error:
            yield error


def unite(store: Store, others: Sequence[Store]) -> int:
    """Add the ratings of other stores that this one lacks; return how many.

    Answers of one rater about one item are put in the order they were given, so that the latest of
    all stores counts. Their files are then numbered anew, the last one first: a crash in between
    repeats an answer, and the next `unite` ends with the same files.
    """
    answers: dict[tuple[str, str], dict[Path, list[Rating]]] = {}
    for one in (store, *others):
        for path in _files(one):
            item, rater, _ = path.name.split(".", 2)
            answers.setdefault((item, rater), {}).setdefault(one.root, []).append(_load(path))
    added, listed = 0, list[Path]()
    for (item, rater), by_store in sorted(answers.items()):
        # Of an answer that such a crash repeated, the last copy is where it belongs.
        lists = [
            list({_identity(rating): rating for rating in reversed(ratings)}.values())[::-1]
            for ratings in by_store.values()
        ]
        whole = united(
            lists, key=_identity, order=lambda rating: (rating.created, _identity(rating))
        )
        added += len(whole) - len(set(map(_identity, by_store.get(store.root, ()))))
        for nth, rating in reversed(list(enumerate(whole))):
            path = _folder(store) / f"{item}.{rater}.{nth:04d}.json"
            data = sealed.to_bytes(rating.model_copy(update={"nth": nth}).model_dump())
            if not path.exists():
                if not fsops.put_if_absent(path, data):
                    raise ConflictError(
                        "somebody rated this item meanwhile",
                        where=path,
                        did="all ratings are kept",
                        hint="run the same command again",
                    )
            elif _load(path) != rating.model_copy(update={"nth": nth}):
                fsops.write_atomic(path, data)
            listed.append(path)
    if added:
        listing(store).add([("there", path) for path in sorted(listed)], found=_files(store))
    return added


def _identity(rating: Rating) -> str:
    return rating.model_copy(update={"nth": 0}).model_dump_json()


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
        raise DamageError("the rating is unreadable", where=path) from error
    if path.name != f"{rating.item}.{_rater_id(rating.who)}.{rating.nth:04d}.json":
        raise DamageError("the rating does not match its file name", where=path)
    return rating


# -- in terms of two versions --------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Matchup:
    """An image with its text in an old and in a new version."""

    image_sha256: str
    old: str
    new: str

    @property
    def item(self) -> str:
        """As `item_id`."""
        return item_id(self.image_sha256, self.old, self.new)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One rater's answer on one item, in terms of the two versions."""

    item: str
    who: str
    verdict: Verdict


def votes(matchups: Iterable[Matchup], ratings: Iterable[Rating]) -> list[Vote]:
    """Convert ratings to votes on the two versions; those of other items are left out."""
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
