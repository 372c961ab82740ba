"""Flag captions that are bad as texts, without looking at the image.

Rules on the text alone: a million captions take minutes and no model. Flags aim at precision; the
alignment score may catch what they miss. The rules about words are for English; those about
scripts, loops, addresses and tokens work in any language.
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
    "empty": "no text, or a placeholder for a missing one, such as nan or null",
    "no_letters": "mostly digits, symbols and punctuation",
    "unreadable": "wrong encoding (mojibake), escapes, lost characters or a blob",
    "too_short": "fewer than three words",
    "repetition": "the same words or characters repeated many times",
    "boilerplate": 'starts by mentioning the image ("This image shows")',
    "refusal": "a model says that it cannot or will not, or that it is a model",
    "echo": "repeats the prompt, or has a speaker label (Assistant:)",
    "language": "certainly not in the expected language",
    "spam": "advertising, prices, telephone numbers, lists of keywords",
    "url": "a web or mail address",
    "file_name": "a file name, a camera's image number, a hash",
    "special_token": "a tokenizer's special token",
    "html": "markup: HTML, Markdown, JSON, LaTeX or code",
    "talk": "a chat model's remarks: several captions to choose from, an offer, its reasoning",
}
# With one of these the text is not a caption. The other two are a matter of taste.
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
    """The flags and statistics of one text.

    `flags` are keys of `FLAGS`, in their order. `measures`: `num_chars`; `num_words`;
    `distinct_2`, the share of distinct word pairs (1 without repetition); `repeated_share`, the
    share of 4-word sequences that occurred before in the text (0 without repetition).
    """

    flags: tuple[str, ...]
    measures: Mapping[str, float]

    @property
    def healthy(self) -> bool:
        """Whether no rejecting flag is set."""
        return not REJECTING.intersection(self.flags)


def check_text(text: str, *, prompt: str = "", language: str = "en") -> TextReport:
    """Check one caption, cleaned or not; `prompt` is the prompt that a model got for it, if any.

    Raises:
        UsageError: `language` is not an ISO 639-1 code of a supported language.
    """
    words = _words(text)
    measures = _measures(text, words)
    if not text.strip():
        return TextReport(("empty",), measures)
    spans = split_sentences(text)
    sentences = [text[start:end] for start, end in spans]
    # A sentence that starts inside quotes is text in the image: a sign that says "I am sorry".
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

    It ignores the image. `flags` and `measures` of each score are those of `check_text`;
    `num_tokens` is the number of words. `language` is the expected language, an ISO 639-1 code.
    """

    def __init__(self, *, language: str = "en") -> None:
        is_wrong_language("", language)  # raise for an unknown code here rather than in a worker
        self._language = language

    def score(self, pairs: Sequence[tuple[bytes, str]]) -> list[Score]:
        """Score every pair, in the same order. Never fails: an empty text is flagged."""
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
    """Whether less than a fifth of the characters are letters or vowel marks."""
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
    """Whether the same words occur three times in a row (two words: four times) anywhere in a text.

    A loop at the end of a long good text hardly changes the shares of the whole text.
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
    """Whether a sentence of four or more words occurs three times, or two such sentences twice."""
    counted = Counter(
        " ".join(words) for each in sentences if len(words := _words(each)) >= _MIN_SENTENCE_WORDS
    )
    repeats = [count for count in counted.values() if count > 1]
    return len(repeats) > 1 or max(repeats, default=0) > 2  # noqa: PLR2004 - see above


def _is_echo(words: list[str], sentences: list[str], prompt: str) -> bool:
    """Whether the text repeats the prompt's first words.

    Only the first sentence of the prompt is compared: the rest may quote the alt text, which a
    caption may well repeat. A short first sentence ("A photo of") must be repeated as a sentence.
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
    """Whether a text is a list of keywords: 10+ short pieces, or 5+ of which some end alike."""
    pieces = [_words(piece) for piece in re.split(r"[,;|/#]", text)]
    pieces = [piece for piece in pieces if piece]
    if len(pieces) < 5 or sum(map(len, pieces)) > 3 * len(pieces):  # noqa: PLR2004 - rules of thumb
        return False
    heads = [piece[-1] for piece in pieces]
    return len(pieces) >= 10 or len(set(heads)) <= len(heads) - 2  # noqa: PLR2004 - see above
