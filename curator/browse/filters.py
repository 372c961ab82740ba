"""What to look at: conditions on the texts of one version, as a value that can be a key."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal, Self, get_args

from curator.core.errors import UsageError, nearest
from curator.store.versions import ACTIONS

Sort = Literal["score", "gain", "length", "shard", "random"]
SORTS: tuple[str, ...] = get_args(Sort)


@dataclass(frozen=True, kw_only=True)
class Filter:
    """All conditions must hold; an empty one holds for everything.

    Args:
        score_min, score_max: of the score the version's policy chose by, both included. A text
            without a score is out as soon as one of them is set.
        percentile: (low, high), out of the scored texts of the same source: the share of them, in
            percent, that scores below a text.
        sources: alt_text, or names of generators.
        text: occurs in the text, whatever its case; where no text was chosen, in the alt text.
        actions, because, shards: one of these.
        flags: any of these, on the text or on the image.
        changed_from: number of a version in which the sample has other texts; with `unchanged`, the
            same ones.
        key: the sample's key begins like this.
        seed: not a condition: the order of `random`.

    Raises:
        UsageError: a value is not allowed; names it.
    """

    score_min: float | None = None
    score_max: float | None = None
    percentile: tuple[float, float] = (0.0, 100.0)
    sources: tuple[str, ...] = ()
    text: str = ""
    actions: tuple[str, ...] = ()
    because: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    shards: tuple[str, ...] = ()
    changed_from: int | None = None
    unchanged: bool = False
    key: str = ""
    seed: int | None = None

    def __post_init__(self) -> None:
        low, high = self.percentile
        if not 0 <= low <= high <= 100:  # noqa: PLR2004 - percent
            raise _wrong("percentile", (low, high), "two values from 0 to 100, the lower one first")
        limits = (self.score_min, self.score_max)
        if None not in limits and not limits[0] <= limits[1]:  # type: ignore[operator]  # not None
            raise _wrong("score_min", self.score_min, f"at most score_max ({self.score_max})")
        unknown = [action for action in self.actions if action not in ACTIONS]
        if unknown:
            raise _wrong("actions", unknown[0], nearest(unknown[0], ACTIONS))
        if self.unchanged and self.changed_from is None:
            raise _wrong("unchanged", True, "true together with changed_from")

    @property
    def is_open(self) -> bool:
        """Whether it lets everything through."""
        return replace(self, seed=None) == Filter()

    def without_scores(self) -> Self:
        """The same but for the limits of the score."""
        return replace(self, score_min=None, score_max=None)

    def parts(self) -> dict[str, object]:
        """The conditions that are set, by name."""
        empty = Filter()
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if value != getattr(empty, name)}


def check_sort(sort: str) -> None:
    """Raise the UsageError that names the nearest order, unless it is one."""
    if sort not in SORTS:
        raise _wrong("sort", sort, nearest(sort, SORTS))


def _wrong(name: str, value: object, allowed: str) -> UsageError:
    return UsageError(f"{name} is {value!r}", hint=allowed, reason="browse.filter")
