"""The health of a caption as a text: what is wrong with it whatever the image shows.

Rules over the text alone, so that a million captions cost minutes and no model. Each flag is
meant to be true when set; what it misses, the alignment score may see. Words are English except
for scripts, loops, addresses and tokens, which know no language.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from curator.core.text import is_blank, split_sentences, strip_special_tokens
from curator.scorers import Score, patterns, talk
from curator.scorers.language import is_wrong_language
from curator.scorers.refusals import WORLD_REFUSAL
from curator.scorers.unreadable import is_unreadable

FLAGS: dict[str, str] = {
    "empty": "nothing to read, or what stands for a missing text, such as nan or null",
    "no_letters": "mostly figures, signs and punctuation",
    "unreadable": "a wrong encoding (mojibake), escapes, lost characters or a blob",
    "too_short": "fewer than three words",
    "repetition": "the same words or characters over and over",
    "boilerplate": 'talk about "this image" before its content',
    "refusal": "a model says that it cannot or will not, or that it is a model",
    "echo": "the prompt, or a speaker's name, comes back",
    "language": "surely not in the expected language",
    "spam": "selling, prices, telephone numbers, lists of search words",
    "url": "a web or mail address",
    "file_name": "the name of a file, a camera's number, a hash",
    "special_token": "a tokenizer's command",
    "html": "markup: HTML, Markdown, JSON, LaTeX or a program",
    "talk": "a chat model's talk: several captions to choose from, an offer, its reasoning",
}
# The caption is no description. The others are matters of taste.
REJECTING = frozenset(FLAGS) - {"too_short", "boilerplate"}

_MIN_WORDS = 3
_LOOP_WORDS = 8
_MAX_REPEATED_SHARE = 0.5
_MIN_DISTINCT_2 = 0.4
_MAX_SAME_WORD = 5
_MAX_SAME_CHARACTER = 10
_ECHO_WORDS = 8
_MIN_ECHO_WORDS = 5
_NGRAM = 4
_MAX_LOOP = 24
_MIN_SENTENCE_WORDS = 4
_LETTER_SHARE = 0.2

# A Chinese or Japanese character counts as a word; their texts have no spaces.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+(?:['’-]\w+)*")  # noqa: RUF001 - both apostrophes
_LETTER = re.compile(r"[^\W\d_]")
_SAME_CHARACTER = re.compile(rf"(\S)(?:\s?\1){{{_MAX_SAME_CHARACTER - 1}}}")
_SAME_CHARACTERS = re.compile(r"(\S{2,12}?)\1{6}")


@dataclass(frozen=True, slots=True)
class TextReport:
    """`flags` are keys of `FLAGS`, in their order.

    `measures`: `num_chars`; `num_words`; `distinct_2`, the share of word pairs that are distinct
    (1 without repetition); `repeated_share`, the share of runs of four words that have been seen
    before in the text (0 without repetition).
    """

    flags: tuple[str, ...]
    measures: Mapping[str, float]

    @property
    def healthy(self) -> bool:
        """Whether no rejecting flag is set."""
        return not REJECTING.intersection(self.flags)


def check_text(text: str, *, prompt: str = "", language: str = "en") -> TextReport:
    """Look at one caption, cleaned or not; `prompt` is what a model was asked for it, if any.

    Raises:
        UsageError: `language` is no ISO 639-1 code of a known language.
    """
    words = _words(text)
    measures = _measures(text, words)
    if not text.strip():
        return TextReport(("empty",), measures)
    spans = split_sentences(text)
    sentences = [text[start:end] for start, end in spans]
    # What opens inside quotes is said in the picture: a sign that says "Help! I am sorry".
    inside = [match.span() for match in patterns.QUOTED.finditer(text)]
    spoken = [
        text[start:end]
        for start, end in spans
        if not any(opens < start < closes for opens, closes in inside)
    ]
    own = patterns.QUOTED.sub(" ", text).strip() or text.strip()
    found = {
        "empty": is_blank(text),
        "no_letters": _has_few_letters(text),
        "unreadable": is_unreadable(text),
        "too_short": len(words) < _MIN_WORDS,
        "repetition": _is_repetition(text, words, sentences, measures),
        "boilerplate": patterns.BOILERPLATE.match(text) is not None,
        "refusal": any(map(_is_refusal, spoken)),
        "echo": any(map(patterns.SPEAKER.match, spoken)) or _is_echo(words, sentences, prompt),
        "language": is_wrong_language(text, language),
        "spam": patterns.SPAM.search(own) is not None or _is_keyword_list(own),
        "url": patterns.URL.search(own) is not None,
        "file_name": patterns.FILE_NAME.search(own) is not None,
        "special_token": strip_special_tokens(text)[1],
        "html": patterns.HTML.search(text) is not None,
        "talk": talk.is_talk(text, spoken),
    }
    return TextReport(tuple(flag for flag, is_set in found.items() if is_set), measures)


class TextScorer:
    """The scorer `text`: 1.0 for a caption without a rejecting flag, else 0.0.

    It never looks at the image. `flags` and `measures` of each score are those of `check_text`;
    `num_tokens` is the number of words. `language` is the expected one, an ISO 639-1 code.
    """

    def __init__(self, *, language: str = "en") -> None:
        is_wrong_language("", language)  # an unknown code fails here rather than in a worker
        self._language = language

    def score(self, pairs: Sequence[tuple[bytes, str]]) -> list[Score]:
        """Score every pair, in the same order. Nothing fails: an empty text is flagged."""
        reports = {
            text: check_text(text, language=self._language)
            for text in dict.fromkeys(text for _, text in pairs)
        }
        return [
            Score(
                float(report.healthy),
                num_tokens=int(report.measures["num_words"]),
                flags=report.flags,
                measures=report.measures,
            )
            for report in (reports[text] for _, text in pairs)
        ]


def _measures(text: str, words: list[str]) -> dict[str, float]:
    pairs = list(pairwise(words))
    runs = list(zip(*(words[start:] for start in range(_NGRAM)), strict=False))
    return {
        "num_chars": float(len(text)),
        "num_words": float(len(words)),
        "distinct_2": len(set(pairs)) / len(pairs) if pairs else 1.0,
        "repeated_share": 1.0 - len(set(runs)) / len(runs) if runs else 0.0,
    }


def _has_few_letters(text: str) -> bool:
    """Fewer than a fifth of the characters; marks that spell vowels count as letters."""
    letters = sum(unicodedata.category(char)[0] in "LM" for char in text)
    return letters < _LETTER_SHARE * sum(not char.isspace() for char in text)


def _is_refusal(sentence: str) -> bool:
    return bool(patterns.REFUSAL.match(sentence) or WORLD_REFUSAL.match(sentence))


def _is_repetition(
    text: str, words: list[str], sentences: list[str], measures: Mapping[str, float]
) -> bool:
    if _SAME_CHARACTER.search(text) or _SAME_CHARACTERS.search(text):
        return True
    if max((len(list(run)) for _, run in groupby(words)), default=0) >= _MAX_SAME_WORD:
        return True
    if _has_loop(words) or _has_same_sentences(sentences):
        return True
    return len(words) >= _LOOP_WORDS and (
        measures["repeated_share"] > _MAX_REPEATED_SHARE or measures["distinct_2"] < _MIN_DISTINCT_2
    )


def _has_loop(words: list[str]) -> bool:
    """Whether the same words come three times in a row (two words: four times), also behind others.

    A loop at the end of a long good text hardly moves the shares of the whole.
    """
    for period in range(2, min(_MAX_LOOP, len(words) // 2) + 1):
        needed = period * (3 if period == 2 else 2)  # noqa: PLR2004 - "on and on and on"
        run = 0
        for word, earlier in zip(words[period:], words, strict=False):
            run = run + 1 if word == earlier else 0
            if run >= needed:
                return True
    return False


def _has_same_sentences(sentences: list[str]) -> bool:
    """Whether a sentence of four words or more comes three times, or two of them come twice."""
    counted = Counter(
        " ".join(words) for each in sentences if len(words := _words(each)) >= _MIN_SENTENCE_WORDS
    )
    repeats = [count for count in counted.values() if count > 1]
    return len(repeats) > 1 or max(repeats, default=0) > 2  # noqa: PLR2004 - see above


def _is_echo(words: list[str], sentences: list[str], prompt: str) -> bool:
    """Whether the prompt's first words come back.

    Only its first sentence counts: further down a prompt may quote the alt text, and a caption
    may well repeat that. A short one ("A photo of") must come back as a sentence of its own.
    """
    spans = split_sentences(prompt)
    if not spans:
        return False
    asked = _words(prompt[slice(*spans[0])])
    if len(asked) < _MIN_ECHO_WORDS:
        return len(asked) >= _MIN_WORDS and any(_words(each) == asked for each in sentences)
    head = f" {' '.join(asked[:_ECHO_WORDS])} "
    return head in f" {' '.join(words)} "


def _words(text: str) -> list[str]:
    return [match.group().casefold() for match in _WORD.finditer(text)]


def _is_keyword_list(text: str) -> bool:
    """Search words one after the other: many short pieces and a word that keeps coming back."""
    pieces = [_words(piece) for piece in re.split(r"[,;|/#]", text)]
    pieces = [piece for piece in pieces if piece]
    if len(pieces) < 5 or sum(map(len, pieces)) > 3 * len(pieces):  # noqa: PLR2004 - rules of thumb
        return False
    heads = [piece[-1] for piece in pieces]
    return len(pieces) >= 10 or len(set(heads)) <= len(heads) - 2  # noqa: PLR2004 - see above
