"""Parts of pages: escaped texts, tiles, badges, word differences, empty states.

Captions come from the web and from models, so they may contain anything. They reach the browser
only through `escaped`, which leaves no markup and shows invisible characters (controls, zero width,
direction changes) as marks. `st.markdown`, labels and image captions are not safe for them: their
Markdown loads remote images.
"""

from __future__ import annotations

import html
import re
import unicodedata
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import streamlit as st

from curator.compare.marks import word_changes
from curator.core.errors import CuratorError

_THEME = Path(__file__).resolve().parents[1] / "theme"
_LINE_BREAKS = re.compile(r"\r\n|[\n\r\u2028\u2029\x0b\x0c\x85]")
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode categories of invisible characters and of those that move the text around them."""
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Invisible characters of other categories."""
_JOINERS = ("\u200c", "\u200d")
_VIRAMA = 9  # canonical combining class


def style() -> None:
    """Write the CSS of all parts; call it once per page, first."""
    st.html(_THEME / "parts.css")


# -- text -----------------------------------------------------------------------------------------


def escaped(text: str) -> str:
    """Return `text` as inert HTML in which every character is visible.

    Line breaks become <br>; a character without a glyph becomes a mark with its code point.
    """
    lines = _LINE_BREAKS.split(text)
    return "<br>".join("".join(map(_shown, line, " " + line)) for line in lines)


def _shown(char: str, before: str) -> str:
    if char in _JOINERS and _joins(before):
        return char
    if char == "\t" or (unicodedata.category(char) not in _HIDDEN and char not in _BLANK):
        return html.escape(char, quote=True)
    name = unicodedata.name(char, "control character").lower()
    return f'<span class="cc-mark" title="{html.escape(name)}">U+{ord(char):04X}</span>'


def _joins(before: str) -> bool:
    """Whether a joiner after this character is part of the spelling: emoji, Arabic, Indic."""
    return (
        unicodedata.category(before) in ("So", "Sk")
        or before == "\ufe0f"
        or unicodedata.bidirectional(before) == "AL"
        or unicodedata.combining(before) == _VIRAMA
    )


def caption(
    text: str | None, *, source: str | None = None, score: float | None = None, muted: bool = False
) -> None:
    """Draw a text with its author and score above it."""
    st.html(caption_html(text, source=source, score=score, muted=muted))


def caption_html(
    text: str | None, *, source: str | None = None, score: float | None = None, muted: bool = False
) -> str:
    """Return the HTML of `caption`."""
    head = []
    if source is not None:
        head.append(f'<span class="cc-source">{escaped(source)}</span>')
    if score is not None:
        head.append(score_html(score))
    top = f'<div class="cc-head">{"".join(head)}</div>' if head else ""
    body = '<span class="cc-none">no text</span>' if text is None else escaped(text)
    kind = "cc-caption cc-muted" if muted else "cc-caption"
    return f'<div class="{kind}">{top}<div class="cc-text" dir="auto">{body}</div></div>'


def score_html(score: float | None, *, delta: bool = False) -> str:
    """Return a badge with a score, or with a score difference coloured by its sign."""
    if score is None:
        return '<span class="cc-score cc-none">unscored</span>'
    if not delta:
        return f'<span class="cc-score">{score:.3f}</span>'
    kind = "cc-up" if score > 0 else "cc-down" if score < 0 else ""
    return f'<span class="cc-score {kind}">{score:+.3f}</span>'


def badge_html(text: str, kind: str = "") -> str:
    """Return a small label; `kind` is good, bad, warn or ""."""
    name = {"good": "cc-up", "bad": "cc-down", "warn": "cc-warn"}.get(kind, "")
    return f'<span class="cc-badge {name}">{escaped(text)}</span>'


def worddiff(old: str | None, new: str | None) -> None:
    """Draw two texts merged word by word: removed, added and unchanged words."""
    st.html(worddiff_html(old, new))


def worddiff_html(old: str | None, new: str | None) -> str:
    """Return the HTML of `worddiff`."""
    pieces = []
    for kind, words in word_changes(old or "", new or ""):
        tag = _TAGS[kind]
        pieces.append(f'<{tag} class="cc-{kind}">{escaped(words)}</{tag}>')
    text = " ".join(pieces) or '<span class="cc-none">no text</span>'
    return f'<div class="cc-caption"><div class="cc-text" dir="auto">{text}</div></div>'


_TAGS = {"same": "span", "removed": "del", "added": "ins"}


def facts(pairs: Mapping[str, object]) -> None:
    """Draw names and values, one pair per line, both as text."""
    rows = "".join(
        f"<dt>{escaped(name)}</dt><dd>{escaped(str(value))}</dd>" for name, value in pairs.items()
    )
    st.html(f'<dl class="cc-facts">{rows}</dl>')


# -- blocks ---------------------------------------------------------------------------------------


def heading(title: str, about: str = "") -> None:
    """Draw the title of a page and one line about it."""
    line = f'<p class="cc-about">{escaped(about)}</p>' if about else ""
    st.html(f'<div class="cc-heading"><h1>{escaped(title)}</h1>{line}</div>')


