"""Review: edit captions one by one in a queue, many at once, and commit the edits as a version.

Each button records one edit, based on the text it showed: callbacks get the item that was on the
screen when the button was drawn, so a click never decides about a text that nobody saw.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import streamlit as st

from curator.browse.catalog import Catalog
from curator.browse.filters import Filter, Sort
from curator.browse.review_queue import QueueOrder, next_item
from curator.store.versions import Version
from ui.shared import context, parts
from ui.views.review import bulk, one

_CSS = Path(__file__).resolve().parents[2] / "theme" / "review.css"
_ORDERS = {
    "score": "worst score first",
    "gain": "smallest gain over the alt text first",
    "length": "shortest first",
    "shard": "in shard order",
    "random": "random",
}
_KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "used": ("texts in use", ("captioned", "kept")),
    "none": ("samples without a text", ("dropped", "quarantined")),
    "all": ("everything", ()),
}
_VIEWS = {"one": "One by one", "many": "Find and replace", "make": "Make a version"}


def page() -> None:
    """Draw the page."""
    st.html(_CSS)
    parts.heading("Review", "Accept, reject and rewrite captions; every edit can be undone")
    who = context.reviewer()
    left, right = st.columns([1, 2], vertical_alignment="bottom", gap="medium")
    with left:
        version = context.version()
    with right:
        view = context.view("view", "View", _VIEWS, name="review_view")
    store = context.workspace().store
    one.show_result()
    if view == "one":
        _one_by_one(context.catalog(version), version, who)
    elif view == "many":
        catalog = context.catalog(version)
        bulk.find_and_replace(catalog, version, who, _narrowed(catalog))
    else:
        bulk.make_version(store, version, who)


# -- the queue -------------------------------------------------------------------------------------


def _one_by_one(catalog: Catalog, version: Version, who: str) -> None:
    order = _order(catalog)
    start = context.state("i", -1)
    if start < 0 or _is_another(order, version):
        first = next_item(catalog, order, 0)
        start = first.place if first else catalog.count(order.filter)
        context.put("i", start)
    one.show(catalog, order, start, who)


def _is_another(order: QueueOrder, version: Version) -> bool:
    """Whether another queue was chosen since the last run; it then starts from its beginning."""
    now = (version.id, order)
    before = st.session_state.get("review_queue", now)
    st.session_state["review_queue"] = now
    return bool(before != now)


def _order(catalog: Catalog) -> QueueOrder:
    facets = catalog.facets()
    columns = st.columns([1.4, 1.1, 1.3, 1.3, 0.7], gap="small", vertical_alignment="bottom")
    with columns[0]:
        default = "score" if facets.scores else "shard"
        sort = context.pick(
            "order", "Order", list(_ORDERS), default=default, title=lambda o: _ORDERS[o]
        )
    with columns[1]:
        kind = context.pick(
            "which", "Which", list(_KINDS), default="used", title=lambda name: _KINDS[name][0]
        )
    with columns[2]:
        sources = _written_by(catalog)
    with columns[3]:
        text = _typed("text", "Containing")
    with columns[4]:
        seed = _seed(is_random=sort == "random")
    wanted = Filter(
        actions=_KINDS[kind][1],
        sources=sources,
        text=text,
        seed=seed if sort == "random" else None,
    )
    return QueueOrder(filter=wanted, sort=cast("Sort", sort))


def _narrowed(catalog: Catalog) -> Filter:
    """Return the queue's conditions, which also limit find-and-replace; the widgets are shared."""
    left, right, _ = st.columns([1.3, 1.3, 3.2], gap="small", vertical_alignment="bottom")
    with left:
        sources = _written_by(catalog)
    with right:
        return Filter(sources=sources, text=_typed("text", "Containing"))


def _written_by(catalog: Catalog) -> tuple[str, ...]:
    names = ["", *catalog.facets().sources]
    chosen = context.pick(
        "source", "Written by", names, default="", title=lambda name: name or "anyone"
    )
    return (chosen,) if chosen else ()


def _typed(key: str, label: str) -> str:
    widget = f"review_{key}"
    if widget not in st.session_state:
        st.session_state[widget] = context.state(key, "")
    typed = str(st.text_input(label, key=widget, max_chars=200, placeholder="any text"))
    context.put(key, typed)
    return typed


def _seed(*, is_random: bool) -> int:
    widget = "review_seed"
    if widget not in st.session_state:
        st.session_state[widget] = context.state("seed", 0)
    seed = int(st.number_input("Seed", key=widget, min_value=0, step=1, disabled=not is_random))
    context.put("seed", seed if is_random else None)
    return seed


context.run(page)
