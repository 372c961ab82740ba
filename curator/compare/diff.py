"""Two versions side by side: what changed, for better or worse, and in which direction texts drift.

`diff` works shard by shard and keeps fixed-size state (`compare_stats`, `compare_words`) and a few
examples, so memory is that of one shard plus 12 bytes a score fact. Samples are matched by
shard and key (the n-th of a key with the n-th). A sample may have several texts: they are compared
as sets; the first one (slot 0) stands for it where one text is needed.

Old and new texts are judged by one scorer. A text made by sentence surgery was never scored
itself: where its version used that scorer, the mean over its sentences counts.

`render_text` is in `curator.compare.text`, the page in `curator.compare.html`.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Generic, TypeVar

import numpy as np
import polars as pl

from curator.compare.names import MAYBE, Items, items_of, lost_items
from curator.compare.pairs import ShardPair, VersionScores, texts_of
from curator.compare.stats import LengthCounter, PairCounter, ScoreCounter
from curator.compare.values import (
    GAINED,
    LOST,
    REWORDED,
    Change,
    ComparedText,
    Diff,
    LostItems,
    NameCount,
    ScoreShift,
    Side,
)
from curator.compare.words import WordCounter
from curator.core import clock
from curator.store.store import Store
from curator.store.versions import ACTIONS, ShardEntry, Version

E = TypeVar("E", Change, LostItems)


def diff(
    store: Store,
    old: Version,
    new: Version,
    *,
    scorer: str | None = None,
    num_examples: int = 12,
    seed: int = 0,
    advance: Callable[[int], object] = lambda _number: None,
) -> Diff:
    """Compare two versions of one store.

    `scorer` is a maker of scores; by default the one that the new version's policy used, or the
    old one's, or the only one there is. Without any, the scores are left out. `advance` is called
    for each shard of the two.

    Raises:
        UsageError: no such scorer. DamageError: a file was changed after it was written.
    """
    scores = VersionScores(store, old, new, scorer)
    before, after = _entries(old), _entries(new)
    found = _Comparison(num_examples)
    for name in sorted(before.keys() | after.keys()):
        pair = ShardPair(store, scores, name, old=before.get(name), new=after.get(name))
        # Seeded by the shard's name: the same samples are picked whatever other shards there are.
        found.add(pair, np.random.default_rng([seed, zlib.crc32(name.encode())]))
        advance(1)
    return Diff(
        old=found.old.side(old),
        new=found.new.side(new),
        shards_added=tuple(sorted(after.keys() - before.keys())),
        shards_removed=tuple(sorted(before.keys() - after.keys())),
        shards_changed=tuple(
            name
            for name in sorted(before.keys() & after.keys())
            if before[name].sha256 != after[name].sha256
        ),
        only_old=found.only_old,
        only_new=found.only_new,
        num_unchanged=found.num_unchanged,
        num_changed={kind: found.kinds[kind] for kind in (REWORDED, GAINED, LOST)},
        transitions={
            first: {
                second: found.transitions[first, second]
                for second in ACTIONS
                if found.transitions[first, second]
            }
            for first in ACTIONS
        },
        scores=_shift(found, scores, new),
        old_lengths=found.old.lengths.result(),
        new_lengths=found.new.lengths.result(),
        vocabulary=found.words.result(),
        old_names=found.old.name_count(),
        new_names=found.new.name_count(),
        lost=found.lost.result(),
        gains=found.gains.result(),
        losses=found.losses.result(),
        picked=found.picked.result(),
    )


def _shift(found: _Comparison, scores: VersionScores, new: Version) -> ScoreShift | None:
    if scores.scorer is None:
        return None
    return ScoreShift(
        scorer=scores.scorer,
        is_chooser=new.policy.get("scorer_facts") == scores.scorer,
        recipe=scores.recipe,
        old=found.old.scores.result(),
        new=found.new.scores.result(),
        paired=found.paired.result(),
    )


def changes(
    store: Store, old: Version, new: Version, *, scorer: str | None = None
) -> Iterator[Change]:
    """Every sample in both versions whose texts changed, in order of shard and row.

    Raises:
        as `diff`.
    """
    scores = VersionScores(store, old, new, scorer)
    before, after = _entries(old), _entries(new)
    for name in sorted(before.keys() & after.keys()):
        pair = ShardPair(store, scores, name, old=before[name], new=after[name])
        yield from pair.examples(pair.changed)


def to_json(result: Diff) -> str:
    """The whole comparison for machines."""
    return json.dumps(asdict(result), indent=1, sort_keys=True, ensure_ascii=False)


def gate(
    result: Diff,
    *,
    max_dropped_share: float | None = None,
    min_mean_score_shift: float | None = None,
    max_lost_names_share: float | None = None,
) -> list[str]:
    """The limits that the new version breaks, a sentence each; none means it may pass.

    `max_dropped_share` is of the new version's samples; `min_mean_score_shift` is the mean score
    of all its texts minus that of the old ones; `max_lost_names_share` is of the names and
    numbers in the alt texts.
    """
    broken = []
    dropped = result.new.counts["dropped"] / max(result.new.num_samples, 1)
    if max_dropped_share is not None and dropped > max_dropped_share:
        broken.append(f"{dropped:.1%} of the samples are dropped, at most {max_dropped_share:.1%}")
    if min_mean_score_shift is not None:
        shift = mean_shift(result)
        if shift is None:
            broken.append("there are no scores on both sides to take a shift from")
        elif shift < min_mean_score_shift:
            broken.append(
                f"the mean score moved by {shift:+.4f}, at least {min_mean_score_shift:+.4f}"
            )
    share = result.new_names.share
    if max_lost_names_share is not None and share > max_lost_names_share:
        broken.append(
            f"{share:.1%} of the names and numbers are lost, at most {max_lost_names_share:.1%}"
        )
    return broken


def mean_shift(result: Diff) -> float | None:
    """Mean score of all new texts minus that of all old ones; None without scores."""
    scores = result.scores
    if scores is None or scores.old.mean is None or scores.new.mean is None:
        return None
    return scores.new.mean - scores.old.mean


class _VersionCounter:
    """What is counted of one version alone."""

    def __init__(self) -> None:
        self.sources: Counter[str] = Counter()
        self.scores = ScoreCounter()
        self.lengths = LengthCounter()
        self.names: Counter[str] = Counter()

    def add(self, texts: pl.DataFrame) -> None:
        """Count chosen texts."""
        self.sources.update(dict(texts["source"].value_counts().iter_rows()))
        self.scores.add(texts["score"])
        self.lengths.add(texts["text"])

    def side(self, version: Version) -> Side:
        return Side(
            number=version.number,
            name=version.name,
            id=version.id,
            created=clock.iso(version.created),
            tool_version=version.tool_version,
            policy=version.policy,
            thresholds=version.thresholds,
            makers=version.makers,
            num_shards=len(version.shards),
            num_samples=version.num_samples,
            num_texts=self.sources.total(),
            counts=version.counts,
            sources=dict(sorted(self.sources.items())),
        )

    def count_names(self, items: Items, lost: Items) -> None:
        """Count what one alt text says, and what is lost of it."""
        self.names["num_names"] += len(items.names)
        self.names["num_numbers"] += len(items.numbers)
        self.names["lost_names"] += len(lost.names)
        self.names["lost_numbers"] += len(lost.numbers)

    def name_count(self) -> NameCount:
        kinds = ("num_names", "num_numbers", "lost_names", "lost_numbers")
        return NameCount(**{kind: self.names[kind] for kind in kinds})


class _Examples(Generic[E]):
    """The few of many that are kept: those with the smallest rank. Ties go to shard and row."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._kept: list[tuple[float, str, int, E]] = []

    def offer(self, rank: float, example: E) -> None:
        """Consider one more."""
        self._kept.append((rank, example.shard, example.row, example))
        self._kept.sort(key=lambda entry: entry[:3])
        del self._kept[self.size :]

    def result(self) -> tuple[E, ...]:
        """Smallest rank first."""
        return tuple(entry[3] for entry in self._kept)


