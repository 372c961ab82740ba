"""Inspect: a grid of the images and texts of one version, filtered and sorted; one sample enlarged.

The filters, the order, the page number and the open sample are in the URL.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import polars as pl
import streamlit as st

from curator.browse.catalog import Catalog
from curator.browse.filters import Filter, Sort
from curator.edits.apply import HUMAN
from curator.policy.model import ALT_TEXT
from ui.shared import context, parts
from ui.views.inspect import sample
from ui.views.inspect.filters import active_html, ask, ask_order

_PER_PAGE = 50
_ASKED = "inspect_asked"
_WRITERS = {ALT_TEXT: "alt text", HUMAN: "edited"}


def page() -> None:
    """Draw the page."""
    left, middle, right = st.columns([4, 3, 2], vertical_alignment="bottom", gap="medium")
    with right:
        version = context.version()
    catalog = context.catalog(version)
    asked = ask(catalog)
    with middle:
        sort, falling, seed = ask_order()
    asked = replace(asked, seed=seed)
    _start_anew_if_changed((version.number, asked, sort, falling))
    with left:
        found, everything = catalog.count(asked), catalog.count(Filter())
        parts.heading("Inspect", f"{found:,} of {everything:,} texts in {version.name}")
    if not found:
        st.html(f'<div class="cc-head">{active_html(asked)}</div>')
        parts.empty("No text matches these filters", "Remove a filter, or clear them all.")
    elif context.state("sample", ""):
        _one(catalog, asked, sort, falling)
    else:
        _many(catalog, asked, sort, falling)


def _start_anew_if_changed(asked: tuple[object, ...]) -> None:
    """Go to the first page when the filters changed: they give another list."""
    before = st.session_state.setdefault(_ASKED, asked)
    if before != asked:
        st.session_state[_ASKED] = asked
        for key in ("page", "sample", "at"):
            context.put(key, None)


# -- the grid -------------------------------------------------------------------------------------


def _many(catalog: Catalog, asked: Filter, sort: Sort, falling: bool) -> None:
    num_pages = -(-catalog.count(asked) // _PER_PAGE)
    # The page number may be past the end: the filter got narrower since it was chosen.
    number = min(max(context.state("page", 1), 1), num_pages)
    first = (number - 1) * _PER_PAGE
    found = catalog.page(asked, sort, descending=falling, start=first, count=_PER_PAGE)
    with st.container(horizontal=True, vertical_alignment="center"):
        _turn(number, num_pages, key="top")
        st.html(f'<div class="cc-head cc-found">{active_html(asked)}</div>', width="content")
    _grid(found.rows, first=first, is_scored=catalog.facets().scores is not None)
    _turn(number, num_pages, key="end")


def _turn(number: int, num_pages: int, *, key: str) -> None:
    with st.container(width="content"):
        parts.pager(
            number, num_pages, key=f"page_{key}", arrow_keys=key == "top", on_turn=_show_page
        )


def _show_page(number: int) -> None:
    context.put("page", number if number > 1 else None)


def _grid(rows: pl.DataFrame, *, first: int, is_scored: bool) -> None:
    pictures = context.thumbnails(list(rows.select("shard", "row").iter_rows()))
    with parts.grid("inspect"):
        for place, (row, picture) in enumerate(
            zip(rows.iter_rows(named=True), pictures, strict=True)
        ):
            text = row["text"]
            parts.tile(
                picture,
                row["alt_text"] if text is None else text,
                key=str(place),
                badges=_badges(row, is_scored=is_scored),
                muted=text is None,
                on_open=partial(_open, row["shard"], row["row"], first + place),
            )


def _badges(row: dict[str, object], *, is_scored: bool) -> list[str]:
    action, score, gain = row["action"], row["score"], row["gain"]
    badges = []
    if action in ("dropped", "quarantined"):
        badges.append(parts.badge_html(str(action), "warn" if action == "dropped" else "bad"))
        badges.append(parts.badge_html(str(row["because"] or "")))
    else:
        if is_scored:
            badges.append(parts.score_html(score if isinstance(score, float) else None))
        badges.append(parts.badge_html(_WRITERS.get(str(row["source"]), "generated")))
    if isinstance(gain, float) and action == "captioned":
        badges.append(parts.score_html(gain, delta=True))
    return badges


def _open(shard: str, row: int, place: int) -> None:
    context.put("sample", f"{shard}/{row}")
    context.put("at", place)


# -- one sample -----------------------------------------------------------------------------------


def _one(catalog: Catalog, asked: Filter, sort: Sort, falling: bool) -> None:
    shard, _, row = context.state("sample", "").rpartition("/")
    at = context.state("at", -1)
    _step(catalog, asked, sort, falling, at)
    sample.show(catalog, shard, int(row) if row.isdigit() else -1)


def _step(catalog: Catalog, asked: Filter, sort: Sort, falling: bool, at: int) -> None:
    """Draw the buttons to the grid and to the previous and next sample in the grid's order."""
    total = catalog.count(asked)

    def go(place: int) -> None:
        found = catalog.page(asked, sort, descending=falling, start=place, count=1).rows
        if len(found):
            _open(found["shard"][0], found["row"][0], place)

    with st.container(horizontal=True, vertical_alignment="center", key="steps"):
        st.button(
            "Back to the grid",
            shortcut="Escape",
            type="tertiary",
            key="close",
            on_click=_close,
            args=(at,),
        )
        if at < 0:
            return
        st.button(
            "Previous",
            shortcut="Left",
            disabled=at < 1,
            key="previous",
            on_click=go,
            args=(at - 1,),
        )
        st.html(f'<div class="cc-pager">{at + 1:,} of {total:,}</div>', width="content")
        st.button(
            "Next",
            shortcut="Right",
            disabled=at + 1 >= total,
            key="next",
            on_click=go,
            args=(at + 1,),
        )


def _close(at: int) -> None:
    context.put("sample", None)
    context.put("at", None)
    _show_page(at // _PER_PAGE + 1 if at > 0 else 1)


context.run(page)