def section(title: str, about: str = "") -> None:
    """Draw the title of a section."""
    line = f'<span class="cc-about">{escaped(about)}</span>' if about else ""
    st.html(f'<div class="cc-section"><h2>{escaped(title)}</h2>{line}</div>')


def metrics(values: Mapping[str, object], *, about: Mapping[str, str] | None = None) -> None:
    """Draw a row of figures with their names; `about` adds a remark to a figure, in small type."""
    cells = []
    for name, value in values.items():
        shown = f"{value:,}" if isinstance(value, int) else str(value)
        small = (about or {}).get(name, "")
        cells.append(
            f'<div class="cc-metric"><div class="cc-name">{escaped(name)}</div>'
            f'<div class="cc-value">{escaped(shown)}</div>'
            f'<div class="cc-small">{escaped(small)}</div></div>'
        )
    st.html(f'<div class="cc-metrics">{"".join(cells)}</div>')


def empty(title: str, what_to_do: str) -> None:
    """Draw what a page shows in place of an empty result: a title and what to do next."""
    st.html(
        f'<div class="cc-empty"><div class="cc-title">{escaped(title)}</div>'
        f"<div>{escaped(what_to_do)}</div></div>"
    )


def error(found: CuratorError) -> None:
    """Draw a CuratorError: what is wrong, what was done, what to do. No path: it may be private."""
    lines = [part for part in (found.did, found.hint) if part]
    rest = "".join(f"<div>{escaped(line)}</div>" for line in lines)
    st.html(
        f'<div class="cc-empty cc-error" role="alert"><div class="cc-title">{escaped(found.what)}'
        f'</div>{rest}<div class="cc-small">{escaped(found.reason)}</div></div>'
    )


def failed() -> None:
    """Draw any other error; its details are in the terminal of `curator ui`."""
    st.html(
        '<div class="cc-empty cc-error" role="alert"><div class="cc-title">Something went wrong'
        "</div><div>The details are in the terminal that runs curator ui. Nothing was changed; "
        "reload the page to try again.</div></div>"
    )


def tile(
    thumbnail: bytes,
    text: str | None,
    *,
    key: str,
    badges: Sequence[str] = (),
    muted: bool = False,
    opens: str | None = "Open",
    on_open: Callable[[], None] | None = None,
) -> bool:
    """Draw one cell of a `grid()`: image, badges (HTML made in this module), text.

    Args:
        thumbnail: a JPEG.
        text: below the image; None says that there is none.
        key: of the tile, unique on the page.
        badges: shown above the text.
        muted: draw the text in a weaker colour.
        opens: name of the button that covers the whole tile; None for no button.
        on_open: called on a click before the page reruns, which saves a second run.

    Returns:
        Whether the tile was clicked.
    """
    with st.container(key=f"tile_{key}", gap=None):
        # Embedded in the page: 50 images by 50 requests take half a second more.
        picture = b64encode(thumbnail).decode()
        row = f'<div class="cc-head">{"".join(badges)}</div>' if badges else ""
        body = '<span class="cc-none">no text</span>' if text is None else escaped(text)
        kind = "cc-tile cc-muted" if muted else "cc-tile"
        st.html(
            f'<img class="cc-picture" src="data:image/jpeg;base64,{picture}" alt="">'
            f'<div class="{kind}">{row}<div class="cc-text" dir="auto">{body}</div></div>'
        )
        return opens is not None and st.button(
            opens, key=f"open_{key}", width="stretch", on_click=on_open
        )


def grid(name: str = "grid") -> st.delta_generator.DeltaGenerator:
    """Return a container whose tiles fill the width, as many per row as fit."""
    return st.container(key=f"grid_{name}", gap=None)


def pager(
    page: int,
    num_pages: int,
    *,
    key: str = "page",
    arrow_keys: bool = True,
    on_turn: Callable[[int], None] | None = None,
) -> int:
    """Draw buttons to the previous and the next page.

    Args:
        page: the current page, from 1.
        num_pages: at least 1.
        key: of the buttons.
        arrow_keys: bind them to the left and right keys; for one pager per page.
        on_turn: called with the wanted page before the script reruns.

    Returns:
        The wanted page.
    """
    left, right = ("Left", "Right") if arrow_keys else (None, None)
    with st.container(key=f"pager_{key}", horizontal=True, vertical_alignment="center"):
        back = st.button(
            "Back",
            key=f"{key}_back",
            disabled=page <= 1,
            shortcut=left,
            type="tertiary",
            on_click=on_turn,
            args=(page - 1,) if on_turn else None,
        )
        st.html(f'<div class="cc-pager">page {page:,} of {num_pages:,}</div>', width="content")
        on = st.button(
            "Next",
            key=f"{key}_next",
            disabled=page >= num_pages,
            shortcut=right,
            type="tertiary",
            on_click=on_turn,
            args=(page + 1,) if on_turn else None,
        )
    return min(max(page + int(on) - int(back), 1), num_pages)
