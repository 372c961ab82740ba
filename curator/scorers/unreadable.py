"""Detect unreadable texts: a wrong encoding, escapes instead of characters, or a blob.

Mojibake is found by undoing it: UTF-8 that was decoded as another encoding is valid UTF-8 again
when encoded back, which real texts in that encoding hardly ever are by chance.
"""

from __future__ import annotations

import itertools
import re

_MIN_LOST = 4
_MAX_TOKEN = 40

# UTF-8 decoded as an 8-bit encoding: a lead byte of a 2- to 4-byte sequence, then continuation
# bytes, 0x80 to 0xBF in Latin-1 or as Windows-1252 shows them.
_FOLLOWS = (
    "\u0080-\u00bf\u20ac\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\u017d\u2018\u2019\u201c\u201d"
    "\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\u017e\u0178"
)
# Those that can follow an accented capital letter in real text: quotes, dashes, an ellipsis.
_CLOSING = "\u2018\u2019\u201c\u201d\u2026\u2013\u2014\u2122\u00ae\u00bb\u203a\u00a0"
_UTF8_AS_LATIN = re.compile(
    f"\u00e2[\u20ac\u0080\u201e\u2020\u0153\u02c6\u2021\u2022\u2122][{_FOLLOWS}]"
    f"|[\u00c2\u00c3][{_FOLLOWS}](?<![\u00c2\u00c3][{_CLOSING}])"
    f"|(?<![^\\W\\d_])[\u00c2\u00c3][{_CLOSING}]"
    f"|[\u00c4-\u00df][{_FOLLOWS}](?<![{_CLOSING}\u00ab\u00b7\u00b0])(?:[\u00c2-\u00df][{_FOLLOWS}])*"
    f"|[\u00e0-\u00ef][{_FOLLOWS}](?<![{_CLOSING}\u00ab\u00b7\u00b0])[{_FOLLOWS}]"
    f"|\u00f0\u0178[{_FOLLOWS}]{{1,2}}"
    # A no-break space among those bytes became a space when the text was cleaned.
    "|(?<!\\w)[\u00c2\u00c3\u00e2](?!\\w)|[a-z]\u00c3 |\u00ef\u00bb\u00bf"
    "|[\u00c4-\u00df][\u201c\u201d\u2026\u2122](?=[a-z\u00df-\u00ff])"
)
_SINGLE_BYTE = (
    "cp1252",
    "latin-1",
    "cp1251",
    "koi8-r",
    "cp437",
    "cp850",
    "mac-roman",
    "gbk",
    "cp932",
)
_NOT_LATIN = ("cp1251", "koi8-r", "cp437", "mac-roman", "gbk")
_MAX_RUNS = 50
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
# Four accented letters in a row occur in no language: another alphabet decoded as Latin-1.
_EIGHT_BIT = re.compile(r"[\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u00ff]{4,}")
_BYTES_IN_WORDS = re.compile(
    r"[\u00c0-\u00ff][\u0080-\u009f\u00a1-\u00a9\u00ac-\u00af\u00b1-\u00b6\u00b8-\u00b9\u00bc-\u00bf"
    r"\u0192\u2020\u2021\u2030\u00d7\u00f7][\u00c0-\u00ff]|\u0192.\u0192"
)
_ESCAPES = re.compile(
    r"(?:\\u[0-9a-f]{4}|\\x[0-9a-f]{2}|%[89a-f][0-9a-f]%[89ab][0-9a-f]|=[c-f][0-9a-f]=[89ab][0-9a-f]"
    r"|\\[0-7]{3}|<0x[0-9a-f]{2}>|=\?[\w-]{3,20}\?[bq]\?)|\+A[A-Za-z0-9+/]{2,5}-",
    re.IGNORECASE,
)
# Combining accents on four letters in a row ("Zalgo"); real spellings have at most two.
_STACKED = re.compile(r"(?:[A-Za-z][\u0300-\u036f]+){4}")
_LOST_IN_WORD = re.compile(r"[^\W\d_]\?{1,2}[^\W\d_]")
_ADDRESS = re.compile(r"https?:|www\.|[/.\\@#_]", re.IGNORECASE)


def is_unreadable(text: str) -> bool:
    """Whether a text is too damaged to be read."""
    return (
        "\ufffd" in text
        or _ESCAPES.search(text) is not None
        or _STACKED.search(text) is not None
        or _has_lost_characters(text)
        or _is_blob(text)
        or (not text.isascii() and _is_mojibake(text))
    )


def _is_mojibake(text: str) -> bool:
    patterns = (_UTF8_AS_LATIN, _EIGHT_BIT, _BYTES_IN_WORDS)
    if any(pattern.search(text) for pattern in patterns):
        return True
    runs = list(itertools.islice(_NOT_ASCII.finditer(text), _MAX_RUNS))
    joined = "".join(run[0] for run in runs)
    return any(map(_undoes, (text, joined, *(run[0] for run in runs)))) or any(
        _undoes_inside_word(text, run) for run in runs
    )


def _undoes_inside_word(text: str, run: re.Match[str]) -> bool:
    """Whether a non-ASCII run inside an ASCII word is mojibake: "caf" and two Cyrillic letters."""
    before, after = text[run.start() - 1 : run.start()], text[run.end() : run.end() + 1]
    beside = [char.isascii() and char.isalpha() for char in (before, after) if char]
    if not any(beside) or run[0].isspace():
        return False
    for encoding in _NOT_LATIN:
        try:
            read = run[0].encode(encoding).decode("utf-8")
        except UnicodeError:
            continue
        # "T" and a Chinese character means T-shirt; between two letters it is mojibake.
        if read.isprintable() and (encoding != "gbk" or (all(beside) and len(beside) > 1)):
            return True
    return False


def _undoes(text: str) -> bool:
    """Whether a text, encoded back, is UTF-8 with three or more non-ASCII characters.

    Two can be chance: the GBK bytes of a Chinese word of two characters are a known case.
    """
    for encoding in _SINGLE_BYTE:
        try:
            read = text.encode(encoding).decode("utf-8")
        except UnicodeError:
            continue
        if sum(not char.isascii() for char in read) > 2 and read.isprintable():  # noqa: PLR2004 - see above
            return True
    return False


def _has_lost_characters(text: str) -> bool:
    """Whether question marks replace letters: "M?nchen, K?ln", "??? ????"."""
    num_lost = text.count("?")
    if num_lost < 2:  # noqa: PLR2004 - one may be a typing error
        return False
    if len(_LOST_IN_WORD.findall(text)) > 1 and not _ADDRESS.search(text):
        return True
    num_letters = sum(char.isalpha() for char in text)
    return num_lost >= _MIN_LOST and num_lost > num_letters


def _is_blob(text: str) -> bool:
    """Whether a text is mostly one long string of letters and digits, such as base64."""
    longest = max(text.split(), key=len, default="")
    if len(longest) <= _MAX_TOKEN or 2 * len(longest) < len(text) or not longest.isascii():
        return False
    plain = re.sub(r"[^A-Za-z0-9+/=_-]", "", longest)
    return len(plain) == len(longest) and re.search(r"[\d+/=]|[a-z][A-Z]", longest) is not None
