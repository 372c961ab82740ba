"""Text as data: clean it, split sentences, strip special tokens. No model, no torch.

All code that handles a caption calls these functions, in this order:

    clean_text / clean_str      bytes or str from outside -> one clean line, and what was wrong
    strip_special_tokens        clean text -> text that no tokenizer reads as a command
    split_sentences             text -> character spans

`is_blank` says whether a text stands for a missing one, such as the `nan` written by a table tool.
All are linear in the length of the text, also for hostile text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from curator.core.errors import UsageError

FLAGS: dict[str, str] = {
    "caption.invalid_utf8": "bytes that are not UTF-8, replaced by U+FFFD",
    "caption.surrogate": "half of a UTF-16 pair, replaced by U+FFFD",
    "caption.control": "NUL or another C0, C1 or DEL control character, removed",
    "caption.bidi": "invisible or direction-changing characters, removed",
    "caption.empty": "nothing to read",
}


@dataclass(frozen=True, slots=True)
class CleanText:
    """A caption on one line, trimmed, with single spaces; `flags` are keys of `FLAGS`."""

    text: str
    flags: tuple[str, ...]


_SURROGATE = re.compile("[\ud800-\udfff]")

# TAB, LF, VT, FF, CR, NEL, LS and PS are white space; they are not in this class.
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")

# Invisible characters without meaning for a reader: soft hyphen, grapheme joiner, Arabic
# letter mark, Hangul fillers, Mongolian vowel separator, zero-width space, LRM and RLM, bidi
# embeddings/overrides/isolates, word joiner and invisible operators, BOM, interlinear marks.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb]"
)

# Tag characters can smuggle a whole ASCII text past a reader. Only the three flag emoji that
# Unicode recommends (England, Scotland, Wales) are kept.
_TAGS = re.compile(
    "(\U0001f3f4(?:\U000e0067\U000e0062(?:\U000e0065\U000e006e\U000e0067"
    "|\U000e0073\U000e0063\U000e0074|\U000e0077\U000e006c\U000e0073))\U000e007f)"
    "|[\U000e0000-\U000e007f]"
)

# A run of variation selectors can smuggle bytes too; one after a visible character styles it.
_SELECTOR = "\ufe00-\ufe0f\U000e0100-\U000e01ef"
_STRAY_SELECTOR = re.compile(f"(?<![^\\s\u200c\u200d{_SELECTOR}])[{_SELECTOR}]")

# ZWJ joins emoji families; ZWJ and ZWNJ are part of the spelling in Arabic, Syriac, N'Ko,
# Mongolian, the Indic and the South-East Asian scripts (Persian "mi-ravam"). They stay between two
# such characters; anywhere else they only hide or split a word.
_PICTURE = "\u2190-\u21ff\u2300-\u23ff\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff"
_JOINING = (
    "\u0600-\u07ff\u0840-\u109f\u1700-\u18af\u1900-\u1aaf\u1b00-\u1c4f"
    "\ua840-\ua87f\ua8e0-\uabff\ufb50-\ufdff\ufe70-\ufefc\U00011000-\U000117ff"
)
_STRAY_JOINER = re.compile(
    f"(?<![{_PICTURE}\ufe0f])\u200d(?<![{_JOINING}]\u200d)|(?<![{_JOINING}])\u200c"
    f"|\u200d(?![{_PICTURE}{_JOINING}])|\u200c(?![{_JOINING}])"
)


def as_typed(text: str, what: str, *, reason: str = "option.value") -> str:
    """Return a text as the user typed it: Python reads non-locale bytes as lone surrogates.

    Raises:
        UsageError: the bytes are not UTF-8 either. `what` names the text in the message.
    """
    try:
        return text.encode("utf-8", "surrogateescape").decode()
    except UnicodeError as error:
        raise UsageError(f"{what} is not UTF-8", hint="type it in UTF-8", reason=reason) from error


def clean_text(raw: bytes) -> CleanText:
    """Decode a caption as UTF-8, replacing what is not UTF-8, and clean it as `clean_str` does."""
    try:
        return clean_str(raw.decode("utf-8"))
    except UnicodeDecodeError:
        clean = clean_str(raw.decode("utf-8", "replace"))
        return CleanText(clean.text, ("caption.invalid_utf8", *clean.flags))


def clean_str(text: str) -> CleanText:
    """Return `text` as one clean line; cleaning it again changes nothing.

    Lone surrogates become U+FFFD (a pair in two halves is joined); control characters, bidi
    controls, zero-width characters, BOMs and tag characters are removed; white space of any kind
    becomes single spaces. Emoji sequences stay, as do joiners that spell Persian or Indic words.
    Letters are not normalised: no NFC, no case, no quotes.
    """
    flags = []
    if _SURROGATE.search(text):
        repaired = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        if repaired.count("\ufffd") > text.count("\ufffd"):
            flags.append("caption.surrogate")
        text = repaired
    text, num_controls = _CONTROL.subn("", text)
    if num_controls:
        flags.append("caption.control")
    if not text.isascii():  # none of these is
        visible = _INVISIBLE.sub("", text)
        visible = _TAGS.sub(lambda match: match[1] or "", visible)
        visible = _STRAY_SELECTOR.sub("", visible)
        visible = _STRAY_JOINER.sub("", visible)
        if visible != text:
            flags.append("caption.bidi")
        text = visible
    line = " ".join(text.split())
    if not line:
        flags.append("caption.empty")
    return CleanText(line, tuple(flags))


BLANK = (
    r"(?i)^\W*(?:null|nil|none|nan|nat|n[./]? ?a\.?|undefined|void|missing|empty|unknown|untitled"
    r"|tbd|todo|not (?:applicable|available)|caption|description"
    r"|-?1\.#(?:ind|qnan)|\\n"
    r"|(?:no|without(?: an?)?) (?:caption|description|alt(?:ernative)?[ -]?text|alt|title|text)"
    r"(?: (?:was |is )?(?:available|provided|found|given|needed|necessary))?)\W*$"
    r"|^[\s\-\u2013\u2014_.\u2026,;:/|'\"`{}()\[\]<>]*$"
)
"""Texts that stand for "no text": the null of many languages, of pandas and SQL, and brackets or
dashes around nothing. The pattern works in Python and in polars."""
_BLANK = re.compile(BLANK)


def is_blank(text: str | None) -> bool:
    """Whether there is nothing to read: None, white space, or a placeholder for a missing text.

    `nan`, `None`, `null`, `N/A`, `undefined`, `[]`, `-` and "no caption available" are placeholders
    in any letter case; a caption that contains such a word is not.
    """
    return text is None or _BLANK.match(text) is not None


# The special tokens of the tokenizers that captioners use: ChatML, Llama 2-4, Qwen-VL, Phi,
# DeepSeek (full-width bars), InternVL, LLaVA, Idefics/SmolVLM, PaliGemma/Gemma, Florence-2,
# Pixtral/Mistral, BERT/BLIP, T5, CLIP. Any <name_with_underscores> counts as one too: people do not
# write that, and models have many of them.
_ANGLE_NAMES = (
    "image|img|video|audio|s|pad|unk|bos|eos|mask|cls|sep|box|ref|quad|patch|point|points"
    "|think|tool|speech|eot|eod|eop|sop|od|ocr|caption|cap|dcap|ncap|grounding|poly|proposal"
    "|global-img|image_soft_token"
)
_SPECIAL_TOKEN = "|".join(
    (
        r"<[|\uff5c][^<>\s]{0,64}[|\uff5c]>",
        rf"</?(?:{_ANGLE_NAMES}|[a-z0-9]+(?:_[a-z0-9]+){{1,8}})/?>",
        r"</?(?:image|img|loc|seg|unused|extra_id_|reserved)[ _]?\d{1,5}>",
        r"<0x[0-9a-f]{2}>",
        r"<</?sys>>",
        r"\[/?(?:inst|img|img_break|img_end|gmask|smask|unused_?(?:token_)?\d{1,5})\]",
        # Upper case only: "[mask]" and "[pad]" are also plain English.
        r"(?-i:\[/?(?:CLS|SEP|PAD|MASK|UNK|BOS|EOS|DEC|ENC|[A-Z]{3,20}(?:_[A-Z]{2,20}){1,3})\])",
    )
)
_MAX_NESTING = 8


def strip_special_tokens(text: str, extra: Iterable[str] = ()) -> tuple[str, bool]:
    """Remove special tokens that a tokenizer would interpret, e.g. `<|im_end|>`, `[INST]`.

    `extra` are the literal special tokens of the tokenizer in use; leave out plain words and
    punctuation (some models pad with "!"), which would be removed from ordinary text. A token
    becomes a space, unless joining its surroundings makes another token (`<|im_<|im_end|>end|>`):
    those are joined and removed until none is left. Text nested more than 8 deep loses its
    brackets. Clean the text first: an invisible character inside a token would hide it here, and
    later cleaning would restore the token.

    Returns:
        The text, and whether anything was removed. If not, the text is returned unchanged.
    """
    literals = sorted({re.escape(token) for token in extra if token}, key=len, reverse=True)
    token = re.compile(
        "|".join([*(f"(?-i:{literal})" for literal in literals), _SPECIAL_TOKEN]), re.IGNORECASE
    )
    found = False
    num_passes = 0
    while token.search(text):
        found = True
        num_passes += 1
        if num_passes > _MAX_NESTING:
            text = re.sub(r"[<>\[\]|\uff5c]", " ", text)
        glued = token.sub("", text)
        text = glued if token.search(glued) else token.sub(" ", text)
    return (" ".join(text.split()), True) if found else (text, False)


# Possible ends of sentences: marks, closing quotes or brackets after them, white space. The
# look-behind starts a match only at the first mark of a run, which keeps a million dots linear.
_MARKS = ".!?\u2026\u061f\u06d4\u0964\u0965"  # with ellipsis, Arabic, Urdu and Devanagari marks
_CLOSERS = "\"'\u2019\u201d\u00bb\u203a)\\]}"
# Chinese and Japanese full stop, !, ?; brackets and quotes that close. No white space follows.
_WIDE_MARKS = "\u3002\uff01\uff1f\uff61"
_WIDE_CLOSERS = "\u300d\u300f\uff09\u3011\u300b"
_END = re.compile(
    f"(?<![{_MARKS}])(?P<marks>[{_MARKS}]++)(?P<closers>[{_CLOSERS}]*+)(?=\\s|$)"
    f"|[{_WIDE_MARKS}]++[{_CLOSERS}{_WIDE_CLOSERS}]*+"
    r"|\n\s*\n"
)
_OPENERS = "(\"'[\u2018\u201c"
_WORD = re.compile(r"\w")
_LOOK = 40  # characters of context per mark; bounded, which keeps splitting linear
# Never end a sentence: something always follows.
_OPEN_ABBREVIATION = re.compile(
    r"mrs?|ms|mx|dr|prof|mt|gen|col|lt|sgt|capt|cpt|rev|hon|sen|rep|gov|pres|messrs|mme|mlle"
    r"|e\.g|i\.e|cf|viz|vs|figs?|vol|pp|approx|ca|feat|incl|esp"
)
# Abbreviations before a number, ordinary words otherwise ("No. 5" but "No. He sits.").
_BEFORE_FIGURE = re.compile(r"nos?|nr|p|ch|sec|pl|op")
# These may end a sentence, if a typical first word follows. Initials (J. K. Rowling, U.S.) too.
_CLOSED_ABBREVIATION = re.compile(
    r"etc|jr|sr|inc|ltd|co|corp|bros|dept|univ|st|ave|blvd|rd|hwy|sq|al|est|ft|cm|mm|km|kg|lbs?|oz|hrs?"
    r"|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|(?:[^\W\d_]\.)*[^\W\d_]"
)
_FIRST_WORD = re.compile(
    r"\W*(?:an?|the|one|two|three|four|five|several|many|some|most|all|both|each|another|other"
    r"|he|she|it|they|we|you|i|his|her|its|their|our|this|that|these|those|there|here"
    r"|in|on|at|by|from|to|with|behind|above|below|under|near|next|beside|between|around"
    r"|while|when|where|as|after|before|however|but|and|also|overall|what|who|why|how)\b",
    re.IGNORECASE,
)


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Split `text` into sentences: `(start, end)` character spans, in order, disjoint.

    Every character other than white space is in exactly one span; no span begins or ends with
    white space. A piece without a letter or digit (". . .") belongs to the sentence before it.
    Handles abbreviations, initials, decimals, ellipses, quotes, list numbers, blank lines, CJK and
    Devanagari full stops and the " ." of tokenised captions; where letter case cannot decide
    (captions are often all lower case), a full stop ends a sentence.
    """
    pieces = []
    start = 0
    for match in _END.finditer(text):
        if match["marks"] is None or _ends_sentence(text, start, match):
            pieces.append((start, match.end()))
            start = match.end()
    pieces.append((start, len(text)))
    spans: list[tuple[int, int]] = []
    for begin, end in pieces:
        piece = text[begin:end]
        stripped = piece.strip()
        if not stripped:
            continue
        begin += len(piece) - len(piece.lstrip())  # noqa: PLW2901 - the span, trimmed
        end = begin + len(stripped)  # noqa: PLW2901 - as above
        if spans and not _WORD.search(stripped):
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((begin, end))
    return spans


def _ends_sentence(text: str, start: int, match: re.Match[str]) -> bool:
    """Whether the mark at `match` ends the sentence that begins at `start`."""
    marks = match["marks"]
    after = text[match.end() : match.end() + _LOOK].lstrip()
    goes_on = after[:1].islower()
    if goes_on and match["closers"] and match["closers"][0] != ")":
        return False  # "Stop!" she says.
    if marks != ".":
        return not (goes_on and marks[0] in ".\u2026")  # wait ... what
    before = text[max(start, match.start() - _LOOK) : match.start()]
    if not before or before[-1].isspace():
        return True  # tokenised text: " ."
    word = before.split()[-1].lstrip(_OPENERS).lower()
    is_first = match.start() - start <= _LOOK and before.strip() == word
    starts_list = is_first and word.isdigit()  # 1. A dog
    must_go_on = _OPEN_ABBREVIATION.fullmatch(word) or (
        _BEFORE_FIGURE.fullmatch(word) and after[:1].isdigit()
    )
    if starts_list or must_go_on:
        return False
    may_go_on = _CLOSED_ABBREVIATION.fullmatch(word)
    return not (may_go_on and after) or _FIRST_WORD.match(after) is not None
