"""The values of a comparison of two versions: plain data that can be written as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from curator.compare.stats import Distribution, LengthStats, Paired
from curator.compare.words import Vocabulary

REWORDED, GAINED, LOST = "reworded", "gained", "lost"
"""How a sample's texts changed: other texts, texts where it had none, or no texts any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two versions. `counts` is samples by action, `sources` is texts by source."""

    number: int
    name: str
    id: str
    created: str
    tool_version: str
    policy: Mapping[str, Any]
    thresholds: Mapping[str, float]
    makers: Mapping[str, Mapping[str, Any]]
    num_shards: int
    num_samples: int
    num_texts: int
    counts: Mapping[str, int]
    sources: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedText:
    """One chosen text. `score` is from the comparison's scorer, None if it did not score it."""

    text: str
    source: str
    score: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One sample whose texts changed; `kind` is reworded, gained or lost.

    `row` is its row in the newer index of the shard. `gain` is the new minus the old score of the
    first text. `because` is the new version's reason.
    """

    shard: str
    row: int
    key: str
    image_sha256: str | None
    kind: str
    old_action: str
    new_action: str
    because: str
    alt_text: str | None
    old: tuple[ComparedText, ...]
    new: tuple[ComparedText, ...]
    gain: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LostItems:
    """A sample whose chosen texts have lost some `items` (names, numbers) of its alt text."""

    shard: str
    row: int
    key: str
    alt_text: str
    items: tuple[str, ...]
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NameCount:
    """Counts of the names and numbers in the alt texts of samples that have a text, and of those
    that occur in none of the chosen texts."""

    num_names: int
    num_numbers: int
    lost_names: int
    lost_numbers: int

    @property
    def share(self) -> float:
        """Share that was lost; 0 without any names and numbers."""
        return (self.lost_names + self.lost_numbers) / max(self.num_names + self.num_numbers, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreShift:
    """Scores under one scorer: of all texts of each version, and paired over changed samples.

    `is_chooser` means that the new version's policy chose by this scorer, so that a higher score
    under it is not independent evidence.
    """

    scorer: str
    is_chooser: bool
    recipe: Mapping[str, Any]
    old: Distribution
    new: Distribution
    paired: Paired


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """The result of comparing two versions; plain data.

    `transitions[old action][new action]` counts samples in both versions; `only_old` and `only_new`
    count samples in one version only. `shards_changed` are shards whose bytes changed. `gains` and
    `losses` are the samples with the largest differences in score, best and worst first; `picked`
    are drawn at random from all that changed, the same ones for the same seed.
    """

    old: Side
    new: Side
    shards_added: tuple[str, ...]
    shards_removed: tuple[str, ...]
    shards_changed: tuple[str, ...]
    only_old: int
    only_new: int
    num_unchanged: int
    num_changed: Mapping[str, int]
    transitions: Mapping[str, Mapping[str, int]]
    scores: ScoreShift | None
    old_lengths: LengthStats
    new_lengths: LengthStats
    vocabulary: Vocabulary
    old_names: NameCount
    new_names: NameCount
    lost: tuple[LostItems, ...]
    gains: tuple[Change, ...]
    losses: tuple[Change, ...]
    picked: tuple[Change, ...]

    @property
    def num_common(self) -> int:
        """Samples in both versions."""
        return self.num_unchanged + sum(self.num_changed.values())
