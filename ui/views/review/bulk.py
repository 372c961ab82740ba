"""Two views of the page Review: find and replace with a preview, and commit edits as a version."""

from __future__ import annotations

import polars as pl
import streamlit as st

from curator.browse.catalog import Catalog
from curator.browse.filters import Filter
from curator.browse.review_queue import tally, where
from curator.core.errors import CuratorError
from curator.core.stopping import StopRequest
from curator.edits import log as edit_log
from curator.steps.apply_edits import Applied, apply, how_to_score
from curator.steps.replace import Replacement, ReplacePreview, preview, replace_all
from curator.store.store import Store
from curator.store.versions import Version
from ui.shared import context, parts
from ui.views.review.one import DONE, tell

_ASKED = "review_replacement"
_BATCHES = "review_batches"
_APPLIED = "review_applied"
_NUM_EXAMPLES = 24
_NUM_ROWS = 500


# -- find and replace ------------------------------------------------------------------------------


def find_and_replace(catalog: Catalog, version: Version, who: str, among: Filter) -> None:
    """Draw the form and a preview of what it would change in the texts that pass the filter."""
    store = catalog.store
    with st.form("review_replace", border=False):
        left, right = st.columns(2, gap="medium")
        find = left.text_input("Find", key="review_find", max_chars=1000)
        put = right.text_input("Replace with", key="review_put", max_chars=1000)
        with st.container(horizontal=True, vertical_alignment="center"):
            is_regex = st.checkbox("Regular expression", key="review_regex")
            ignore_case = st.checkbox("Ignore case", key="review_case")
            is_asked = st.form_submit_button("Preview", type="primary")
    if is_asked:
        asked = Replacement(find=find, put=put, is_regex=is_regex, ignore_case=ignore_case)
        with st.spinner("Searching the texts …"):
            found = preview(
                store,
                version,
                asked,
                where=where(catalog, among),
                num_examples=_NUM_EXAMPLES,
            )
        st.session_state[_ASKED] = ((version.id, among), asked, found)
    shown_for, asked, found = st.session_state.get(_ASKED, (None, None, None))
    if shown_for == (version.id, among):
        _preview(catalog, version, asked, found, who, among)
    _batches(store, who)


def _preview(
    catalog: Catalog,
    version: Version,
    asked: Replacement,
    found: ReplacePreview,
    who: str,
    among: Filter,
) -> None:
    parts.metrics(
        {
            "texts would change": found.num_texts,
            "texts searched": found.num_searched,
            "samples searched": found.num_samples,
            "would be empty or too long": found.num_refused,
        },
        about={"samples searched": f"of {version.num_samples:,}"},
    )
    if not found.num_texts:
        parts.empty("Nothing matches", "Search for something else; letter case matters.")
        return
    st.button(
        f"Replace in {found.num_texts:,} texts",
        type="primary",
        disabled=not who,
        on_click=_replace,
        args=(catalog, version, asked, who, among),
        help="Type your name in the sidebar first" if not who else None,
    )
    parts.section("Before and after", f"the first {len(found.examples)}")
    for draft in found.examples:
        picture, text = st.columns([1, 7], vertical_alignment="center")
        picture.image(context.thumbnail(draft.sample.shard, draft.sample.row, 256), width="stretch")
        with text:
            parts.worddiff(draft.base_text, draft.new_text)


def _replace(
    catalog: Catalog, version: Version, asked: Replacement, who: str, among: Filter
) -> None:
    try:
        done = replace_all(
            catalog.store,
            version,
            asked,
            who=who,
            stop=StopRequest(),
            where=where(catalog, among),
        )
    except CuratorError as error:
        tell(error)
        return
    del st.session_state[_ASKED]
    st.session_state.setdefault(_BATCHES, []).append((done.batch, done.num_edited))
    left = f"; {len(done.refused):,} skipped, as others changed them first" if done.refused else ""
    tell(f"{done.num_edited:,} texts replaced{left}")


