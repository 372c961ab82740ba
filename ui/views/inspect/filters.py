"""Filters of the page Inspect: sidebar widgets, bound to the URL, that make a `Filter`.

Every widget is bound to the URL under its key. Widgets drop options that the version lacks, such as
those of a link made for another version.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

import streamlit as st

from curator.browse.catalog import Catalog, Facets, Histogram
from curator.browse.filters import Filter, Sort
from curator.store.versions import ACTIONS
from ui.shared import parts, plots

ORDERS: dict[str, Sort] = {
    "shard order": "shard",
    "score": "score",
    "score gain": "gain",
    "length": "length",
    "random": "random",
}
_CHANGES = ("changed", "unchanged")
_STEP = 0.01
_BINS = 48
_PERCENT = (0, 100)
_EMPTY: dict[str, Any] = {
    "text": "",
    "percentile": _PERCENT,
    "action": [],
    "source": [],
    "because": [],
    "flag": [],
    "shard": [],
    "against": None,
    "change": "changed",
    "key": "",
}


def ask(catalog: Catalog) -> Filter:
    """Draw the filters and return their values."""
    facets = catalog.facets()
    with st.sidebar:
        st.html('<div class="cc-sub">Filters</div>')
        text = st.text_input(
            "Text contains", key="text", bind="query-params", placeholder="any text", max_chars=200
        )
        score = _score_range(facets)
        plot = st.container() if score else None
        if score:
            st.slider(
                "Score", *score, score, _STEP, key="score", bind="query-params", format="%.2f"
            )
        percentile = _percentile() if score else _PERCENT
        found = Filter(
            text=str(text).strip(),
            percentile=(float(percentile[0]), float(percentile[1])),
            **_lists(facets),
            **_change(catalog),
            key=str(
                st.text_input("Key begins with", key="key", bind="query-params", max_chars=200)
            ).strip(),
        )
        if score and plot is not None:
            found = _with_scores(
                found, cast("tuple[float, float]", st.session_state["score"]), score
            )
            with plot:
                _plot(catalog.histogram(found, _BINS, limits=score), found)
        st.button("Clear filters", on_click=_clear, args=(score,), disabled=found.is_open)
    return found


def _percentile() -> tuple[int, int]:
    low, high = st.slider(
        "Percentile in its source",
        *_PERCENT,
        _PERCENT,
        key="percentile",
        bind="query-params",
        format="%d %%",
        help="0 is the lowest score among the texts of the same source, 100 the highest.",
    )
    return int(low), int(high)


def _score_range(facets: Facets) -> tuple[float, float] | None:
    """Return the score range of the version, rounded outwards to steps of the slider."""
    if facets.scores is None:
        return None
    low, high = (round(score / _STEP, 3) for score in facets.scores)
    low, high = math.floor(low) * _STEP, math.ceil(high) * _STEP
    return round(low, 2), round(max(high, low + _STEP), 2)


def _with_scores(found: Filter, chosen: tuple[float, float], whole: tuple[float, float]) -> Filter:
    """Apply a score limit only if its slider was moved: an unmoved one keeps unscored texts."""
    return replace(
        found,
        score_min=chosen[0] if chosen[0] > whole[0] else None,
        score_max=chosen[1] if chosen[1] < whole[1] else None,
    )


def _plot(histogram: Histogram | None, found: Filter) -> None:
    if histogram is None:
        return
    low = -math.inf if found.score_min is None else found.score_min
    high = math.inf if found.score_max is None else found.score_max
    edges = histogram.edges
    first = sum(edge < low for edge in edges[1:])
    last = sum(edge <= high for edge in edges[:-1])
    labels = [f"{edges[0]:.2f}", f"{(edges[0] + edges[-1]) / 2:.2f}", f"{edges[-1]:.2f}"]
    st.html(plots.histogram_html(histogram.counts, labels=labels, inside=(first, last)))


def _lists(facets: Facets) -> dict[str, Any]:
    """Draw the conditions that are lists of names, with the number of rows of each name."""
    actions = [action for action in ACTIONS if action in facets.actions]
    chosen = {
        "actions": st.multiselect("Outcome", actions, key="action", bind="query-params"),
        "because": st.multiselect(
            "Because", list(facets.because), key="because", bind="query-params"
        ),
        "sources": st.multiselect(
            "Written by", list(facets.sources), key="source", bind="query-params"
        ),
        "flags": st.multiselect("Flags", list(facets.flags), key="flag", bind="query-params"),
        "shards": st.multiselect("Shards", list(facets.shards), key="shard", bind="query-params"),
    }
    return {name: tuple(map(str, values)) for name, values in chosen.items()}


def _change(catalog: Catalog) -> dict[str, Any]:
    others = [
        f"v{number}" for number in catalog.store.numbers() if number != catalog.version.number
    ]
    if not others:
        return {}
    against = st.selectbox(
        "Compared with", others, index=None, key="against", bind="query-params", placeholder="none"
    )
    if against is None:
        return {}
    kind = st.segmented_control(
        "Texts that are",
        _CHANGES,
        default="changed",
        key="change",
        bind="query-params",
        required=True,
    )
    return {"changed_from": int(against.removeprefix("v")), "unchanged": kind == "unchanged"}


def _clear(score: tuple[float, float] | None) -> None:
    for key, value in _EMPTY.items():
        if key in st.session_state:
            st.session_state[key] = value
    if score is not None:
        st.session_state["score"] = score


def ask_order() -> tuple[Sort, bool, int | None]:
    """Draw the order of the grid; return the sort key, whether highest comes first, the seed."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.selectbox("Order", list(ORDERS), key="order", bind="query-params", width=150)
        sort = ORDERS[str(name)]
        if sort == "random":
            seed = st.number_input(
                "Seed", 0, 999_999, 0, key="seed", bind="query-params", width=130
            )
            return sort, False, int(seed)
        falling = st.toggle("Highest first", key="falling", bind="query-params")
        return sort, bool(falling), None


_SAID = {
    "score_min": "score from",
    "score_max": "score up to",
    "percentile": "percentile",
    "sources": "written by",
    "text": "contains",
    "actions": "",
    "because": "because",
    "flags": "flag",
    "shards": "shard",
    "key": "key",
    "seed": "seed",
}


def active_html(found: Filter) -> str:
    """Return the active conditions as badges."""
    set_ = found.parts()
    said = [f"{_SAID[name]} {_shown(name, set_[name])}" for name in set_ if name in _SAID]
    if found.changed_from is not None:
        said.append(f"{'the same as in' if found.unchanged else 'not as in'} v{found.changed_from}")
    return "".join(parts.badge_html(one.strip()) for one in said)


def _shown(name: str, value: object) -> str:
    if name == "percentile" and isinstance(value, tuple):
        return f"{value[0]:g} to {value[1]:g}"
    return " or ".join(map(str, value)) if isinstance(value, tuple) else str(value)
