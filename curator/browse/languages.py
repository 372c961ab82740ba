"""Estimate the languages of texts from a random sample of them; nothing is stored.

The language of a short text is often ambiguous, and detectors are overconfident
(`curator.scorers.language`). So a text counts as English if the detector says so, as another
language only if it is certainly not English, and otherwise as undetermined. Costs 1 ms per text
and 40 MB; drawing the sample reads all rows, about a second per million.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl
from lingua import IsoCode639_1, Language, LanguageDetector, LanguageDetectorBuilder

from curator.browse.columns import VersionColumns
from curator.scorers.language import is_wrong_language
from curator.steps.workspace import Workspace
from curator.store import index

MAX_READ = 1_000
"""Texts sampled of each kind."""

# The text scorer's languages: the more candidates, the more short English texts are mistaken for
# another language.
_CODES = (
    "en fr de es pt it nl pl tr vi id sv "
    "ar be bg bn el fa gu he hi hy ja ka kk ko mk mn mr pa ru sr ta te th uk ur zh"
)
_SEED = 0
_LATIN_LETTER = re.compile(r"[A-Za-z\u00aa\u00ba\u00c0-\u024f\u1e00-\u1eff]")
_MIN_WORDS, _MIN_LETTERS = 4, 15
_MIN_ENGLISH, _MIN_OTHER = 0.5, 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Languages:
    """Languages of `num_read` texts: English name -> number of texts, most frequent first.

    The other `num_untold` texts are too short, or fit several languages.
    """

    counts: dict[str, int]
    num_read: int

    @property
    def num_untold(self) -> int:
        """Number of texts whose language cannot be determined."""
        return self.num_read - sum(self.counts.values())


def of_alt_texts(ws: Workspace) -> Languages:
    """Estimate the languages of a dataset's alt texts, whether a version uses them or not."""
    texts = (index.read(ws.store, ref.name, ["alt_text"])["alt_text"] for ref in ws.shards)
    return _languages(texts)


def of_version(columns: VersionColumns) -> Languages:
    """Estimate the languages of the texts that a version chose."""
    return _languages(columns.each(lambda _, entry: columns.decision(entry, ["text"])["text"]))


def _languages(shards: Iterable[pl.Series]) -> Languages:
    read = draw(shards, MAX_READ)
    found = Counter(filter(None, map(language, read)))
    return Languages(counts=dict(found.most_common()), num_read=len(read))


def draw(shards: Iterable[pl.Series], count: int) -> list[str]:
    """Draw `count` texts (all, if there are fewer) uniformly from those that are not null.

    The same shards give the same texts: each text draws a number, and the smallest are taken.
    """
    texts = pl.Series(dtype=pl.String)
    numbers = np.empty(0)
    for number, shard in enumerate(shards):
        there = shard.drop_nulls()
        drawn = np.random.default_rng([_SEED, number]).random(len(there))
        # A text that is not among the smallest of its shard is not among the smallest of all.
        least = np.argsort(drawn)[:count]
        texts = pl.concat([texts, there.gather(least)])
        numbers = np.concatenate([numbers, drawn[least]])
        least = np.argsort(numbers)[:count]
        texts, numbers = texts.gather(least), numbers[least]
    return texts.to_list()


def language(text: str) -> str | None:
    """Return the English name of the language of `text`; None if it cannot be determined."""
    num_latin = len(_LATIN_LETTER.findall(text))
    is_latin = 2 * num_latin >= sum(map(str.isalpha, text))
    if is_latin and (len(text.split()) < _MIN_WORDS or num_latin < _MIN_LETTERS):
        return None
    best = _detector().compute_language_confidence_values(text)[0]
    if best.language == Language.ENGLISH:
        is_told = best.value >= _MIN_ENGLISH
    else:
        is_told = best.value >= _MIN_OTHER and is_wrong_language(text, "en")
    return best.language.name.capitalize() if is_told else None


@functools.cache
def _detector() -> LanguageDetector:
    codes = [IsoCode639_1.from_str(code) for code in _CODES.split()]
    builder = LanguageDetectorBuilder.from_iso_codes_639_1(*codes)
    return builder.with_low_accuracy_mode().build()
