"""Two texts held against each other, word by word: which words only one of them has."""

from __future__ import annotations

import string
from typing import NamedTuple

from rapidfuzz.distance import Indel

from curator.compare.values import Change

# Below this share of common words, marking single words says less than the two texts do.
MIN_SIMILARITY = 0.3


class Part(NamedTuple):
    """Some words of a text; `changed` if the other text does not have them here."""

    words: str
    changed: bool


def text_parts(change: Change) -> tuple[list[list[Part]], list[list[Part]]]:
    """The old and the new texts of a sample, cut where their words differ.

    A text that both have is not marked; the others are compared in order, first with first.
    """
    old_only = [text.text for text in change.old if text.text not in {t.text for t in change.new}]
    new_only = [text.text for text in change.new if text.text not in {t.text for t in change.old}]
    marked: dict[str, list[Part]] = {}
    for before, after in zip(old_only, new_only, strict=False):
        marked[before], marked[after] = word_diff(before, after)
    for text in (*old_only, *new_only):
        marked.setdefault(text, [Part(text, changed=False)])
    both = [[marked.get(t.text, [Part(t.text, changed=False)]) for t in change.old]]
    both += [[marked.get(t.text, [Part(t.text, changed=False)]) for t in change.new]]
    return both[0], both[1]


def word_diff(old: str, new: str) -> tuple[list[Part], list[Part]]:
    """Two texts in runs of words: those that only this text has are `changed`.

    Case and punctuation at the ends of a word make no difference.
    """
    old_words, new_words = old.split(), new.split()
    old_plain, new_plain = map(bare, old_words), map(bare, new_words)
    steps = Indel.opcodes(list(old_plain), list(new_plain))
    num_equal = sum(step.src_end - step.src_start for step in steps if step.tag == "equal")
    if 2 * num_equal < MIN_SIMILARITY * (len(old_words) + len(new_words)):
        return [Part(old, changed=False)], [Part(new, changed=False)]
    before: list[Part] = []
    after: list[Part] = []
    for step in steps:
        removed = " ".join(old_words[step.src_start : step.src_end])
        added = " ".join(new_words[step.dest_start : step.dest_end])
        before += [Part(removed, step.tag != "equal")] if removed else []
        after += [Part(added, step.tag != "equal")] if added else []
    return before, after


def bare(word: str) -> str:
    """A word as it is compared."""
    return word.casefold().strip(string.punctuation) or word
