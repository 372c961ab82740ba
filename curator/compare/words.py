"""Measure how the vocabulary changed between two versions.

Fed shard by shard, with a state of fixed size: distinct words and word pairs are counted exactly up
to 65,536, then estimated from the smallest 65,536 hashes (k minimum values; Bar-Yossef et al.
2002), with a standard error of 0.4 %; word counts are kept for at most two million words, beyond
that the rarer half is pooled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

_MAX_SKETCH = 1 << 16
_MAX_COUNTED = 2_000_000
_WORD = r"[\p{L}\p{N}]+(?:['\u2019-][\p{L}\p{N}]+)*"
_POOLED = ""  # no word is empty
_NUM_OPENERS = 8
_NUM_WORDS = 16
_MIN_COUNT = 3
_TIMES_RARER = 10

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """The vocabulary of one version, lower-cased. `distinct_2` is distinct / all word pairs."""

    num_tokens: int
    num_distinct: int
    type_token: float
    distinct_2: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WordCount:
    """A word or opener with its count in both versions."""

    word: str
    old: int
    new: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """How the words changed.

    `jsd_bits` is the Jensen-Shannon divergence of the word frequencies (0 equal, 1 nothing in
    common). `gained` are frequent new words that were at least ten times rarer before, `lost` the
    reverse, most frequent first. `openers` count the first two words of a text.
    """

    old: Words
    new: Words
    jsd_bits: float
    gained: tuple[WordCount, ...]
    lost: tuple[WordCount, ...]
    openers: tuple[WordCount, ...]


@dataclass(slots=True)
class Sketch:
    """Counts distinct hashes; exact while there are fewer than 65,536."""

    _smallest: Array = field(default_factory=lambda: np.empty(0, np.uint64))

    def add(self, hashes: pl.Series) -> None:
        """Add 64-bit hashes."""
        merged = np.concatenate([self._smallest, hashes.to_numpy()])
        self._smallest = np.unique(merged)[:_MAX_SKETCH]

    def count(self) -> int:
        """Return the number of distinct hashes, estimated from 65,536 on."""
        if len(self._smallest) < _MAX_SKETCH:
            return len(self._smallest)
        return round((_MAX_SKETCH - 1) / (float(self._smallest[-1]) / 2.0**64))


class _SideWords:
    """Counts the words of one version."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.openers: Counter[str] = Counter()
        self.num_tokens = self.num_pairs = 0
        self._words, self._pairs = Sketch(), Sketch()

    def add(self, words: pl.DataFrame, pairs: pl.DataFrame, openers: pl.DataFrame) -> None:
        """Count (word, count), (hash, count), (opener, count)."""
        self.num_tokens += int(words["count"].sum())
        self.num_pairs += int(pairs["count"].sum())
        self._words.add(words["word"].hash(seed=0))
        self._pairs.add(pairs["pair"])
        _count_up(self.counts, words)
        _count_up(self.openers, openers)

    def result(self) -> Words:
        return Words(
            num_tokens=self.num_tokens,
            num_distinct=self._words.count(),
            type_token=self._words.count() / max(self.num_tokens, 1),
            distinct_2=self._pairs.count() / max(self.num_pairs, 1),
        )


