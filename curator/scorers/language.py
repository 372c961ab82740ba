"""Detect texts that are not in the expected language, only on strong evidence. No torch.

Captions are short, and language detectors are overconfident on short texts: lingua's best guess is
wrong for 2.6 % of 10,000 human English captions of Flickr8k (often Swedish: "The black and white
dog is running on the grass ."), with a confidence of up to 0.99. So the script is checked first,
then words that only one language has, and only then the detector, which must find the expected
language impossible rather than another one more likely. The whole text and each sentence are
checked: an answer may begin in one language and continue in another.
"""

from __future__ import annotations

import functools
import re
from itertools import pairwise

from lingua import IsoCode639_1, Language, LanguageDetector, LanguageDetectorBuilder

from curator.core.errors import UsageError, nearest
from curator.core.text import split_sentences
from curator.scorers.scripts import (
    LATIN,
    SCRIPTS,
    count_scripts,
    foreign_letters,
    has_second_script,
    is_chinese_for_japanese,
    is_japanese_for_chinese,
    scripts_of,
    unquoted,
)

# The detector's models load at its first call (20 MB, 0.2 s in low accuracy mode for these).
_LATIN = (
    Language.ENGLISH,
    Language.FRENCH,
    Language.GERMAN,
    Language.SPANISH,
    Language.PORTUGUESE,
    Language.ITALIAN,
    Language.DUTCH,
    Language.POLISH,
    Language.TURKISH,
    Language.VIETNAMESE,
    Language.INDONESIAN,
    Language.SWEDISH,
)
_SHARED_SCRIPT = tuple(
    tuple(code for code, scripts in SCRIPTS.items() if scripts == shared and code != "sr")
    for shared in (SCRIPTS["ru"], SCRIPTS["ar"], SCRIPTS["hi"])
)
"""Groups of languages with the same script, between which the detector chooses."""

_LATIN_WORD = re.compile(r"[A-Za-z\u00c0-\u024f]+")
_ENGLISH_WORD = re.compile(
    r"\b(?:the|and|with|of|his|her|their|this|that|from|while|are|is|through|into|wearing|standing"
    r"|sitting|holding|walking|running|playing|looking|next|behind|there|named"
    r"|(?:in|on|at|of|by) an?)\b",
    re.IGNORECASE,
)
_MIN_WORDS, _MIN_LETTERS = 4, 15
_IMPOSSIBLE = 3e-3
"""Below this probability the expected language is ruled out. Wrongly flags 5 of the 10,000 captions
above and finds 141 of 151 foreign alt texts of the rendered world (1e-2: 10 and 144; 1e-3: 2 and
138, which is too few)."""

_ENGLISH_SHARE = 0.1
_DOUBTFUL = 0.2
_UNLIKELY = 2e-2
_MAX_SHORT = 3
_MIN_CLAUSE_WORDS = 6
_MIN_OWN = 8

