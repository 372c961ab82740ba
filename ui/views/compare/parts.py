"""Parts of the page Compare: tables, words, one sample in both versions.

All HTML is made of numbers and of texts that went through `parts.escaped`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import streamlit as st

from curator.compare.marks import Part, text_parts
from curator.compare.values import Change, ComparedText, Diff, LostItems, Side
from curator.compare.words import WordCount
from curator.policy.model import ALT_TEXT
from ui.shared import context, parts

_STYLE = Path(__file__).resolve().parents[2] / "theme" / "compare.css"
NONE = "\u2013"
"""Shown where a figure is missing."""

_PICTURE_PX, _SMALL_PX = 384, 128
_NUM_LOST = 8
_PERCENT_WITH_DECIMAL_BELOW = 0.1


def style() -> None:
    """Write the CSS of these parts; call it once per page."""
    st.html(_STYLE)


def share(value: float, total: float = 1.0) -> str:
    """Format a fraction as percent, with a decimal where it is small; 0 % of an empty total."""
    found = value / total if total else 0.0
    return f"{found:.1%}" if 0 < found < _PERCENT_WITH_DECIMAL_BELOW else f"{found:.0%}"


def number(value: float | None, digits: int = 3) -> str:
    """Format a figure with a real minus sign; a dash if it is None."""
    return NONE if value is None else f"{value:,.{digits}f}".replace("-", "\u2212")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Draw a table with labels on the left and figures on the right."""
    cells = "".join(f"<th>{parts.escaped(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{parts.escaped(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    st.html(f'<table class="cc-table"><tr>{cells}</tr>{body}</table>')


def lead(sentence: str, note: str = "") -> None:
    """Draw the result of a comparison as one large sentence."""
    more = f'<p class="cc-note">{parts.escaped(note)}</p>' if note else ""
    st.html(f'<p class="cc-lead">{parts.escaped(sentence)}</p>{more}')


def note(text: str) -> None:
    """Draw a remark in small type."""
    st.html(f'<p class="cc-note">{parts.escaped(text)}</p>')


def words(title: str, found: Sequence[WordCount], counts: Sequence[int], none: str) -> None:
    """Draw words with their counts."""
    chips = "".join(
        f'<span class="cc-word">{parts.escaped(word.word)}<small>{count:,}</small></span>'
        for word, count in zip(found, counts, strict=True)
    )
    shown = chips or f'<span class="cc-none">{parts.escaped(none)}</span>'
    st.html(f'<div class="cc-sub">{parts.escaped(title)}</div><p class="cc-words">{shown}</p>')


def openers(diff: Diff) -> None:
    """Draw how texts begin: the fraction of texts by their first two words."""
    old, new = max(diff.old.num_texts, 1), max(diff.new.num_texts, 1)
    table(
        ("texts begin with", diff.old.name, diff.new.name),
        [
            (f"{found.word} …", share(found.old, old), share(found.new, new))
            for found in diff.vocabulary.openers
        ],
    )


def change(diff: Diff, found: Change, *, place: int) -> None:
    """Draw one sample: its image and both versions' texts with word differences.

    `place` is its position in the list.
    """
    before, after = text_parts(found)
    reason = f"{found.new_action} ({found.because})"
    old = _side(diff.old, found.old, before, found.old_action, tag="del")
    new = _side(diff.new, found.new, after, reason, tag="ins")
    with st.container(border=True, key=f"change_{place}"):
        picture = context.thumbnail(found.shard, found.row, _PICTURE_PX)
        st.image(picture, width="stretch")
        st.html(f'<div class="cc-sides"><div>{old}</div><div>{new}</div></div>{_foot(found)}')


def _side(
    side: Side,
    texts: Sequence[ComparedText],
    marked: Sequence[Sequence[Part]],
    else_: str,
    *,
    tag: str,
) -> str:
    whose = parts.escaped(side.name)
    blocks = [
        f'<div class="cc-side cc-{tag}"><div class="cc-head">'
        f'<span class="cc-source">{whose} · {parts.escaped(source_name(text.source))}</span>'
        f"{'' if text.score is None else parts.score_html(text.score)}</div>"
        f'<div class="cc-text" dir="auto">{" ".join(_part(one, tag) for one in pieces)}</div></div>'
        for text, pieces in zip(texts, marked, strict=True)
    ]
    if blocks:
        return "".join(blocks)
    return (
        f'<div class="cc-side cc-{tag}"><div class="cc-head"><span class="cc-source">'
        f'{parts.escaped(side.name)}</span></div><div class="cc-none">no text: '
        f"{parts.escaped(else_)}</div></div>"
    )


def _part(piece: Part, tag: str) -> str:
    shown = parts.escaped(piece.words)
    kind = "removed" if tag == "del" else "added"
    return f'<{tag} class="cc-{kind}">{shown}</{tag}>' if piece.changed else shown


def source_name(source: str) -> str:
    """Return the name of a source for people."""
    return "alt text" if source == ALT_TEXT else source


def _foot(found: Change) -> str:
    gain = "" if found.gain is None else parts.score_html(found.gain, delta=True)
    shown = {text.text for text in (*found.old, *found.new)}
    alt = ""
    if found.alt_text and found.alt_text not in shown:
        alt = f'<span class="cc-alt" dir="auto">alt text: {parts.escaped(found.alt_text)}</span>'
    place = parts.escaped(f"{found.shard}/{found.key}")
    return f'<div class="cc-foot">{gain}<code>{place}</code>{alt}</div>'


def lost(examples: Sequence[LostItems]) -> None:
    """Draw samples whose texts no longer contain a name or number of the alt text."""
    for column, some in zip(
        st.columns(2, gap="large"), (examples[::2], examples[1::2]), strict=True
    ):
        with column:
            for found in some[: _NUM_LOST // 2]:
                image, words = st.columns([1, 4], vertical_alignment="center")
                with image:
                    st.image(context.thumbnail(found.shard, found.row, _SMALL_PX), width="stretch")
                chips = "".join(
                    f'<span class="cc-word">{parts.escaped(item)}</span>' for item in found.items
                )
                before, after = parts.escaped(found.alt_text), parts.escaped(found.new)
                words.html(
                    f'<div class="cc-lost">{chips}<div dir="auto">{before}</div>'
                    f'<div class="cc-note" dir="auto">→ {after}</div></div>'
                )


def choice(letter: str, text: str) -> None:
    """Draw one of the texts to choose from."""
    st.html(
        f'<div class="cc-choice"><span class="cc-letter">{parts.escaped(letter)}</span>'
        f'<div dir="auto">{parts.escaped(text)}</div></div>'
    )
