"""Compare two versions: which texts changed, how scores shifted, and how the words drifted.

`diff` works shard by shard and keeps fixed-size state (`compare_stats`, `compare_words`) and a few
examples, so memory is one shard plus 12 bytes per score fact. Samples are matched by shard and key
(the n-th sample with a key matches the n-th). A sample may have several texts: they are compared
as a set; where one text is needed, the first (slot 0) is used.

Old and new texts are scored by the same scorer. A text made by sentence surgery has no score of its
own: if its version used that scorer, the mean score of its sentences is used.

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
from curator.core.names import MAYBE, Items, items_of, lost_items
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

    `scorer` is a maker of scores. Default: the one that the new version's policy used, else the
    old version's, else the only one in the store; without any, scores are left out. `advance` is
    called once for each shard of the two versions.

    Raises:
        UsageError: no such scorer. DamageError: a file was changed after it was written.
    """
    scores = VersionScores(store, old, new, scorer)
    before, after = _entries(old), _entries(new)
    found = _Comparison(num_examples)
    for name in sorted(before.keys() | after.keys()):
        pair = ShardPair(store, scores, name, old=before.get(name), new=after.get(name))
        # Seeded by the shard's name: the samples picked do not depend on the other shards.
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
            if before[name].digest != after[name].digest
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
    """Yield every sample in both versions whose texts changed, in order of shard and row.

    Raises:
        As `diff`.
    """
    scores = VersionScores(store, old, new, scorer)
    before, after = _entries(old), _entries(new)
    for name in sorted(before.keys() & after.keys()):
        pair = ShardPair(store, scores, name, old=before[name], new=after[name])
        yield from pair.examples(pair.changed)


def to_json(result: Diff) -> str:
    """Return the whole comparison as JSON."""
    return json.dumps(asdict(result), indent=1, sort_keys=True, ensure_ascii=False)


def gate(
    result: Diff,
    *,
    max_dropped_share: float | None = None,
    min_mean_score_shift: float | None = None,
    max_lost_names_share: float | None = None,
) -> list[str]:
    """Return one sentence for each limit that the new version breaks; empty means it passes.

    `max_dropped_share` is a share of the new version's samples; `min_mean_score_shift` applies to
    the mean score of all new texts minus that of all old ones; `max_lost_names_share` is a share
    of the names and numbers in the alt texts.
    """
    broken = []
    dropped = result.new.counts["dropped"] / max(result.new.num_samples, 1)
    if max_dropped_share is not None and dropped > max_dropped_share:
        broken.append(
            f"{dropped:.1%} of the samples are dropped; the limit is {max_dropped_share:.1%}"
        )
    if min_mean_score_shift is not None:
        shift = mean_shift(result)
        if shift is None:
            broken.append("the mean score cannot be compared: a version has no scores")
        elif shift < min_mean_score_shift:
            broken.append(
                f"the mean score changed by {shift:+.4f}; "
                f"the minimum is {min_mean_score_shift:+.4f}"
            )
    share = result.new_names.share
    if max_lost_names_share is not None and share > max_lost_names_share:
        broken.append(
            f"{share:.1%} of the names and numbers are lost; "
            f"the limit is {max_lost_names_share:.1%}"
        )
    return broken


def mean_shift(result: Diff) -> float | None:
    """Return the mean score of all new texts minus that of all old ones; None without scores."""
    scores = result.scores
    if scores is None or scores.old.mean is None or scores.new.mean is None:
        return None
    return scores.new.mean - scores.old.mean


class _VersionCounter:
    """Counters of a single version."""

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
        """Count the names and numbers of one alt text, and the lost ones among them."""
        self.names["num_names"] += len(items.names)
        self.names["num_numbers"] += len(items.numbers)
        self.names["lost_names"] += len(lost.names)
        self.names["lost_numbers"] += len(lost.numbers)

    def name_count(self) -> NameCount:
        kinds = ("num_names", "num_numbers", "lost_names", "lost_numbers")
        return NameCount(**{kind: self.names[kind] for kind in kinds})


class _Examples(Generic[E]):
    """Keeps the examples with the smallest rank; ties are broken by shard and row."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._kept: list[tuple[float, str, int, E]] = []

    def offer(self, rank: float, example: E) -> None:
        """Keep this example if its rank is small enough."""
        self._kept.append((rank, example.shard, example.row, example))
        self._kept.sort(key=lambda entry: entry[:3])
        del self._kept[self.size :]

    def result(self) -> tuple[E, ...]:
        """Return the examples, smallest rank first."""
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
        return Items((), ())  # the alt text was kept, as for most samples: nothing is lost
    return lost_items(items, [text.text for text in texts])


def _entries(version: Version) -> dict[str, ShardEntry]:
    return {entry.name: entry for entry in version.shards}
