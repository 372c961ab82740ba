"""Split a text into pieces that fit a scorer's context. No model, no torch.

CLIP reads 77 tokens (SigLIP 64), and open_clip silently cuts the rest. Here nothing is cut: a text
that does not fit is scored sentence by sentence, a sentence that does not fit in windows of whole
words, a word that does not fit (or a language without spaces) in windows of characters.

BPE takes quadratic time in the length of a word (minutes for a "word" of 64 KiB), so words much
longer than the context are never tokenized whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from curator.core.text import split_sentences
from curator.scorers import Score, SentenceScore

_WORD = re.compile(r"\S+")
# A text with more characters per token of context than this cannot fit, so it is not tokenized;
# English has 4 to 5.
_MAX_CHARS_PER_TOKEN = 16


@dataclass(frozen=True, slots=True)
class TextPlan:
    """How to score one text.

    `whole`: the text fits the context and is scored in one piece. `pieces` are the `(start, end)`
    character spans to score separately: the sentences if there are several, or the windows if the
    text does not fit. `num_tokens` is the length of the text including special tokens.
    """

    whole: bool
    pieces: tuple[tuple[int, int], ...]
    num_tokens: int

    def texts(self, text: str) -> list[str]:
        """Return what to score of `text`: the whole if it fits, then its pieces."""
        apart = [text[start:end] for start, end in self.pieces]
        return [text, *apart] if self.whole else apart

    def score(self, values: Sequence[float], *, flags: tuple[str, ...] = ()) -> Score:
        """Return the score of a text from those of its `texts`, in their order."""
        apart = values[1:] if self.whole else values
        return Score(
            values[0] if self.whole else sum(apart) / len(apart),
            num_tokens=self.num_tokens,
            truncated=not self.whole,
            sentences=tuple(
                SentenceScore(start, end, value)
                for (start, end), value in zip(self.pieces, apart, strict=True)
            ),
            flags=flags,
        )


class Budget(NamedTuple):
    """The context of a model and its token counter.

    `count(piece)` is the exact number of tokens of a piece, including the `num_special` ones that
    every piece has (start, end); `limit` is the context. `count` is called twice for most pieces.
    """

    count: Callable[[str], int]
    limit: int
    num_special: int

    def fits(self, piece: str) -> bool:
        """Whether `piece` fits the context."""
        short = len(piece) <= self.limit * _MAX_CHARS_PER_TOKEN
        longest = max(map(len, piece.split()), default=0)
        return short and longest <= 4 * self.limit and self.count(piece) <= self.limit


def plan_text(text: str, budget: Budget) -> TextPlan:
    """Plan how to score `text`, which must not be empty."""
    sentences = split_sentences(text)
    if budget.fits(text):
        pieces = tuple(sentences) if len(sentences) > 1 else ()
        return TextPlan(True, pieces, budget.count(text))
    pieces = tuple(
        window for start, end in sentences for window in _windows(text, start, end, budget)
    )
    num_words = sum(budget.count(text[start:end]) - budget.num_special for start, end in pieces)
    return TextPlan(False, pieces, num_words + budget.num_special)


def _windows(text: str, start: int, end: int, budget: Budget) -> list[tuple[int, int]]:
    """Cut the sentence `text[start:end]` into spans that fit."""
    if budget.fits(text[start:end]):
        return [(start, end)]
    windows: list[tuple[int, int]] = []
    room = 0
    for begin, stop in (match.span() for match in _WORD.finditer(text, start, end)):
        short = stop - begin <= budget.limit
        need = budget.count(text[begin:stop]) - budget.num_special if short else budget.limit
        # `fits` is checked too, for tokenizers whose counts do not add up over words.
        if windows and need <= room and budget.fits(text[windows[-1][0] : stop]):
            windows[-1] = (windows[-1][0], stop)
            room -= need
        elif need <= budget.limit - budget.num_special:
            windows.append((begin, stop))
            room = budget.limit - budget.num_special - need
        else:
            windows += _character_windows(text, begin, stop, budget)
            room = 0
    return windows


def _character_windows(text: str, start: int, end: int, budget: Budget) -> list[tuple[int, int]]:
    """Cut the word `text[start:end]` into spans of at most `limit` characters that fit."""
    windows = []
    size = budget.limit
    while start < end:
        while size > 1 and budget.count(text[start : min(start + size, end)]) > budget.limit:
            size //= 2
        windows.append((start, min(start + size, end)))
        start += size
    return windows