class _Comparison:
    """The counters and examples of one `diff`."""

    def __init__(self, num_examples: int) -> None:
        self.old, self.new = _VersionCounter(), _VersionCounter()
        self.words = WordCounter()
        self.paired = PairCounter()
        self.transitions: Counter[tuple[str, str]] = Counter()
        self.kinds: Counter[str] = Counter()
        self.num_unchanged = self.only_old = self.only_new = 0
        self.gains: _Examples[Change] = _Examples(num_examples)
        self.losses: _Examples[Change] = _Examples(num_examples)
        self.picked: _Examples[Change] = _Examples(num_examples)
        self.lost: _Examples[LostItems] = _Examples(num_examples)

    def add(self, pair: ShardPair, rng: np.random.Generator) -> None:
        """Count one shard."""
        old, new = (frame.drop_nulls("text") for frame in (pair.old, pair.new))
        self.old.add(old)
        self.new.add(new)
        self.words.add(old["text"], new["text"])
        common = pair.samples.drop_nulls(["row_old", "row_new"])
        for before, after, count in (
            common.group_by("action_old", "action_new").agg(pl.len()).iter_rows()
        ):
            self.transitions[before, after] += count
        self.kinds.update(dict(pair.changed["kind"].value_counts().iter_rows()))
        self.num_unchanged += len(common) - len(pair.changed)
        self.only_old += int(pair.samples["row_new"].null_count())
        self.only_new += int(pair.samples["row_old"].null_count())
        self.paired.add(pair.changed["gain"])
        self._pick(pair, rng)
        self._count_names(pair, rng)

    def _pick(self, pair: ShardPair, rng: np.random.Generator) -> None:
        gain = pl.col("gain")
        chance = pl.Series("rank", rng.random(len(pair.changed)))
        for examples, ranked in (
            (self.gains, pair.changed.filter(gain > 0).with_columns(rank=-gain)),
            (self.losses, pair.changed.filter(gain < 0).with_columns(rank=gain)),
            (self.picked, pair.changed.with_columns(chance)),
        ):
            best = ranked.sort("rank", "row_new").head(examples.size)
            for rank, change in zip(best["rank"], pair.examples(best), strict=True):
                examples.offer(rank, change)

    def _count_names(self, pair: ShardPair, rng: np.random.Generator) -> None:
        some = pair.samples.filter(pl.col("alt_text").str.contains(MAYBE))
        old, new = texts_of(pair.old, some["row_old"]), texts_of(pair.new, some["row_new"])
        columns = some.select("key", "row_old", "row_new", "alt_text")
        for key, row_old, row_new, alt_text in columns.iter_rows():
            items = items_of(alt_text)
            if row_old in old:
                self.old.count_names(items, _lost(items, alt_text, old[row_old]))
            if row_new not in new:
                continue
            lost = _lost(items, alt_text, new[row_new])
            self.new.count_names(items, lost)
            if lost.names or lost.numbers:
                example = LostItems(
                    shard=pair.shard,
                    row=row_new,
                    key=key,
                    alt_text=alt_text,
                    items=(*lost.names, *lost.numbers),
                    new=new[row_new][0].text,
                )
                self.lost.offer(rng.random(), example)


def _lost(items: Items, alt_text: str, texts: Sequence[ComparedText]) -> Items:
    if any(text.text == alt_text for text in texts):
        return Items((), ())  # nothing can be, and most samples of most versions keep their text
    return lost_items(items, [text.text for text in texts])


def _entries(version: Version) -> dict[str, ShardEntry]:
    return {entry.name: entry for entry in version.shards}