class WordCounter:
    """Adds up the words of two versions."""

    def __init__(self) -> None:
        self._old, self._new = _SideWords(), _SideWords()

    def add(self, old: pl.Series, new: pl.Series) -> None:
        """Count texts. Texts that both versions share are split into words once."""
        names = ("num_old", "num_new")
        counted = pl.concat(
            [
                pl.DataFrame({"text": texts}).group_by("text").agg(pl.len().alias(name))
                for texts, name in zip((old, new), names, strict=True)
            ],
            how="diagonal",
        )
        counted = counted.group_by("text").agg(pl.col(name).sum() for name in names)
        listed = counted.with_row_index("number").with_columns(
            words=pl.col("text").str.to_lowercase().str.extract_all(_WORD)
        )
        tokens = listed.select("number", *names, word="words").explode("word").drop_nulls("word")
        same_text = pl.col("number") == pl.col("number").shift(-1)
        pairs = tokens.filter(same_text.fill_null(False)).select(
            *names, pair=pl.Series(_pair_hashes(tokens))
        )
        openers = listed.filter(pl.col("words").list.len() > 1).select(
            *names, word=pl.col("words").list.head(2).list.join(" ")
        )
        for side, name in zip((self._old, self._new), names, strict=True):
            side.add(
                _totals(tokens, "word", name),
                _totals(pairs, "pair", name),
                _totals(openers, "word", name),
            )

    def result(self) -> Vocabulary:
        """Return the change of the vocabulary over all texts added."""
        old, new = self._old, self._new
        openers = sorted(
            set(_top(old.openers)) | set(_top(new.openers)),
            key=lambda word: (-max(old.openers[word], new.openers[word]), word),
        )
        return Vocabulary(
            old=old.result(),
            new=new.result(),
            jsd_bits=_divergence(old.counts, new.counts),
            gained=tuple(
                WordCount(word=word, old=old.counts[word], new=new.counts[word])
                for word in _moved(new.counts, old.counts)
            ),
            lost=tuple(
                WordCount(word=word, old=old.counts[word], new=new.counts[word])
                for word in _moved(old.counts, new.counts)
            ),
            openers=tuple(
                WordCount(word=word, old=old.openers[word], new=new.openers[word])
                for word in openers[:_NUM_OPENERS]
            ),
        )


def _pair_hashes(tokens: pl.DataFrame) -> pl.Series:
    """Hash each word with the next word of the same text, in the order of `tokens`."""
    words, numbers = tokens["word"], tokens["number"]
    both = pl.select(pl.concat_str(words, words.shift(-1), separator=" ")).to_series()
    return both.filter((numbers == numbers.shift(-1)).fill_null(False)).hash(seed=0)


def _totals(frame: pl.DataFrame, key: str, count: str) -> pl.DataFrame:
    present = frame.filter(pl.col(count) > 0)
    return present.group_by(key).agg(pl.col(count).sum().alias("count"))


def _count_up(counter: Counter[str], found: pl.DataFrame) -> None:
    counter.update(dict(found.iter_rows()))
    if len(counter) > _MAX_COUNTED:
        ranked = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
        pooled = sum(count for _, count in ranked[_MAX_COUNTED // 2 :])
        counter.clear()
        counter.update(dict(ranked[: _MAX_COUNTED // 2]))
        counter[_POOLED] += pooled


def _top(counter: Mapping[str, int]) -> Iterable[str]:
    ranked = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
    return [word for word, _ in ranked[: _NUM_OPENERS + 1] if word != _POOLED]


def _moved(here: Counter[str], there: Counter[str]) -> list[str]:
    """Return the words that are frequent here and at least ten times rarer there."""
    ratio = max(there.total(), 1) / max(here.total(), 1)
    frequent = [
        (count, word)
        for word, count in here.items()
        if count >= _MIN_COUNT
        and word != _POOLED
        and there.get(word, 0) * _TIMES_RARER <= count * ratio
    ]
    return [word for _, word in sorted(frequent, key=lambda pair: (-pair[0], pair[1]))][:_NUM_WORDS]


def _divergence(old: Counter[str], new: Counter[str]) -> float:
    """Return the Jensen-Shannon divergence in bits (Lin 1991); 0 when either has no words."""
    if not old.total() or not new.total():
        return 0.0
    words = sorted(old.keys() | new.keys())
    p = np.array([old.get(word, 0) for word in words]) / old.total()
    q = np.array([new.get(word, 0) for word in words]) / new.total()
    middle = (p + q) / 2
    halves = [
        float((part[part > 0] * np.log2(part[part > 0] / middle[part > 0])).sum())
        for part in (p, q)
    ]
    return min(max(sum(halves) / 2, 0.0), 1.0)