def _batches(store: Store, who: str) -> None:
    """List what this session replaced, with buttons to undo it."""
    done = st.session_state.get(_BATCHES, [])
    if done:
        parts.section("Replaced in this session")
    for batch, number in reversed(done):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.html(f"<div>{number:,} texts · {parts.escaped(batch)}</div>", width="content")
            st.button(
                "Undo",
                key=f"undo_{batch}",
                disabled=not who,
                on_click=_undo_batch,
                args=(store, batch, who),
            )


def _undo_batch(store: Store, batch: str, who: str) -> None:
    try:
        undone, kept = edit_log.undo_batch(store, batch, who=who)
    except CuratorError as error:
        tell(error)
        return
    st.session_state[_BATCHES] = [b for b in st.session_state[_BATCHES] if b[0] != batch]
    left = f"; {len(kept):,} stay, as they were edited since" if kept else ""
    tell(f"{len(undone):,} edits undone{left}")


# -- a version -------------------------------------------------------------------------------------


def make_version(store: Store, version: Version, who: str) -> None:
    """Draw the edits in effect and the button that commits them."""
    newest = edit_log.newest(store)
    if newest.is_empty():
        parts.empty("No edits yet", "Review texts one by one, or find and replace.")
        return
    counts = dict(newest["action"].value_counts().iter_rows())
    parts.metrics(
        {
            "texts edited": counts.get("edit", 0),
            "texts rejected": counts.get("reject", 0),
            "texts accepted": counts.get("accept", 0),
            "reviewers": newest["who"].n_unique(),
        }
    )
    st.button(
        f"Make a version: {version.name} with the edits",
        type="primary",
        disabled=not who,
        on_click=_apply,
        args=(store, version, who),
        help="Type your name in the sidebar first" if not who else None,
    )
    _applied()
    parts.section("By reviewer")
    parts.facts(
        {
            name: ", ".join(f"{number:,} {DONE[action]}" for action, number in counts.items())
            for name, counts in tally(store).items()
        }
    )
    parts.section("Edits in effect", f"the newest {min(len(newest), _NUM_ROWS):,}")
    wide = st.column_config.TextColumn(width="large")
    columns = {"before": wide, "after": wide}
    st.dataframe(_table(newest), hide_index=True, width="stretch", column_config=columns)


def _table(newest: pl.DataFrame) -> pl.DataFrame:
    return (
        newest.sort("created", descending=True)
        .head(_NUM_ROWS)
        .select(
            "id",
            "who",
            pl.from_epoch(pl.col("created").cast(pl.Int64)).alias("when"),
            "action",
            "key",
            before="base_text",
            after="new_text",
        )
    )


def _apply(store: Store, version: Version, who: str) -> None:
    try:
        done = apply(store, version, who=who, stop=StopRequest())
    except CuratorError as error:
        tell(error)
        return
    st.session_state[_APPLIED] = (version, done)
    is_new = "is committed" if done.is_new else "already exists, with the same edits"
    tell(f"{done.version.name} {is_new}")


def _applied() -> None:
    """Draw the version just made and the edits that do not apply to it."""
    made: tuple[Version, Applied] | None = st.session_state.get(_APPLIED)
    if made is None:
        return
    base, done = made
    policy = done.version.policy["name"]
    parts.section(f"Made: {done.version.name} · {policy}", done.version.id[:12])
    parts.metrics(
        {
            "texts edited": done.num_edited,
            "texts rejected": done.num_rejected,
            "texts accepted": done.num_accepted,
            "edits left out": len(done.stale),
            "edited texts without a score": done.num_unscored,
        }
    )
    if done.num_unscored:
        parts.section("To score them", "then make the version again")
        st.code(how_to_score(base, "DATASET")[0], language=None, wrap_lines=True)
    if done.stale:
        parts.section("Left out", "the texts they edit are not in that version")
        parts.facts({f"{edit.id} · {edit.who}": edit.base_text or "" for edit in done.stale[:50]})
