"""One text of the review queue: the image, the text, and one button per action."""

from __future__ import annotations

import hashlib
from typing import Literal

import streamlit as st

from curator.browse.catalog import Catalog
from curator.browse.review_queue import QueueItem, QueueOrder, item_at, next_item
from curator.core.clock import iso
from curator.core.errors import CuratorError
from curator.edits import log as edit_log
from curator.edits.history import MAX_CHARS, Action, Edit
from ui.shared import context, parts

_SIDE_PX = 900
Kind = Literal["primary", "secondary"]

_SAID = "review_said"
_MINE = "review_mine"
"""Edits of this session with their places in the queue, newest last; for Undo."""
_EDITING = "review_editing"
_HEARD = "review_heard"
"""Set once this session has drawn its buttons: it ignores clicks on buttons from before that."""
DONE = {"edit": "edited", "accept": "accepted", "reject": "rejected"}


def show(catalog: Catalog, order: QueueOrder, place: int, who: str) -> None:
    """Draw the text at one place of the queue."""
    total = catalog.count(order.filter)
    item = item_at(catalog, order, place)
    if item is None:
        _end(catalog, order, total)
        return
    left, right = st.columns([1.15, 1], gap="large")
    with left, st.container(key="review_picture"):
        st.image(context.thumbnail(item.sample.shard, item.sample.row, _SIDE_PX), width="stretch")
    with right:
        st.html(_head(item, total))
        _text(item)
        if not who:
            st.info("Type your name in the sidebar first: every edit is signed.")
        if st.session_state.get(_EDITING) == item.sample:
            _form(catalog, order, item, who)
        else:
            _buttons(catalog, order, item, who)
        _others(catalog, order, item, who)
        _past(catalog, item)


def show_result() -> None:
    """Draw the result of the last click, or why it did nothing."""
    said = st.session_state.pop(_SAID, None)
    if isinstance(said, CuratorError):
        parts.error(said)
    elif said:
        st.toast(said)


def tell(what: str | CuratorError) -> None:
    """Set the message shown at the top of the next run: callbacks run before anything is drawn."""
    st.session_state[_SAID] = what


def _code(name: str) -> str:
    """Escape a name for Markdown: shards may have any name."""
    return f"`{name.replace('`', '')}`"


# -- the text --------------------------------------------------------------------------------------


def _head(item: QueueItem, total: int) -> str:
    badges = [parts.badge_html(item.action, "bad" if item.given is None else "")]
    if item.last is not None:
        kind = {"accept": "good", "reject": "bad", "edit": "warn"}[item.last.action]
        badges.append(parts.badge_html(DONE[item.last.action], kind))
    where = f"{item.place + 1:,} of {total:,} · {item.sample.key} · {item.sample.shard}"
    place = f'<div class="cc-small">{parts.escaped(where)}</div>'
    return f'<div class="cc-head">{"".join(badges)}</div>{place}'


def _text(item: QueueItem) -> None:
    is_rewritten = item.text != item.given
    if is_rewritten:
        parts.worddiff(item.given, item.text)
    parts.caption(
        item.text,
        source=item.last.who if is_rewritten and item.last else item.source,
        score=None if is_rewritten else item.score,
        muted=item.is_rejected,
    )
    if item.given is None:
        st.html(f'<div class="cc-small">{parts.escaped(item.because)}</div>')


def _others(catalog: Catalog, order: QueueOrder, item: QueueItem, who: str) -> None:
    """Draw the other texts of the image; each can be chosen instead."""
    sample = catalog.sample(item.sample.shard, item.sample.row)
    seen = {item.text}
    shown = 0
    for written in sample.texts:
        if written.text is None or written.text in seen:
            continue
        seen.add(written.text)
        shown += 1
        if shown == 1:
            parts.section("Other texts")
        left, right = st.columns([4, 1], vertical_alignment="center")
        with left:
            scores = [j.score for j in written.judgements if j.score is not None]
            parts.caption(
                written.text,
                source=written.source or "this version",
                score=scores[0] if scores else None,
                muted=True,
            )
        right.button(
            "Use",
            key=_about(item, f"use_{shown}"),
            shortcut=str(shown) if shown < 10 else None,  # noqa: PLR2004 - keys with one digit
            disabled=not who,
            on_click=_record,
            args=(catalog, order, item, who, "edit", written.text),
        )


def _past(catalog: Catalog, item: QueueItem) -> None:
    past = edit_log.history(catalog.store, item.sample.shard)
    here = [edit for edit in past.edits if edit.sample == item.sample]
    if not here:
        return
    parts.section("History")
    parts.facts({f"{edit.id} · {iso(edit.created)}": _line(edit) for edit in reversed(here)})