# Words of one language that English captions do not use, and the first words of its short captions.
_OWN_WORDS = {
    "de": "und ist mit auf einem einer eine einen ein neben hinter sitzt steht läuft trägt vor dem"
    " über das den",
    "en": "the a an and with of on in at is are to by his her their from while wearing standing"
    " sitting holding behind through across",
    "es": "una con sobre está están que los las junto mientras del unos unas hombre mujer perro"
    " por y",
    "fr": "une dans avec qui est sont sur cette leur très ses du sous devant derrière près homme"
    " femme chien des les",
    "it": "una che con sulla nella degli gli sono uomo donna cane accanto mentre di il",
    "nl": "een het op naast achter zit staat loopt zijn hond vrouw van",
    "pl": "jest na się nad przez oraz obok pies kobieta mężczyzna z i w",
    "pt": "uma com está estão que ao homem mulher cachorro enquanto em os as do da",
    "sv": "och är på med ett en som bakom bredvid kvinna",
}
_WORDS_OF = {code: frozenset(words.split()) for code, words in _OWN_WORDS.items()}
_ALSO = {
    "de": "van war an in her at",
    "es": "des em a",
    "fr": "que en on a",
    "it": "del i a in",
    "nl": "en over den of in is at her",
    "pl": "do a to on",
    "pt": "por des a",
    "sv": "den in her",
}
"""Language -> words of other languages above that it also uses, and that are no evidence in it."""
_ARTICLES = {
    **dict.fromkeys(("ein", "eine", "einen", "der", "das", "zwei"), "de"),
    **dict.fromkeys(("un", "une", "le", "les", "des", "deux"), "fr"),
    **dict.fromkeys(("el", "los", "las", "unos", "unas", "dos"), "es"),
    **dict.fromkeys(("il", "lo", "gli", "uno", "due"), "it"),
    **dict.fromkeys(("um", "uma", "os", "dois", "duas"), "pt"),
    **dict.fromkeys(("een", "het", "twee"), "nl"),
    **dict.fromkeys(("the", "a", "an", "two", "three"), "en"),
    "una": "es",
    "ett": "sv",
    "två": "sv",
    "dwa": "pl",
}
_ENGLISH_LINKS = frozenset("the and with of a an in on at is are to for his her from by".split())  # noqa: SIM905 - words are read more easily
_COMMA = re.compile(r"[,;:]\s")
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_ELISIONS = {
    "fr": re.compile(r"\b(?:l|d|qu|j|n|s|c)['\u2019](?=[^\W\d_]{3})", re.IGNORECASE),
    "it": re.compile(
        r"(?<!['\u2019])\b(?:un|[dn]ell|sull|quell|d?all)['\u2019](?=[^\W\d_]{3})",
        re.IGNORECASE,
    ),
}
"""Elided articles: words of one language that no word list contains."""


def is_wrong_language(text: str, expected: str = "en") -> bool:
    """Whether `text` is certainly not, or not only, in the language `expected` (ISO 639-1 code).

    Takes 5 to 150 us per sentence.

    Raises:
        UsageError: unknown code, or a language that the detector does not support.
    """
    language = _language(expected)
    scripts = scripts_of(expected)
    if _is_other_script(text, scripts):
        return True
    spans = split_sentences(text)
    sentences = [text[start:end] for start, end in spans] if len(spans) > 1 else []
    if any(_has_none_of(sentence, scripts) for sentence in sentences):
        return True
    if LATIN not in scripts:
        return _is_other_of_script(text, expected.lower(), language)
    parts = (text, *sentences, *_clauses(text))
    return any(_is_other_latin(part, expected, language) for part in parts)


def _clauses(text: str) -> list[str]:
    """Return the parts between commas that are long enough to check and more than a name."""
    parts = _COMMA.split(unquoted(text))
    if len(parts) == 1:
        return []
    return [
        part
        for part in parts
        if sum(word[0].islower() for word in part.split()) >= _MIN_CLAUSE_WORDS
    ]


def _is_other_script(text: str, scripts: frozenset[str]) -> bool:
    """Whether most of a text, or words in the middle of it, are in another script."""
    if text.isascii() and LATIN in scripts:
        return False
    own = unquoted(text)
    counted = count_scripts(own)
    if counted.total() < _MIN_OWN:
        counted = count_scripts(text)
    if counted.total() < 2:  # noqa: PLR2004 - one letter is no evidence for anything
        return False
    is_rest = sum(counted[script] for script in scripts) < counted.total() / 2
    # "A statue of" followed by a long name is still English.
    is_named = LATIN in scripts and len(_LATIN_WORD.findall(own)) >= _MAX_SHORT
    if is_rest and not (is_named and not foreign_letters(own, scripts)):
        return True
    return has_second_script(text, scripts)


def _has_none_of(sentence: str, scripts: frozenset[str]) -> bool:
    """Whether an unquoted sentence has letters, but none of these scripts."""
    counted = count_scripts(unquoted(sentence))
    if not counted or any(counted[script] for script in scripts):
        return False
    return counted[LATIN] > _MIN_LETTERS or counted.total() - counted[LATIN] > 1


def _is_other_of_script(text: str, expected: str, language: Language) -> bool:
    """Whether a text in the right script is in another language of that script."""
    if expected == "ja":
        return is_chinese_for_japanese(text, count_scripts(text))
    if expected == "zh":
        return is_japanese_for_chinese(text)
    if not any(expected in codes for codes in _SHARED_SCRIPT) or len(text.split()) < _MIN_WORDS:
        return False
    return _confidence(text, language) < _IMPOSSIBLE


