"""Policy: change thresholds and rules, preview where the samples would go, save or commit."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import polars as pl
import streamlit as st

from curator.core.errors import CuratorError
from curator.core.stopping import StopRequest
from curator.policy.model import PRESETS, Policy, parse_policy
from curator.policy.preview.preview import Previewer, makers
from curator.policy.preview.values import Extent, Preview
from curator.policy.text_edit import base_text, save_policy, to_toml
from curator.steps.decide import MakerChoice, decide, resolve_inputs
from curator.store.store import Store
from curator.store.versions import Version
from ui.shared import context, parts
from ui.views.policy import controls
from ui.views.policy import parts as policy_parts
from ui.views.policy.controls import TEXT

_CSS = Path(__file__).resolve().parents[2] / "theme" / "decide.css"
_OF_VERSION = "version"
_EXTENTS = {"50000": "about 50,000 samples", "200000": "about 200,000 samples", "0": "all of them"}
_EVERYTHING = 1 << 62
_KEPT = "policy_kept"
_FRESH_SEC = 60
"""Lifetime of a preview in seconds: a running job may add facts."""


class _Kept(NamedTuple):
    """State kept across visits to other pages: Streamlit forgets the widgets of a left page."""

    base: str
    origin: str
    text: str


def page() -> None:
    """Draw the page."""
    st.html(_CSS)
    parts.heading("Policy", "Preview what other thresholds and rules would do")
    left, right = st.columns([1, 2.1], gap="large")
    with left:
        against = context.version(label="Compare with")
        base = _base(against)
        _start(base, against)
        policy = _edited()
    context.put("t", _packed(base, against))
    if isinstance(policy, CuratorError):
        with right:
            parts.error(policy)
        return
    with right:
        choice = _choice(policy, against)
        try:
            found = _show(policy, choice, against)
        except CuratorError as error:  # shown here, beside the widgets that can fix it
            parts.error(error)
            return
    with left:
        _keep(policy, choice, found)


# -- the policy -----------------------------------------------------------------------------------


def _base(against: Version) -> str:
    def title(name: str) -> str:
        return f"the policy of {against.name}" if name == _OF_VERSION else name

    known: _Kept | None = st.session_state.get(_KEPT)
    if known is not None and "base" not in st.query_params:
        context.put("base", known.base)

    return context.pick(
        "base", "Start from", [_OF_VERSION, *PRESETS.names()], default="best", title=title
    )


def _base_text(base: str, against: Version) -> str:
    return base_text(base, against if base == _OF_VERSION else None)


def _start(base: str, against: Version) -> None:
    """Set the text: from the URL on the first visit, again when another start is chosen."""
    origin = f"{base} {against.id}" if base == _OF_VERSION else base
    known: _Kept | None = st.session_state.get(_KEPT)
    if known is None:
        text = controls.unpack(context.state("t", "")) or _base_text(base, against)
    elif known.origin != origin:
        text = _base_text(base, against)
    else:
        text = st.session_state.get(TEXT, known.text)  # absent after a visit to another page
    st.session_state[TEXT] = text
    st.session_state[_KEPT] = _Kept(base, origin, text)


def _packed(base: str, against: Version) -> str | None:
    text = st.session_state[TEXT]
    return None if text == _base_text(base, against) else controls.pack(text)


def _edited() -> Policy | CuratorError:
    """Return the policy as edited by widgets and text, or what is wrong with the text."""
    widgets, text = st.tabs(["Rules", "Text"])
    with text:
        typed = st.text_area("Policy as TOML", key=TEXT, height=460, label_visibility="collapsed")
        st.html('<div class="cc-small">Changing a rule in a widget rewrites this text.</div>')
    try:
        policy = parse_policy(str(typed), where="as typed")
    except CuratorError as error:
        with widgets:
            parts.empty(
                "The text is not a valid policy", "Fix it on the tab Text; the reason is beside it."
            )
        return error
    with widgets:
        controls.controls(policy)
    return policy


def _choice(policy: Policy, against: Version) -> MakerChoice:
    """Return whose captions and scores to use; asks only where there are several."""
    found = makers(context.workspace().store, policy)
    used = against.policy
    generators: list[str] = []
    if len(found.generators) > 1:
        default = [name for name in used.get("generators", ()) if name in found.generators]
        with st.container(key="makers"):
            generators = st.multiselect(
                "Generators, preferred first; the others follow",
                found.generators,
                default=default or found.generators,
            )
    scorer = _one_of("scorer", "Scorer", found.scorers, str(used.get("scores_by")))
    checker = _one_of("checker", "Text checker", found.checkers, str(used.get("checker_facts")))
    return MakerChoice(
        generators=tuple(generators or found.generators), scorer=scorer, checker=checker
    )


def _one_of(key: str, label: str, names: list[str], used: str) -> str | None:
    if len(names) <= 1:
        return None
    return context.pick(key, label, names, default=used if used in names else names[0])


# -- the preview ----------------------------------------------------------------------------------


@st.cache_resource(show_spinner=False)
def _previewer(root: str) -> Previewer:
    return Previewer(Store.open(Path(root)))


@st.cache_data(ttl=_FRESH_SEC, max_entries=30, show_spinner=False)
def _preview(
    root: str,
    text: str,
    choice: tuple[object, ...],  # part of the cache key, like `version_id`
    version_id: str,
    extent: tuple[int, int],
    *,
    _ask: tuple[MakerChoice, Version],
) -> Preview:
    choice_, against = _ask
    policy = parse_policy(text, where="as typed")
    inputs = resolve_inputs(context.workspace(), policy, choice_)
    most, seed = extent
    return _previewer(root).preview(policy, inputs, against, Extent(max_samples=most, seed=seed))


def _show(policy: Policy, choice: MakerChoice, against: Version) -> Preview:
    ws = context.workspace()
    extent = _extent(against)
    key = (tuple(choice.generators), choice.scorer, choice.checker)
    with st.spinner("deciding", show_time=True):
        found: Preview = _preview(
            str(ws.store.root), to_toml(policy), key, against.id, extent, _ask=(choice, against)
        )
    policy_parts.scope(found)
    policy_parts.summary(found, against)
    policy_parts.flow(found, against)
    _examples(found, against)
    return found


def _extent(against: Version) -> tuple[int, int]:
    """Return how many samples to read, and the seed; asked only if that is not all of them."""
    default = Extent()
    if against.num_samples <= int(next(iter(_EXTENTS))):
        return default.max_samples, default.seed
    with st.container(horizontal=True, vertical_alignment="bottom"):
        most = context.pick(
            "most",
            "Preview",
            list(_EXTENTS),
            default=str(default.max_samples),
            title=_EXTENTS.__getitem__,
        )
        seed = st.number_input("Seed", 0, 9999, context.state("seed", 0), width=120)
    context.put("seed", int(seed) or None)
    return int(most) or _EVERYTHING, int(seed)


_VIEWS = {"limits": "Near the limits", "moves": "Changes", "because": "Dropped samples"}


def _examples(found: Preview, against: Version) -> None:
    view = context.view("show", "Examples", _VIEWS, name="policy_view")
    if view == "limits":
        for line in found.lines:
            policy_parts.line(line)
        if not found.lines:
            parts.empty("No rule, so no limit", "Add a rule on the left to see both sides of it.")
    elif view == "moves":
        _moves(found, against)
    else:
        _because(found)


def _moves(found: Preview, against: Version) -> None:
    changed = [move for move in found.moves if move.is_changed]
    if not changed:
        parts.empty("Nothing changes", f"Every sample has the same texts as in {against.name}.")
        return
    places = range(len(changed))
    place = st.selectbox(
        "Samples that would become",
        places,
        format_func=lambda place: policy_parts.title_of(changed[place], against),
        label_visibility="collapsed",
        key=f"move_{len(changed)}",
    )
    policy_parts.moves(changed[place])


def _because(found: Preview) -> None:
    if not found.because:
        parts.empty("No sample is dropped", "Every sample has a text that passes.")
        return
    frame = pl.DataFrame(found.because, schema=["becomes", "because", "samples"], orient="row")
    st.dataframe(frame, hide_index=True)


# -- save and commit ------------------------------------------------------------------------------


def _keep(policy: Policy, choice: MakerChoice, found: Preview) -> None:
    save, commit = st.columns(2)
    with save, st.popover("Save", width="stretch"):
        _save(policy)
    with commit, st.popover("Commit", width="stretch", type="primary"):
        _commit(policy, choice, found)


def _save(policy: Policy) -> None:
    folder = st.text_input("Folder", key="policy_folder", placeholder="an existing folder")
    replace = st.checkbox("Replace a policy of this name")
    name = parts.escaped(f"{policy.name}.toml")
    st.html(f'<div class="cc-small">Saves as {name}, after the name in the text.</div>')
    if st.button("Save", key="policy_save", disabled=not folder.strip()):
        try:
            path = save_policy(
                st.session_state[TEXT], Path(folder.strip()).expanduser(), replace=replace
            )
        except CuratorError as error:
            parts.error(error)
        else:
            st.html(f'<div class="cc-small">Saved {parts.escaped(path.name)}.</div>')


def _commit(policy: Policy, choice: MakerChoice, found: Preview) -> None:
    st.html(
        f'<div class="cc-small">Decides for all {found.num_all_samples:,} samples and adds a '
        "version. Existing versions stay unchanged.</div>"
    )
    if not st.button("Commit", key="policy_commit", type="primary"):
        return
    try:
        with st.spinner("deciding", show_time=True):
            version, is_new = decide(context.workspace(), policy, choice, stop=StopRequest())
    except CuratorError as error:
        parts.error(error)
        return
    said = "Committed" if is_new else "The same decision already exists as"
    link = f'<a href="inspect?v={version.name}" target="_self">open</a>'
    name = parts.escaped(str(version.policy["name"]))
    st.html(f'<div class="cc-small">{said} {version.name}, policy {name}: {link}.</div>')


context.run(page)
