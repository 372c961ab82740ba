"""What pages share: the opened workspace, the version chosen, state in the URL, one boundary.

A page is a plain script that ends in `context.run(page)`. Whatever a page lets be chosen lies in
the URL, so that the address shows a colleague the same view. The workspace is opened once a
process; a page reads the store and never waits for a running job.

What to show is set by the variables of `ui.shared.environment`, which `curator ui` sets.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import TypeVar

import streamlit as st

from curator.browse.catalog import Catalog
from curator.browse.filters import Filter
from curator.browse.thumbnails import Thumbnails
from curator.core import progress
from curator.core.errors import CuratorError, UsageError
from curator.steps.workspace import Workspace, open_workspace
from curator.store.versions import Version
from ui.shared import parts
from ui.shared.environment import DATASET, STORE, STUDIES

Value = TypeVar("Value", str, int, float, bool, list[str])
T = TypeVar("T")
Number = TypeVar("Number", int, float, bool)

_KEPT = ("v", "who")
"""Parts of the URL that go along to another page; Streamlit forgets all of them."""

_REOPEN_SEC = 300
"""After this long the shards are looked for again."""

_NUM_CATALOGS = 3
"""Versions whose columns are kept in memory: 25 MB a million rows each, more once sorted."""

_WARM_ROWS = 5_000_000
"""Up to this size, what takes seconds is read in the background before somebody asks for it."""


# -- what is looked at ----------------------------------------------------------------------------


def workspace() -> Workspace:
    """The dataset and store that `curator ui` was started on.

    Raises:
        UsageError: it was not started that way.
    """
    dataset = os.environ.get(DATASET)
    if not dataset:
        raise UsageError(
            "no dataset was named", hint="start with `curator ui DATASET`", reason="ui.no_dataset"
        )
    return _open(dataset, os.environ.get(STORE) or None)


@st.cache_resource(ttl=_REOPEN_SEC, show_spinner=False)
def _open(dataset: str, store: str | None) -> Workspace:
    return open_workspace(dataset, Path(store) if store else None)


def studies() -> Path | None:
    """The folder of studies that `curator ui --studies` named."""
    named = os.environ.get(STUDIES)
    return Path(named) if named else None


def version(key: str = "v", label: str = "Version", *, default: int = -1) -> Version:
    """A select box over all versions, bound to the URL.

    Args:
        key: its name in the URL.
        label: what is written above the box.
        default: a place in the list of versions, oldest first, for a URL that names none.

    Raises:
        NotFoundError: there is no version yet.
    """
    store = workspace().store
    store.resolve(None)  # says how to make a version when there is none
    names = [f"v{number}" for number in store.numbers()]
    tags: dict[str, list[str]] = {}
    for tag, number in store.tags().items():
        tags.setdefault(f"v{number}", []).append(tag)

    def title(name: str) -> str:
        policy = str(store.resolve(name).policy.get("name", ""))
        return " · ".join([name, policy, *tags.get(name, [])])

    asked = _kept(key, "")
    chosen = pick(key, label, names[::-1], default=names[max(default, -len(names))], title=title)
    if asked and asked not in names:
        _remark(f"there is no version {asked!r}: this is {chosen}")
    found = store.resolve(chosen)
    if (missing := workspace().missing_text(found)) is not None:
        _remark(f"{missing}: their pictures cannot be shown")
    return found


def _remark(text: str) -> None:
    st.html(f'<div class="cc-small">{parts.escaped(text)}</div>')


def pick(
    key: str,
    label: str,
    options: Sequence[str],
    *,
    default: str,
    title: Callable[[str], str] = str,
) -> str:
    """A select box bound to the URL; an unknown value there counts as the default.

    Unlike a box with `bind="query-params"`, the choice stands in the URL even when it is the
    default, so that a link still means the same when the default has moved on.
    """
    widget = f"pick_{key}"
    asked = _kept(key, default)
    chosen = asked if asked in options else default
    # The URL is what counts: Streamlit may remember another choice from the page before.
    st.session_state[widget] = chosen
    st.selectbox(
        label, options, key=widget, format_func=title, on_change=_chosen, args=(key, widget)
    )
    put(key, chosen)
    return chosen


def _chosen(key: str, widget: str) -> None:
    put(key, " ".join(str(st.session_state[widget]).split()))


def view(key: str, label: str, options: Mapping[str, str], *, name: str) -> str:
    """The views of a page as a row of buttons, bound to the URL; the first is the default.

    Args:
        key: its name in the URL.
        label: for those who cannot see it.
        options: what stands in the URL -> what is shown.
        name: of the widget, different on every page.
    """
    if st.session_state.get(name) not in options:
        asked = state(key, "")
        st.session_state[name] = asked if asked in options else next(iter(options))
    chosen = st.segmented_control(
        label,
        list(options),
        key=name,
        required=True,
        format_func=options.__getitem__,
        label_visibility="collapsed",
    )
    put(key, str(chosen))
    return str(chosen)


def choose(key: str, option: str) -> None:
    """Set a box made by `pick` (or `version`); for callbacks, which run before the page."""
    put(key, option)


def reviewer() -> str:
    """The name that edits and ratings are signed with, typed once into the sidebar; "" before."""
    widget = "type_who"
    name = _kept("who", "")
    st.session_state[widget] = name
    st.sidebar.text_input(
        "Your name",
        key=widget,
        max_chars=40,
        help="Edits and ratings are signed with it.",
        on_change=_chosen,
        args=("who", widget),
    )
    put("who", name)
    return name


def catalog(chosen: Version) -> Catalog:
    """The rows of a version to filter, sort and page; shared by all who look at it."""
    store = workspace().store
    return _catalog(str(store.root), chosen.id, chosen, workspace())


@st.cache_resource(max_entries=_NUM_CATALOGS, ttl=_REOPEN_SEC, show_spinner=False)
def _catalog(root: str, version_id: str, _chosen: Version, _ws: Workspace) -> Catalog:
    assert root, version_id
    made, pictures = Catalog(_ws.store, _chosen), _pictures(root, _ws)

    def warm() -> None:
        first = made.page(Filter()).rows  # what Inspect opens with
        pictures.many(list(first.select("shard", "row").iter_rows()))
        if _chosen.num_samples <= _WARM_ROWS:
            made.warm()

    in_background(warm)
    return made


def in_background(work: Callable[[], T]) -> Future[T]:
    """Do something in a thread of its own; what it raises is raised by `result()`."""
    promise: Future[T] = Future()

    def run_it() -> None:
        try:
            promise.set_result(work())
        except Exception as error:  # noqa: BLE001 - handed on to whoever asks for the result
            promise.set_exception(error)

    Thread(target=run_it, daemon=True).start()
    return promise


# -- state in the URL -----------------------------------------------------------------------------


def state(key: str, default: Value) -> Value:
    """The value of `key` in the URL, in the type of `default`; `default` where it does not fit."""
    if key not in st.query_params:
        return default
    if isinstance(default, list):
        return st.query_params.get_all(key)
    if isinstance(default, str):
        return st.query_params[key]
    return _number(st.query_params[key], default)


def _number(text: str, default: Number) -> Number:
    try:
        if isinstance(default, bool):
            return {"1": True, "0": False}[text]
        return type(default)(text)
    except (ValueError, KeyError):
        return default  # somebody edited the address; the page shows what it took


def _kept(key: str, default: str) -> str:
    """As `state`, but what goes along from page to page is known without the URL as well."""
    known = st.session_state.get(f"kept_{key}") if key in _KEPT else None
    return state(key, str(known or default))


def put(key: str, value: str | int | float | bool | Sequence[str] | None) -> None:
    """Set `key` in the URL; None, "" and an empty list take it out."""
    if value is None or value in ("", []):
        if key in st.query_params:
            del st.query_params[key]
    else:
        shown = str(int(value)) if isinstance(value, bool) else value
        spelled = shown if isinstance(shown, str) else _spelled(shown)
        now: object = st.query_params.get_all(key)
        if now != (spelled if isinstance(spelled, list) else [spelled]):
            st.query_params[key] = spelled
    if key in _KEPT:
        st.session_state[f"kept_{key}"] = value


def _spelled(value: int | float | Sequence[str]) -> str | list[str]:
    return f"{value:g}" if isinstance(value, int | float) else list(value)


# -- pictures -------------------------------------------------------------------------------------


def thumbnail(shard: str, row: int, side_px: int = 256) -> bytes:
    """One picture of the dataset as JPEG, its longer side at most `side_px`; kept in memory.

    A picture that cannot be decoded comes as a grey one that says why.
    """
    return thumbnails([(shard, row)], side_px)[0]


def thumbnails(places: Sequence[tuple[str, int]], side_px: int = 256) -> list[bytes]:
    """As `thumbnail`, for many (shard, row) at once, which is faster than one by one."""
    ws = workspace()
    return _pictures(str(ws.store.root), ws).many(places, side_px=side_px)


@st.cache_resource(max_entries=1, ttl=_REOPEN_SEC, show_spinner=False)
def _pictures(root: str, _ws: Workspace) -> Thumbnails:
    assert root, "the key of the cache"
    return Thumbnails(_ws)


# -- the boundary ---------------------------------------------------------------------------------


def run(page: Callable[[], None]) -> None:
    """Show a page. An error becomes a sentence and what to do; never a traceback, never a path."""
    parts.style()
    try:
        page()
    except CuratorError as error:
        parts.error(error)
    except Exception:  # noqa: BLE001 - the last resort of the dashboard
        progress.say(traceback.format_exc())
        parts.failed()