def _is_other_latin(text: str, expected: str, language: Language) -> bool:
    """Whether a sentence in Latin letters is in another language than the expected one."""
    own = unquoted(text)
    words = _WORD.findall(own)
    if _has_foreign_words(own, words, expected):
        return True
    if len(text.split()) < _MIN_WORDS or sum(map(len, words)) < _MIN_LETTERS:
        return _is_other_short(text, words, language, expected)
    if language == Language.ENGLISH:
        num_english = len(_ENGLISH_WORD.findall(text))
        if num_english and num_english >= _ENGLISH_SHARE * len(text.split()):
            return False
    if expected != "en" and _is_english_opening(words, expected):
        return _confidence(text, language) < _DOUBTFUL
    # The detector classifies "Señor Frog's restaurant in Cancún" as Spanish.
    rest = _WORD.sub(lambda word: " " if _is_foreign_name(word[0]) else word[0], text)
    return any(map(str.isalpha, rest)) and _confidence(rest, language) < _IMPOSSIBLE


def _is_foreign_name(word: str) -> bool:
    """Whether a word is capitalised and has a letter that English does not use."""
    return word[0].isupper() and not word.isascii()


def _is_english_opening(words: list[str], expected: str) -> bool:
    """Whether a text begins with an English article that is not a word of the expected language."""
    first = words[0].lower()
    return _ARTICLES.get(first) == "en" and first not in _ALSO.get(expected.lower(), "").split()


def _has_foreign_words(text: str, words: list[str], expected: str) -> bool:
    """Whether a text has two different function words of one other language, outside names.

    In a name the next word is capitalised: "Musee du Louvre", "Our Lady del Pilar".
    """
    ours = _WORDS_OF.get(expected.lower())
    if ours is None or len(words) < _MIN_WORDS:
        return False
    ours |= frozenset(_ALSO.get(expected.lower(), "").split())
    running = [words[0].lower(), *words[1:]]
    used = {word for word, following in pairwise(running) if following[0].islower()} - ours
    for code, own in _WORDS_OF.items():
        found = used & own if code != expected.lower() else frozenset()
        elision = _ELISIONS.get(code) if code != expected.lower() else None
        num_found = len(found) + (elision is not None and elision.search(text) is not None)
        if num_found > 1 and any(len(word) > 2 for word in found):  # noqa: PLR2004 - "y", "di"
            return True
    return False


def _is_other_short(text: str, words: list[str], language: Language, expected: str) -> bool:
    """Whether a text of a few words has another language's article, and nothing like a name."""
    if not _MAX_SHORT <= len(words) <= _MAX_SHORT + 1:
        return False
    if expected == "en" and _ENGLISH_LINKS.intersection(map(str.lower, words)):
        return False
    code = _ARTICLES.get(words[0].lower())
    rest = words[1:]
    # German nouns are capitalised, so only "ein" and its forms distinguish short texts from names.
    is_plain = all(word[0].islower() for word in rest)
    if code == "de" and words[0].lower() not in ("der", "das"):
        is_plain = True
    if code is not None and code != expected.lower() and is_plain:
        return _confidence(text, language) < _DOUBTFUL
    has_accent = not text.isascii() and len(words) >= _MAX_SHORT and is_plain
    return has_accent and _confidence(text, language) < _UNLIKELY


def _confidence(text: str, language: Language) -> float:
    return _detector(language).compute_language_confidence(text, language)


@functools.cache
def _language(code: str) -> Language:
    known = {str(entry.iso_code_639_1.name).lower(): entry for entry in Language.all()}
    if code.lower() not in known:
        raise UsageError(f"unknown language {code!r}", hint=nearest(code.lower(), known))
    return Language.from_iso_code_639_1(IsoCode639_1.from_str(code))


@functools.cache
def _detector(expected: Language) -> LanguageDetector:
    code = str(expected.iso_code_639_1.name).lower()
    siblings = next((codes for codes in _SHARED_SCRIPT if code in codes), None)
    others = _LATIN if siblings is None else tuple(map(_language, siblings))
    languages = dict.fromkeys((*others, expected))
    return LanguageDetectorBuilder.from_languages(*languages).with_low_accuracy_mode().build()
