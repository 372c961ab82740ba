"""Cut a text that reached the token limit back to its last whole sentence."""

from __future__ import annotations

import re

from curator.core.text import split_sentences

_MIN_WORDS = 3
_WORD = re.compile(
    r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]|[^\W\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]+"
)
_NEXT = " The"


def cut_back(text: str) -> tuple[str, str]:
    """Split a text into its whole sentences and the unfinished rest ("" if there is none).

    If the whole sentences have fewer than three words, returns ("", text).
    """
    text = text.rstrip("\ufffd \n")  # the limit may split the bytes of one character
    # Whether a final full stop ends a sentence ("Dr." does not) shows only if another one follows.
    spans = split_sentences(text + _NEXT)
    begins = spans[-1][0]
    whole, rest = text[:begins].rstrip(), text[begins:]
    return (whole, rest) if len(_WORD.findall(whole)) >= _MIN_WORDS else ("", text)