def _line(edit: Edit) -> str:
    if edit.undoes is not None:
        return f"{edit.who} undid {edit.shard}#{edit.undoes}"
    wrote = f": {edit.new_text}" if edit.new_text is not None else ""
    return f"{edit.who} {DONE[edit.action]} it{wrote}"


# -- actions ---------------------------------------------------------------------------------------


def _about(item: QueueItem, what: str) -> str:
    """Return the key of a button; it changes whenever the button is about another text.

    Streamlit connects a button to its callback when the script draws it, before the browser shows
    it. With a constant key, a second press in between would act on a text not yet on the screen;
    with this key it is about a button that no longer exists, and nothing happens.
    """
    seen = (item.sample, item.text, item.last.number if item.last else None)
    return f"{what}_{hashlib.sha256(repr(seen).encode()).hexdigest()[:16]}"


def _buttons(catalog: Catalog, order: QueueOrder, item: QueueItem, who: str) -> None:
    has_text = item.text is not None

    def decide(action: Action, label: str, shortcut: str, kind: Kind = "secondary") -> bool:
        return st.button(
            label,
            key=_about(item, action),
            shortcut=shortcut,
            type=kind,
            disabled=not (who and has_text),
            on_click=_record,
            args=(catalog, order, item, who, action),
        )

    with st.container(horizontal=True, key="review_actions"):
        pressed = [decide("accept", "Accept", "a", "primary"), decide("reject", "Reject", "x")]
        pressed.append(
            st.button(
                "Edit",
                key=_about(item, "edit"),
                shortcut="e",
                disabled=not who,
                on_click=_begin,
                args=(item,),
            )
        )
        st.button(
            "Undo",
            shortcut="u",
            disabled=not (who and st.session_state.get(_MINE)),
            on_click=_undo,
            args=(catalog, who),
            help="Undo the last edit of this session",
        )
    if any(pressed) and _HEARD not in st.session_state:
        st.info("The dashboard was restarted and did not record that click: please press again.")
    st.session_state[_HEARD] = True
    with st.container(horizontal=True, key="review_moves"):
        st.button(
            "Back",
            shortcut="Left",
            type="tertiary",
            disabled=item.place == 0,
            on_click=_go,
            args=(item.place - 1,),
        )
        st.button(
            "Skip",
            shortcut="Right",
            type="tertiary",
            on_click=_on,
            args=(catalog, order, item.place + 1),
        )


def _form(catalog: Catalog, order: QueueOrder, item: QueueItem, who: str) -> None:
    widget = f"review_text_{item.place}"
    with st.form("review_form", border=False):
        st.text_area("New text", item.text or "", key=widget, max_chars=MAX_CHARS, height=140)
        with st.container(horizontal=True):
            st.form_submit_button(
                "Save",
                key=_about(item, "save"),
                type="primary",
                disabled=not who,
                on_click=_save,
                args=(catalog, order, item, who, widget),
            )
            st.form_submit_button("Cancel", on_click=_begin, args=(None,))


def _begin(item: QueueItem | None) -> None:
    st.session_state[_EDITING] = None if item is None else item.sample


def _save(catalog: Catalog, order: QueueOrder, item: QueueItem, who: str, widget: str) -> None:
    _record(catalog, order, item, who, "edit", str(st.session_state[widget]))


def _record(
    catalog: Catalog,
    order: QueueOrder,
    item: QueueItem,
    who: str,
    action: Action,
    new_text: str | None = None,
) -> None:
    """Record one edit of the text on the screen and go to the next; stay here if it is refused."""
    try:
        made = edit_log.add(catalog.store, item.draft(action, new_text), who=who)
    except CuratorError as error:
        tell(error)
        return
    _begin(None)
    st.session_state.setdefault(_MINE, []).append((made.id, item.place))
    tell(f"{DONE[action]}: {_code(made.id)} is saved")
    _on(catalog, order, item.place + 1)


def _undo(catalog: Catalog, who: str) -> None:
    edit_id, place = st.session_state[_MINE].pop()
    try:
        edit_log.undo(catalog.store, edit_id, who=who)
    except CuratorError as error:
        tell(error)
        return
    tell(f"{_code(edit_id)} is undone")
    _go(place)


def _on(catalog: Catalog, order: QueueOrder, place: int) -> None:
    """Go to the next text that has no review."""
    found = next_item(catalog, order, place)
    _go(found.place if found else catalog.count(order.filter))


def _go(place: int) -> None:
    _begin(None)
    context.put("i", place)


def _end(catalog: Catalog, order: QueueOrder, total: int) -> None:
    if not total:
        parts.empty("No text matches", "Choose other conditions above.")
        return
    parts.empty(
        "The queue is finished", "Make a version with the edits, or choose another queue above."
    )
    with st.container(horizontal=True):
        st.button("From the start", on_click=_on, args=(catalog, order, 0))
        st.button("Back", shortcut="Left", type="tertiary", on_click=_go, args=(total - 1,))
