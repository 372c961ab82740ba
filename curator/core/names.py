"""Find the names and numbers of an alt text, and which of them other texts have lost.

A name is a run of capitalised words that does not open a sentence; where more than 70 % of such
words are capitalised (a headline) nothing is taken for a name. A number is written in digits or as
a number word from two on ("one" is mostly a pronoun); "3" and "three" are equal. File names and
links are ignored. This is a heuristic for English-like scripts: it is made for shares over many
texts, and is unreliable for a single one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from curator.core.text import split_sentences

_TOKEN = re.compile(r"\S+")
_NO_PROSE = re.compile(r"[_/\\@]|\.(?:jpe?g|png|gif|webp|bmp|tiff?|html?|php|com|org|net)\b", re.I)
_WORD = re.compile(r"[^\W_]+(?:['\u2019.,:-][^\W_]+)*")
_FIGURE = re.compile(r"\d[\d.,:]*")
_POSSESSIVE = re.compile(r"['\u2019]s$")
_MAX_HEADLINE_SHARE = 0.7
_MIN_HEADLINE_WORDS = 3
_OPENING_CHARS = 3
"""A sentence may open with a quote or a bracket or both before its first word."""

_UNITS = (
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
)
_TENS = "thirty forty fifty sixty seventy eighty ninety hundred"
NUMBER_WORDS = {
    **{word: str(number) for number, word in enumerate(_UNITS.split(), 2)},
    **{word: str(number * 10) for number, word in enumerate(_TENS.split(), 3)},
    "dozen": "12",
    "thousand": "1000",
    "million": "1000000",
}

# Matches every text with a name or a number, and few others: a cheap test before the exact one.
MAYBE = r"[^\p{L}\p{N}]\p{Lu}|(?:^|[^\p{L}\p{N}])\p{N}|(?i)\b(?:" + "|".join(NUMBER_WORDS) + r")\b"


class Items(NamedTuple):
    """The items of an alt text: names as written, numbers in digits; in order, without repeats."""

    names: tuple[str, ...]
    numbers: tuple[str, ...]


NOTHING = Items((), ())


def items_of(text: str) -> Items:
    """Return the names and numbers in `text`."""
    words = _words(text)
    # A word that starts within the first three characters opens the first sentence.
    may_name = any(word[0].isupper() for start, word in words if start >= _OPENING_CHARS)
    numbers = _numbers(word for _, word in words)
    names = _names(text, words) if may_name else []
    return Items(tuple(dict.fromkeys(names)), tuple(dict.fromkeys(numbers)))


def _names(text: str, words: Iterable[tuple[int, str]]) -> list[str]:
    spans = split_sentences(text)
    opening = {start + extra for start, _ in spans for extra in range(_OPENING_CHARS)}
    inside = {start for start, _ in words if start not in opening}
    letters = [word for start, word in words if start in inside and word[0].isalpha()]
    num_capitals = sum(word[0].isupper() for word in letters)
    headline = num_capitals > _MAX_HEADLINE_SHARE * max(len(letters), _MIN_HEADLINE_WORDS)
    names: list[str] = []
    end_of_last = -2
    for start, word in words:
        is_name = word[0].isupper() and len(word) > 1 and start in inside and not headline
        if not is_name or word.lower() in NUMBER_WORDS:
            end_of_last = -2
            continue
        if start == end_of_last + 1:
            names[-1] += f" {word}"
        else:
            names.append(_POSSESSIVE.sub("", word))
        end_of_last = start + len(word)
    return names


def lost_items(items: Items, texts: Iterable[str]) -> Items:
    """Return the items that occur in none of `texts`, ignoring case."""
    if not items.names and not items.numbers:
        return items
    said: set[str] = set()
    for text in texts:
        words = [word for _, word in _words(text)]
        said.update(_numbers(words))
        for word in words:
            whole = word.casefold()
            said.update(_POSSESSIVE.sub("", part) for part in (whole, *whole.split("-")))
    return Items(
        tuple(
            name
            for name in items.names
            if not all(_POSSESSIVE.sub("", part) in said for part in name.casefold().split())
        ),
        tuple(number for number in items.numbers if number not in said),
    )


def _words(text: str) -> list[tuple[int, str]]:
    """Return (start, word) of all words except file names and links."""
    if not _NO_PROSE.search(text):  # most texts; no word spans white space
        return [(word.start(), word[0]) for word in _WORD.finditer(text)]
    return [
        (token.start() + word.start(), word[0])
        for token in _TOKEN.finditer(text)
        if not _NO_PROSE.search(token[0])
        for word in _WORD.finditer(token[0])
    ]


def _numbers(words: Iterable[str]) -> list[str]:
    """Return the numbers in `words`; "two-to-three" has several."""
    numbers = []
    for word in words:
        low = word.lower()
        for part in low.split("-") if "-" in low else (low,):
            if part in NUMBER_WORDS:
                numbers.append(NUMBER_WORDS[part])
            elif part[:1].isdigit() and _FIGURE.fullmatch(part):
                numbers.append(part.replace(",", ""))
    return numbers
