"""Conditions on the texts of one version, as a hashable value (a cache key)."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal, Self, get_args

from curator.core.errors import UsageError, nearest
from curator.store.versions import ACTIONS

Sort = Literal["score", "gain", "length", "shard", "random"]
SORTS: tuple[str, ...] = get_args(Sort)


@dataclass(frozen=True, kw_only=True)
class Filter:
    """A conjunction of conditions; one that is not set lets everything pass.

    Args:
        score_min, score_max: limits, both included, of the score that the version's policy chose
            by. If either is set, texts without a score do not pass.
        percentile: (low, high) limits of a text's percentile: the percentage of the scored texts
            of the same source that score below it.
        sources: alt_text, or names of generators.
        text: substring of the text, or of the alt text if no text was chosen; case is ignored.
        actions, because, shards: passes with any of these.
        flags: passes with any of these flags on the text or the image.
        changed_from: number of a version in which the sample has other texts; with `unchanged`, the
            same texts.
        key: prefix of the sample's key.
        seed: not a condition but the seed of the sort order `random`.

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
            raise _wrong("unchanged", True, "set it only together with changed_from")

    @property
    def is_open(self) -> bool:
        """Whether no condition is set, so that everything passes."""
        return replace(self, seed=None) == Filter()

    def without_scores(self) -> Self:
        """Return a copy without the score limits."""
        return replace(self, score_min=None, score_max=None)

    def parts(self) -> dict[str, object]:
        """Return the conditions that are set, by name."""
        empty = Filter()
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if value != getattr(empty, name)}


def check_sort(sort: str) -> None:
    """Raise a UsageError that names the nearest sort order if `sort` is unknown."""
    if sort not in SORTS:
        raise _wrong("sort", sort, nearest(sort, SORTS))


def _wrong(name: str, value: object, allowed: str) -> UsageError:
    return UsageError(f"{name} is {value!r}", hint=allowed, reason="browse.filter")
