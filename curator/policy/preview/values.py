"""What a preview consists of: plain values, ready to be shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Bound = Literal["min", "max", "flags"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much is looked at: `max_samples` in whole shards, at least one."""

    max_samples: int = 50_000
    seed: int = 0
    num_examples: int = 6

    def __post_init__(self) -> None:
        for name in ("max_samples", "num_examples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A text beside a limit; `value` is what the rule looks at, None for flags."""

    shard: str
    row: int
    key: str
    source: str
    text: str
    value: float | None
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One limit, and the texts on both sides of it. Counts are in texts.

    `source` is a maker where the limit is a percentile of that maker's texts, else that of the
    rule; `limit` is None for flags, or where no text of the source has a value. Outside are the
    texts that this rule is the first to refuse, `num_missing` of them for want of a value. Inside
    are those that pass every rule. Examples: the nearest to the limit; for flags at random.
    """

    rule: str
    field: str
    source: str
    bound: Bound
    limit: float | None
    percentile: float | None
    num_inside: int
    num_outside: int
    num_missing: int
    inside: tuple[Candidate, ...]
    outside: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """One sample whose texts would change; texts are the first of a sample, None for none."""

    shard: str
    row: int
    key: str
    text_before: str | None
    text_after: str | None
    score_before: float | None
    score_after: float | None
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Samples that go the same way. `before` is None where the version lacks the sample."""

    before: str | None
    after: str
    is_changed: bool
    num_samples: int
    examples: tuple[Moved, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Of the chosen texts. `mean_score` is None where none has one, or another scorer's."""

    num_texts: int
    mean_words: float | None
    mean_score: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a policy would do. `counts` by action, in samples, of the shards looked at.

    `because` has (action, reason, samples) of what is not chosen by the policy's pick;
    `thresholds` as in a version; `num_cut` counts texts that surgery shortens.
    """

    shards: tuple[str, ...]
    num_shards: int
    num_samples: int
    num_all_samples: int
    seed: int
    counts: dict[str, int]
    counts_before: dict[str, int]
    totals: Totals
    totals_before: Totals
    moves: tuple[Move, ...]
    lines: tuple[Line, ...]
    because: tuple[tuple[str, str, int], ...]
    thresholds: dict[str, float]
    num_unscored: int
    num_cut: int

    @property
    def is_whole(self) -> bool:
        """Whether all shards were looked at, so that counts are exact."""
        return len(self.shards) == self.num_shards

    @property
    def num_changed(self) -> int:
        """Samples whose texts or action would differ."""
        return sum(move.num_samples for move in self.moves if move.is_changed)

    def estimate(self, count: int) -> int:
        """A count of samples, for the whole dataset."""
        return round(count * self.num_all_samples / self.num_samples) if self.num_samples else 0
