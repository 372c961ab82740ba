"""Shared by all pages: the workspace, the chosen version, state in the URL, error handling.

A page is a plain script that ends in `context.run(page)`. Every choice on a page is in the URL, so
that the address shows a colleague the same view. The workspace is opened once per
process; a page reads the store and never waits for a running job.

The variables of `ui.shared.environment`, set by `curator ui`, say what to show.
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
"""Parts of the URL to carry over to another page; Streamlit drops all of them."""

_REOPEN_SEC = 300
"""Seconds after which the shards are listed again."""

_NUM_CATALOGS = 3
"""Versions whose columns stay in memory: 25 MB per million rows each, more once sorted."""

_WARM_ROWS = 5_000_000
"""Up to this many rows, slow figures are read in the background before a page asks for them."""


# -- dataset, version, reviewer -------------------------------------------------------------------


def workspace() -> Workspace:
    """Return the dataset and store that `curator ui` was started on.

    Raises:
        UsageError: it was not started by `curator ui`.
    """
    dataset = os.environ.get(DATASET)
    if not dataset:
        raise UsageError(
            "no dataset was named", hint="start with `curator ui DATASET`", reason="ui.no_dataset"
        )
    return _open(dataset, os.environ.get(STORE) or None)


@st.cache_resource(ttl=_REOPEN_SEC, show_spinner=False)
def _open(dataset: str, store: str | None) -> Workspace:
    return open_workspace(dataset, store, reads="all")


def studies() -> Path | None:
    """Return the folder of studies given to `curator ui --studies`, or None."""
    named = os.environ.get(STUDIES)
    return Path(named) if named else None


def version(key: str = "v", label: str = "Version", *, default: int = -1) -> Version:
    """Draw a select box over all versions, bound to the URL, and return the chosen one.

    Args:
        key: its name in the URL.
        label: the text above the box.
        default: index into the versions, oldest first, used when the URL names none.

    Raises:
        NotFoundError: there is no version yet.
    """
    store = workspace().store
    store.resolve(None)  # raises with a hint if there is no version
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
        _remark(f"there is no version {asked!r}; showing {chosen}")
    found = store.resolve(chosen)
    if (missing := workspace().missing_text(found)) is not None:
        _remark(f"{missing}: their images cannot be shown")
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
    """Draw a select box bound to the URL; an unknown value there counts as the default.

    Unlike a box with `bind="query-params"`, it writes the choice to the URL even if it is the
    default, so that a link keeps its meaning when the default changes.
    """
    widget = f"pick_{key}"
    asked = _kept(key, default)
    chosen = asked if asked in options else default
    # The URL decides: Streamlit may remember another choice from the previous page.
    st.session_state[widget] = chosen
    st.selectbox(
        label, options, key=widget, format_func=title, on_change=_chosen, args=(key, widget)
    )
    put(key, chosen)
    return chosen


def _chosen(key: str, widget: str) -> None:
    put(key, " ".join(str(st.session_state[widget]).split()))


def view(key: str, label: str, options: Mapping[str, str], *, name: str) -> str:
    """Draw the views of a page as a row of buttons, bound to the URL; the first is the default.

    Args:
        key: its name in the URL.
        label: for screen readers.
        options: value in the URL -> label shown.
        name: of the widget, unique per page.
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
    """Return the name in the sidebar that signs edits and ratings; "" if none was typed."""
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
    """Return the rows of a version to filter, sort and page; shared by all sessions."""
    store = workspace().store
    return _catalog(str(store.root), chosen.id, chosen, workspace())


@st.cache_resource(max_entries=_NUM_CATALOGS, ttl=_REOPEN_SEC, show_spinner=False)
def _catalog(root: str, version_id: str, _chosen: Version, _ws: Workspace) -> Catalog:
    assert root, version_id
    made, pictures = Catalog(_ws.store, _chosen), _pictures(root, _ws)

    def warm() -> None:
        first = made.page(Filter()).rows  # the first view of Inspect
        pictures.many(list(first.select("shard", "row").iter_rows()))
        if _chosen.num_samples <= _WARM_ROWS:
            made.warm()

    in_background(warm)
    return made


def in_background(work: Callable[[], T]) -> Future[T]:
    """Run `work` in its own thread; its exception is raised by `result()`."""
    promise: Future[T] = Future()

    def run_it() -> None:
        try:
            promise.set_result(work())
        except Exception as error:  # noqa: BLE001 - raised again by `result()`
            promise.set_exception(error)

    Thread(target=run_it, daemon=True).start()
    return promise


# -- state in the URL -----------------------------------------------------------------------------


def state(key: str, default: Value) -> Value:
    """Return `key` from the URL, in the type of `default`; `default` if missing or invalid."""
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
        return default  # someone edited the URL; the page shows the value it used


def _kept(key: str, default: str) -> str:
    """Like `state`, but values carried from page to page are also known without the URL."""
    known = st.session_state.get(f"kept_{key}") if key in _KEPT else None
    return state(key, str(known or default))


def put(key: str, value: str | int | float | bool | Sequence[str] | None) -> None:
    """Set `key` in the URL; None, "" and an empty list remove it."""
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


# -- images -------------------------------------------------------------------------------------


def thumbnail(shard: str, row: int, side_px: int = 256) -> bytes:
    """Return one image of the dataset as JPEG, longer side at most `side_px`; cached in memory.

    An image that cannot be decoded is returned as a grey one with the reason on it.
    """
    return thumbnails([(shard, row)], side_px)[0]


def thumbnails(places: Sequence[tuple[str, int]], side_px: int = 256) -> list[bytes]:
    """Like `thumbnail`, for many (shard, row) at once, which is faster than one by one."""
    ws = workspace()
    return _pictures(str(ws.store.root), ws).many(places, side_px=side_px)


@st.cache_resource(max_entries=1, ttl=_REOPEN_SEC, show_spinner=False)
def _pictures(root: str, _ws: Workspace) -> Thumbnails:
    assert root, "part of the cache key"
    return Thumbnails(_ws)


# -- errors ---------------------------------------------------------------------------------------


def run(page: Callable[[], None]) -> None:
    """Run a page and show errors as a sentence with a hint; never a traceback, never a path."""
    parts.style()
    try:
        if "://" in os.environ.get(STORE, ""):
            st.sidebar.caption(f"{os.environ[STORE]}, as it was pushed last: to read only")
        page()
    except CuratorError as error:
        parts.error(error)
    except Exception:  # noqa: BLE001 - last resort: any other error becomes a message
        progress.say(traceback.format_exc())
        parts.failed()
