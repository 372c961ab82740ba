"""Draw the samples for a blind rating of two versions, and the left-right order of their texts.

The queue is a random sample of the samples whose first text differs. Its order depends only on the
image's sha256 and the seed: all raters see the same images in the same order, so their ratings
overlap, a longer queue begins with the shorter one, and a recommit that changes few texts changes
few questions. An image with the same two texts is asked once, however often it occurs.

Which text is on the left is drawn from the seed, the item and the rater, so that a rater's bias
towards one side favours neither version.

Cost: reads both decisions of every shard whose decision changed, about 6 s for a million samples.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import polars as pl

from curator.compare.pairs import ShardPair
from curator.compare.values import REWORDED, Change
from curator.core.hashing import digest
from curator.ratings.log import Matchup, ShownPair
from curator.store.keyindex import Keys, hex64
from curator.store.store import Store
from curator.store.versions import Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One sample to rate; `row` is its row in the newer version."""

    shard: str
    row: int
    key: str | None
    matchup: Matchup

    def shown(self, who: str, seed: int) -> ShownPair:
        """Return the texts in this rater's left-right order, which is the same on every call."""
        texts = (self.matchup.old, self.matchup.new)
        drawn = digest([seed, who, self.matchup.item])
        left, right = texts if int(drawn, 16) % 2 else texts[::-1]
        return ShownPair(
            image_sha256=self.matchup.image_sha256,
            left=left,
            right=right,
            shard=self.shard,
            key=self.key,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """Questions in the order they are asked, drawn from `num_samples` samples that differ."""

    questions: tuple[Question, ...]
    num_samples: int


def queue(store: Store, old: Version, new: Version, *, seed: int, size: int) -> Queue:
    """Draw at most `size` questions.

    Raises:
        DamageError: a file was changed after it was written.
    """
    before = {entry.name: entry for entry in old.shards}
    drawn: dict[str, tuple[int, Question]] = {}
    num_samples = 0
    for entry in new.shards:
        if entry.name not in before or before[entry.name].file == entry.file:
            continue
        pair = ShardPair(store, None, entry.name, old=before[entry.name], new=entry)
        differ = pair.samples.filter(
            pl.col("kind") == REWORDED,
            pl.col("text_sha256_old") != pl.col("text_sha256_new"),
            pl.col("image_sha256_old") == pl.col("image_sha256_new"),
        )
        num_samples += len(differ)
        ranked = differ.with_columns(rank=pl.Series(_ranks(differ["image_sha256_new"], seed)))
        # Stable under a recommit, also among several samples of one image.
        first = ranked.sort("rank", "text_sha256_new", "text_sha256_old", "row_new").unique(
            ["image_sha256_new", "text_sha256_new", "text_sha256_old"],
            keep="first",
            maintain_order=True,
        )
        chosen = first.head(size)
        for rank, change in zip(chosen["rank"], pair.examples(chosen), strict=True):
            question = _question(change)
            drawn.setdefault(question.matchup.item, (rank, question))
        drawn = dict(sorted(drawn.items(), key=lambda entry: (entry[1][0], entry[0]))[:size])
    questions = tuple(question for _, question in drawn.values())
    return Queue(questions=questions, num_samples=num_samples)


def _question(change: Change) -> Question:
    assert change.image_sha256 is not None  # it had a text in both versions
    return Question(
        shard=change.shard,
        row=change.row,
        key=change.key,
        matchup=Matchup(
            image_sha256=change.image_sha256, old=change.old[0].text, new=change.new[0].text
        ),
    )


def _ranks(image_sha256: pl.Series, seed: int) -> Keys:
    """Hash each image's digest with the seed to a random rank (splitmix64's last step)."""
    start = hashlib.sha256(str(seed).encode()).digest()
    mixed: Keys = hex64(image_sha256) ^ np.frombuffer(start, "<u8", 1)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed
