"""Extract the caption from the answer of a chat model, where it is unambiguous.

    answer                                                   caption
    <think>The user wants ...</think> A dog runs.            A dog runs.
    ```json {"caption": "A dog runs."} ```                   A dog runs.
    Sure! Here is a caption: **"A dog runs."**               A dog runs.
    <p>A dog runs.</p>                                       A dog runs.
    A dog runs. Let me know if you want a longer one!        A dog runs.
    <think>The user wants                                    none: the answer ends before a caption

`CleanAnswer.taken_off` lists what was removed. If the answer offers several captions, or is a list,
a table or half a fence, none is chosen: the text is not changed, and the flags `html` and `talk` of
`curator.scorers.text` keep it from being stored.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from curator.captioners.excerpt import excerpt
from curator.core.text import clean_str, split_sentences, strip_special_tokens
from curator.scorers import talk

_MAX_LAYERS = 12
_TOLD_CHARS = 120


@dataclass(frozen=True, slots=True)
class CleanAnswer:
    """The caption in an answer, and what was around it.

    `text` is one clean line. `taken_off` lists what was removed, outermost first. `reasoning` is
    the model's thinking before the answer. `is_list`: the lines of the answer were a list, a table
    or titled parts, which can no longer be seen in the one line of `text`.
    """

    text: str
    taken_off: tuple[str, ...] = ()
    reasoning: str = ""
    is_list: bool = False


def open_answer(raw: str) -> CleanAnswer:
    """Extract the caption from an answer. Idempotent."""
    reasoning, text = split_reasoning(raw)
    taken = [f"reasoning {_told(reasoning)}"] if reasoning else []
    is_list = False
    for _ in range(_MAX_LAYERS):
        before = text
        for name, layer in _LAYERS:
            inner = layer(text)
            if inner != text:
                taken.append(name if name != "talk" else f"talk {_told(_lost(text, inner))}")
                text = inner
        if text != before:
            continue
        is_list = is_list or _is_list(text)
        text = clean_str(text).text
        if text == before:
            break
    return CleanAnswer(clean_str(text).text, tuple(dict.fromkeys(taken)), reasoning, is_list)


_LIST_LINE = re.compile(
    r"(?:[-*+\u2022\u25aa\u25cf]|\(?(?:\d{1,2}|[a-hA-H])[.)]|#{1,6}|>)\s+\S|\|.*\||[-*_=]{3,}\s*\Z|`{3}"
)
_FIELD_LINE = re.compile(r"[A-Z][\w /-]{1,30}:(?:\s|\Z)")


def _is_list(text: str) -> bool:
    """Whether several lines are a list, a table or named fields rather than plain sentences."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) < 2:  # noqa: PLR2004 - one line is not a list
        return False
    return any(map(_LIST_LINE.match, lines)) or sum(map(bool, map(_FIELD_LINE.match, lines))) > 1


def _told(text: str) -> str:
    return repr(excerpt(" ".join(text.split()), max_chars=_TOLD_CHARS))


def _lost(text: str, inner: str) -> str:
    """Return what a layer removed from the beginning or the end of `text`."""
    before, _, after = text.partition(inner) if inner else (text, "", "")
    return f"{before.strip()} {after.strip()}".strip()


# -- reasoning --------------------------------------------------------------------------------
# Reasoning tags of the models that vLLM 0.2x and SGLang support: DeepSeek, Qwen, GLM, MiniMax,
# Step, Olmo and most others (<think>), Seed (<seed:think>), EXAONE (<thought>), Kimi (in
# triangles), Magistral ([THINK]), Cohere (<|START_THINKING|>), Apertus (<|inner_prefix|>), Pangu
# ([unused16]), Gemma 4 (<|channel>), Granite (a sentence), gpt-oss and Muse (channels).

_THOUGHT = (
    r"(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflect(?:ion)?|analysis|scratchpad|rationale"
    r"|inner[ _]?(?:thoughts?|monologue))"
)
_OPENING = re.compile(
    rf"<(?:\w{{1,12}}:)?{_THOUGHT}(?:\s[^<>]{{0,80}})?>"
    rf"|[<\u25c1]\|?(?:(?:begin|start)_(?:of_)?)?{_THOUGHT}(?:_(?:begin|start))?\|?[>\u25b7]"
    r"|(?-i:\[THINK(?:ING)?\])|<\|inner_prefix\|>|\[unused16\]|<\|channel>"
    r"|<\|channel\|>\s*(?:analysis|commentary)|to=self\s*<\|message\|>|\Aanalysis(?=[A-Z])"
    r"|here(?: i|['\u2019])s my thought process\s*:",
    re.IGNORECASE,
)
_CLOSING = re.compile(
    rf"</(?:\w{{1,12}}:)?{_THOUGHT}\s*>"
    rf"|[<\u25c1]\|?/{_THOUGHT}\|?[>\u25b7]|<\|end_(?:of_)?{_THOUGHT}\|>|<\|{_THOUGHT}_end\|>"
    r"|(?-i:\[/THINK(?:ING)?\])|<\|inner_suffix\|>|\[unused17\]|<channel\|>"
    r"|<\|channel\|>\s*final\s*(?:<\|constrain\|>\s*\w+\s*)?<\|message\|>|to=user\s*<\|message\|>"
    # gpt-oss where the special tokens were skipped: "analysisThe user ...assistantfinalA dog"
    r"|assistantfinal(?=[A-Z\s\"*#])"
    r"|here(?: i|['\u2019])s my (?:response|answer)\s*:",
    re.IGNORECASE,
)


def split_reasoning(text: str) -> tuple[str, str]:
    """Split an answer into (reasoning, answer); ("", text) if it has no reasoning tag.

    The opening tag may be missing (chat templates put it into the prompt). If the closing tag is
    missing (the token limit cut the reasoning), the answer is "".
    """
    opening = _OPENING.search(text)
    closing = next(reversed(list(_CLOSING.finditer(text))), None)
    final = talk.FINAL_LABEL.search(text)
    if closing is None and opening is None:
        if final is not None and text[: final.start()].strip():
            return text[: final.start()].strip(), text[final.end() :].strip()
        return "", text
    if closing is None:
        assert opening is not None
        # Text before the tag is neither a reliable answer nor reasoning.
        is_first = not strip_special_tokens(text[: opening.start()])[0].strip(" \n\t.:*#")
        return (text.strip(), "") if is_first else ("", text)
    answer = text[closing.end() :].strip()
    if not answer and opening is not None and opening.start() < closing.start():
        answer = text[: opening.start()].strip()
        return text[opening.start() :].strip(), answer
    if again := _OPENING.search(answer):  # cut during a second reasoning
        answer = answer[: again.start()].strip()
    return text[: closing.start()].strip() or closing[0], answer


# -- layers -----------------------------------------------------------------------------------


_FENCE = re.compile(
    r"\A(`{3,}|~{3,})[ \t]*(?:(?:json|markdown|md|text|txt|plain\w*|html|xml|ya?ml|python|latex|tex"
    r"|caption|output|\w{1,12}(?=\r?\n))\b)?\s*(.*?)\s*\1\Z",
    re.IGNORECASE | re.DOTALL,
)


def _fence(text: str) -> str:
    match = _FENCE.match(text.strip())
    return match[2] if match and "```" not in match[2] and "~~~" not in match[2] else text


_TEXT_KEY = re.compile(
    r"caption|descri|alt|text|answer|response|output|content|sentence|result|beschr|l\u00e9gende|\u63cf\u8ff0",
    re.IGNORECASE,
)


def _json(text: str) -> str:
    """Return the one string of a JSON document whose key names an answer ("caption", "text")."""
    stripped = text.strip()
    if not stripped or stripped[0] not in '{["' or stripped[-1] not in '}]"':
        return text
    try:
        document = json.loads(stripped, strict=False)
    except (ValueError, RecursionError):
        return text
    found = _strings(document, named=True)
    answers = [value for value, is_named in found if is_named]
    if not found:
        return ""
    return answers[0] if len(answers) == 1 else text


def _strings(value: Any, *, named: bool, depth: int = 0) -> list[tuple[str, bool]]:
    """Return every string in a document, and whether its key names a text."""
    if isinstance(value, str):
        return [(value, named)]
    children: list[tuple[Any, bool]] = []
    if isinstance(value, dict):
        children = [(child, _TEXT_KEY.search(name) is not None) for name, child in value.items()]
    elif isinstance(value, list):
        children = [(child, named) for child in value]
    if depth > 8:  # noqa: PLR2004 - no caption lies deeper
        return []
    return [
        found
        for child, is_named in children
        for found in _strings(child, named=is_named, depth=depth + 1)
    ]


_ELEMENT = re.compile(
    r"\A<([a-z][\w:-]{0,30})(?:\s[^<>]{0,500})?>(.*)</\1\s*>\Z", re.IGNORECASE | re.DOTALL
)
_LINE_BREAKS = re.compile(r"\A(?:\s*<br\s*/?>)+|(?:<br\s*/?>\s*)+\Z", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:[a-z]{2,8}\d{0,2}|#\d{2,6}|#x[0-9a-f]{2,6});", re.IGNORECASE)
_LATEX = re.compile(
    r"\A\s*\$*\s*\\(?:boxed|text|textbf|textit|caption|emph)\s*\{(.*)\}\s*\$*\s*\Z", re.DOTALL
)


def _markup(text: str) -> str:
    """Remove tags or a LaTeX command around the whole text, and unescape HTML entities."""
    stripped = _LINE_BREAKS.sub("", text.strip())
    if (match := _ELEMENT.match(stripped)) and f"</{match[1]}".lower() not in match[2].lower():
        return match[2]
    if match := _LATEX.match(stripped):
        return match[1]
    if "<" not in stripped and _ENTITY.search(stripped):
        return html.unescape(stripped)
    return stripped if stripped != text.strip() else text


def _label(text: str) -> str:
    for pattern in (talk.FINAL_LABEL, talk.LABEL):
        match = pattern.match(text.strip())
        rest = text.strip()[match.end() :] if match else ""
        # Another label follows: two parts, neither of which is clearly the answer.
        later = [rest[slice(*span)] for span in split_sentences(rest)[1:]]
        is_part = any(map(talk.LABEL.match, later)) or talk.SEVERAL.search(" ".join(text.split()))
        if rest and not is_part and not any(map(_FIELD_LINE.match, rest.splitlines()[1:])):
            return rest
    return text


def _talk(text: str) -> str:
    """Remove an introduction of one caption, and offers after it."""
    stripped = text.strip()
    if talk.SEVERAL.search(" ".join(stripped.split())):
        return text
    for pattern in (talk.LEAD_IN, talk.OPENER):
        match = pattern.match(stripped)
        if match and match.end():
            return stripped[match.end() :]
    fenced, mark, after = stripped.rpartition("```")  # which ends no sentence
    if "```" in fenced and talk.OFFER.match(after):
        return fenced + mark
    spans = split_sentences(stripped)
    kept = len(spans)
    while kept and talk.OFFER.match(stripped[slice(*spans[kept - 1])]):
        kept -= 1
    if kept == len(spans):
        return text
    return stripped[: spans[kept - 1][1]] if kept else ""


_HEADING = re.compile(r"(?m)^[ \t]*(?:\*\*|__)([^*_\n]{1,80}?):?(?:\*\*|__):?[ \t]*$")
_STRONG = re.compile(r"(?<![\w*_])(\*\*|__)(?=\S)([^*_\n]{1,2000}?)(?<=\S)\1(?![\w*_])")
_EMPHASIS = re.compile(r"(?<![\w*\\])\*(?=[^\s*])([^*\n]{1,2000}?)(?<=[^\s*])\*(?![\w*])")
_CODE = re.compile(r"(?<!`)`(?=\S)([^`\n]{1,500}?)(?<=\S)`(?!`)")
_RULES = re.compile(r"\A(?:[-*_]{3,}[ \t]*\n+)+|(?:\n+[ \t]*[-*_]{3,}[ \t]*)+\Z")
_FIRST_MARK = re.compile(r"\A(?:[-*+\u2022>]|#{1,6})[ \t]+(?=\S)")


def _markdown(text: str) -> str:
    """Remove paired emphasis, and the mark of a heading, quote or list item in a single line."""
    stripped = _RULES.sub("", text.strip())
    num_lines = len([line for line in stripped.splitlines() if line.strip()])
    if num_lines > 1:
        # A bold line is a title: mark it as one, so that joining the lines does not hide it.
        if _label(stripped_label := _HEADING.sub(r"\1:", stripped, count=1)) != stripped_label:
            stripped = stripped_label
        stripped = _HEADING.sub(r"## \1", stripped)
    elif not talk.SEVERAL.search(stripped) and not re.search(r"\s[-*+\u2022>]\s", stripped):
        stripped = _FIRST_MARK.sub("", stripped)
    for pattern, group in ((_STRONG, r"\2"), (_EMPHASIS, r"\1"), (_CODE, r"\1")):
        stripped = pattern.sub(group, stripped)
    return stripped if stripped != text.strip() else text


_ASSISTANT = re.compile(r"\Aassistant\s*:\s*", re.IGNORECASE)
_FIRST_TOKEN = re.compile(r"\s*([<\[][^<>\[\]\s]{1,40}[>\]])(?:\s*assistant\b(?=\s))?")
_LAST_TOKEN = re.compile(r"([<\[][^<>\[\]\s]{1,40}[>\]])\s*\Z")
_CUT_ANSWER = re.compile(
    r"\A<(?:answer|response|output|conclusion|final)>(?!.*</)", re.IGNORECASE | re.DOTALL
)


def _tokens(text: str) -> str:
    """Remove special tokens at either end, and "Assistant:"."""
    line = text
    while (first := _FIRST_TOKEN.match(line)) and not strip_special_tokens(first[1])[0]:
        line = line[first.end() :].lstrip()
    while (last := _LAST_TOKEN.search(line)) and not strip_special_tokens(last[1])[0]:
        line = line[: last.start()].rstrip()
    line = _CUT_ANSWER.sub("", line.lstrip()) if line.lstrip().startswith("<") else line
    return _ASSISTANT.sub("", line.lstrip()) if line != text or _ASSISTANT.match(line) else text


_QUOTES = (
    ('"', '"'),
    ("'", "'"),
    ("`", "`"),
    ("\u201c", "\u201d"),
    ("\u201e", "\u201c"),
    ("\u2018", "\u2019"),
    ("\u00ab", "\u00bb"),
    ("\u300c", "\u300d"),
    ("\u300e", "\u300f"),
)


def _quotes(text: str) -> str:
    """Remove quotes around the whole text."""
    line = text.strip()
    for opening, closing in _QUOTES:
        inner = line[1:-1]
        whole = len(line) > 1 and line[0] == opening and line[-1] == closing
        if whole and opening not in inner and closing not in inner:
            return inner.strip()
    return text


_LAYERS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("special tokens", _tokens),
    ("a code fence", _fence),
    ("JSON", _json),
    ("markup", _markup),
    ("Markdown", _markdown),
    ("a label", _label),
    ("talk", _talk),
    ("quotes", _quotes),
)
