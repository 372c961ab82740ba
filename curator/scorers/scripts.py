"""Find the scripts of a text, and detect a second language in the middle of it.

The Unicode name of a character begins with its script. A foreign word does not count as a second
language if it is quoted or in brackets, if the text says that it is written there ("a sign reading
..."), or if it can be a name: capitalised, or one short word after "of", "in", "by" ...
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter

LATIN = "LATIN"
_HAN, _KANA = "CJK", ("HIRAGANA", "KATAKANA")
_WIDTHS = frozenset(("FULLWIDTH", "HALFWIDTH", "MODIFIER"))
SCRIPTS: dict[str, frozenset[str]] = {
    **dict.fromkeys(("be", "bg", "kk", "mk", "mn", "ru", "uk"), frozenset(("CYRILLIC",))),
    **dict.fromkeys(("ar", "fa", "ur"), frozenset(("ARABIC",))),
    **dict.fromkeys(("hi", "mr"), frozenset(("DEVANAGARI",))),
    "sr": frozenset(("CYRILLIC", LATIN)),
    "bn": frozenset(("BENGALI",)),
    "el": frozenset(("GREEK",)),
    "gu": frozenset(("GUJARATI",)),
    "he": frozenset(("HEBREW",)),
    "hy": frozenset(("ARMENIAN",)),
    "ja": frozenset((_HAN, *_KANA)),
    "ka": frozenset(("GEORGIAN",)),
    "ko": frozenset(("HANGUL", _HAN)),
    "pa": frozenset(("GURMUKHI",)),
    "ta": frozenset(("TAMIL",)),
    "te": frozenset(("TELUGU",)),
    "th": frozenset(("THAI",)),
    "zh": frozenset((_HAN, "BOPOMOFO")),
}
"""ISO 639-1 code -> scripts. Languages that are not listed use Latin letters."""

_MIN_FOREIGN = 4
_MAX_SHOWN = 12
_LONG_RUN = 8
_MIN_CHINESE = 4
_KANA_SHARE = 0.1


def scripts_of(language: str) -> frozenset[str]:
    """Return the scripts that a language is written in."""
    return SCRIPTS.get(language.lower(), frozenset((LATIN,)))


@functools.lru_cache(maxsize=1 << 16)
def script(char: str) -> str:
    """Return the script of a letter by its Unicode name: LATIN, CJK, HIRAGANA, ..."""
    if char.isascii():
        return LATIN
    words = unicodedata.name(char, "?").split()
    first = words[1] if words[0] in _WIDTHS and len(words) > 1 else words[0]
    return LATIN if first in ("ORDINAL", "FEMININE", "MASCULINE") else first


def count_scripts(text: str) -> Counter[str]:
    """Count letters by script."""
    return Counter(script(char) for char in text if char.isalpha())


# Characters of Chinese, rare in Japanese: simplified forms and function words.
_CHINESE_ONLY = re.compile(
    "[这们个着吗呢她你没对与给说还为车门马鸟红绿蓝边树头発两张条双岁欢乐开关时间问见贝长东风飞鱼鸡龙草坪里们树叶"
    "这那哪着过吧啊哦嘴叼跑坐站穿戴拿狗只]"
)
_CHINESE_PARTICLE = re.compile("[在的了是和]")


def is_chinese_for_japanese(text: str, counted: Counter[str]) -> bool:
    """Whether a text of Han characters alone is a Chinese sentence rather than a Japanese name."""
    if counted["HIRAGANA"] or counted["KATAKANA"] or counted[_HAN] <= 1:
        return False
    if counted[_HAN] >= _LONG_RUN or _CHINESE_ONLY.search(text):
        return True
    return counted[_HAN] >= _MIN_CHINESE and _CHINESE_PARTICLE.search(text) is not None


def is_japanese_for_chinese(text: str) -> bool:
    """Whether kana shows that a text is Japanese; quoted text is ignored, it may be a sign."""
    counted = count_scripts(unquoted(text))
    kana = counted["HIRAGANA"] + counted["KATAKANA"]
    return kana > 1 and kana > _KANA_SHARE * counted.total()


# -- two languages in one text ----------------------------------------------------------------

_QUOTED = re.compile(
    r"\"[^\"]{1,200}\"|\u201c[^\u201d]{1,200}\u201d|\u201e[^\u201c\u201d]{1,200}[\u201c\u201d]"
    r"|\u00ab[^\u00bb]{1,200}\u00bb|\u2018[^\u2019]{1,200}\u2019|(?<!\w)'[^']{1,200}'(?!\w)"
    r"|\u300c[^\u300d]{1,200}\u300d|\u300e[^\u300f]{1,200}\u300f|\u300a[^\u300b]{1,200}\u300b"
    r"|\u3010[^\u3011]{1,200}\u3011|\([^()]{1,60}\)|\uff08[^\uff09]{1,60}\uff09"
)
_SHOWN = re.compile(
    r"\b(?:reads?|reading|says?|saying|written|writing|wrote|labell?ed|labels?|titled?|texts?|words?"
    r"|phrase|characters?|letters?|lettering|inscriptions?|inscribed|signs?|signage|logo|brand(?:ed)?"
    r"|banner|poster|cover|caption(?:ed)?|spell(?:s|ed|ing)?|marked|printed|engraved|calligraphy"
    r"|kanji|katakana|hiragana|hanzi|hangul|cyrillic|arabic|chinese|japanese|korean|russian|greek"
    r"|hebrew|hindi|thai|script|names?|named|called|known as|message|menu|billboard|headline|tattoo"
    r"|meaning|book|magazine|newspaper|shop|store|restaurant|packag\w+|bottle|box|screen)\b"
    r"[^.!?]{0,40}\Z",
    re.IGNORECASE,
)
_BEFORE_NAME = re.compile(
    r"(?:\b(?:of|at|in|by|near|from|mr|mrs|ms|dr|artist|actor|actress|singer|city|town"
    r"|temple|mount|river|lake|park|station)\.?|[,:/&-])\s*\Z|(?-i:[A-Z])\w+\s\Z|\A\W*\Z",
    re.IGNORECASE,
)
_PHRASE = re.compile(
    "[\u3041-\u3096\u7684\u4e86\u5728\u662f\u7740\u548c\u4e0e\u6709\u8fd9\u90a3\u4e2a\u4e9b\u53ea\u6b63\u88ab\u628a\u4e24\u9019\u500b\u7dda\u8457\u8207]"
)
_LATIN_WORDS = re.compile(
    r"(?:[A-Za-z\u00c0-\u024f][\w'\u2019-]*[\s,]+){2,40}[A-Za-z\u00c0-\u024f][\w'\u2019-]*"
)
# In "the <word> and", "a <word> sits" it is a noun of the sentence; in "the <word> sign" it is not.
_ARTICLE = re.compile(r"\b(?:an?|the)\s\Z", re.IGNORECASE)
_AFTER_NOUN = re.compile(
    r"\s*(?:[.,;!?]|\Z)|\s(?:is|are|and|with|in|on|at|of|that|which|to|next|near|behind|\w+ing"
    r"|sits|stands|runs|lies|holds|walks)\b",
    re.IGNORECASE,
)
_RUN_GAP = re.compile(r"[^\w\"'.!?()]{0,3}")


def unquoted(text: str) -> str:
    """Return the text without quotations and short brackets."""
    return _QUOTED.sub(" ", text)


def has_second_script(text: str, expected: frozenset[str]) -> bool:
    """Whether a text contains words of another script that are neither quoted nor names."""
    own = unquoted(text)
    if LATIN not in expected and any(map(_is_prose, _LATIN_WORDS.finditer(own))):
        return True
    return foreign_letters(own, expected) >= _MIN_FOREIGN


def foreign_letters(text: str, expected: frozenset[str]) -> int:
    """Return the weight, in letters, of words in neither the expected scripts nor Latin."""
    if text.isascii():
        return 0
    return sum(_weight(text, start, end) for start, end in _foreign_runs(text, expected | {LATIN}))


def _is_prose(match: re.Match[str]) -> bool:
    """Whether there are three or more words, two of them in lower case: more than a name."""
    words = re.findall(r"[^\W\d_]{2,}", match[0])
    return len([word for word in words if word[0].islower()]) > 1


def _foreign_runs(text: str, expected: frozenset[str]) -> list[tuple[int, int]]:
    """Return spans of words in no expected script, joined over spaces and commas."""
    runs: list[tuple[int, int]] = []
    for match in re.finditer(r"\w+", text):
        letters = [
            place
            for place, char in enumerate(match[0], match.start())
            if char.isalpha() and script(char) not in expected
        ]
        if not letters:
            continue
        start, end = letters[0], letters[-1] + 1
        if runs and _RUN_GAP.fullmatch(text, runs[-1][1], start):
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((start, end))
    return runs


def _weight(text: str, start: int, end: int) -> int:
    """Return the weight of a run, in letters; 0 if it is text shown in the image, or a name."""
    run, before = text[start:end], text[max(0, start - 80) : start]
    letters = [char for char in run if char.isalpha() and script(char) != LATIN]
    if len(letters) <= _MAX_SHOWN and _SHOWN.search(before):
        return 0
    if _ARTICLE.search(before) and _AFTER_NOUN.match(text, end):
        return max(len(letters), _MIN_FOREIGN)
    return _weight_as_name(run, before, letters)


def _weight_as_name(run: str, before: str, letters: list[str]) -> int:
    """Return the weight of a run that may be a name; 0 if it looks like one in its script."""
    first = letters[0]
    num_words = len(run.split())
    if first.isupper() or first.islower():  # a script with letter case: names have a capital
        words = re.findall(r"[^\W\d_]{3,}", run)
        small = [word for word in words if word[0].islower()]
        if len(words) > 4:  # noqa: PLR2004 - a name has four
            return len(letters)
        return max(sum(map(len, small)), _MIN_FOREIGN) if small else 0
    if script(first) == "HANGUL":
        is_name = num_words == 1 and (
            len(letters) < _MIN_FOREIGN or _BEFORE_NAME.search(before) is not None
        )
        return 0 if is_name else len(letters)
    if script(first) in (_HAN, *_KANA):
        if len(letters) >= _LONG_RUN or (len(letters) > 1 and _PHRASE.search(run)):
            return max(len(letters), _MIN_FOREIGN)
        is_name = len(letters) < _MIN_FOREIGN or _BEFORE_NAME.search(before) is not None
        return 0 if is_name else len(letters)
    return 0 if num_words == 1 else len(letters)
