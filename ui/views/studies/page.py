"""Studies: the verdict first, then the results behind it; every value comes from the report.

Shows the studies in the folder of `curator ui --studies`, or else those beside the shards. The URL
names one of them and cannot name another folder.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import streamlit as st

from finetune.report.build import build_report
from finetune.report.html import render_html
from finetune.report.markdown import render_markdown
from finetune.report.values import Report
from finetune.study.files import read_cells
from ui.shared import context, parts
from ui.views.studies import parts as study_parts
from ui.views.studies import runs

_CSS = Path(__file__).resolve().parents[2] / "theme" / "studies.css"
_MAX_DEPTH = 3
_SEC = 60
_FEW_ROWS = 10

_VIEWS = {
    "results": "Results",
    "curves": "Fewer labels",
    "pictures": "Pictures",
    "learning": "Learning",
    "cells": "Runs",
    "cost": "Cost",
    "made": "How it was made",
}


def page() -> None:
    """Draw the page."""
    st.html(_CSS)
    found = _studies()
    if not found:
        parts.heading("Studies", "How versions compare on dense tasks")
        parts.empty(
            "No study found",
            "`curator study` runs one; `curator ui DATASET --studies FOLDER` shows it.",
        )
        return
    left, right = st.columns([2.6, 1], gap="large", vertical_alignment="bottom")
    with right:
        name = context.pick("study", "Study", list(found), default=next(iter(found)))
    folder = found[name]
    report: Report = _report(str(folder), _stamp(folder))
    with left:
        parts.heading(report.name, report.description)
    study_parts.verdict(report)
    left, right = st.columns([1.5, 1], gap="large")
    with left:
        study_parts.doubts(report)
    with right:
        study_parts.figures(report)
        _downloads(report, folder)
    _view(report, folder)


# -- finding and reading --------------------------------------------------------------------------


def _studies() -> dict[str, Path]:
    named = context.studies()
    if named is not None:
        return _found(named, _MAX_DEPTH)
    root = context.workspace().dataset.root
    # Beside the store, for shards in an object store.
    beside = (root if isinstance(root, Path) else context.workspace().store.root).resolve().parent
    return _found(beside, 1)


@st.cache_data(ttl=_SEC, show_spinner=False)
def _found(root: Path, depth: int) -> dict[str, Path]:
    return runs.find_studies(root, depth)


def _stamp(folder: Path) -> tuple[int, int]:
    """Return a value that changes as the study runs: count and newest mtime of its cells."""
    times = [path.stat().st_mtime_ns for path in (folder / "cells").glob("*.json")]
    return len(times), max([(folder / runs.STUDY_FILE).stat().st_mtime_ns, *times])


@st.cache_resource(max_entries=8, show_spinner="reading the study")
def _report(folder: str, stamp: tuple[int, int]) -> Report:  # `stamp` is part of the cache key
    return build_report(Path(folder))


def _downloads(report: Report, folder: Path) -> None:
    with st.container(horizontal=True):
        st.download_button(
            "Report page",
            lambda: render_html(report, folder).encode(),
            file_name="report.html",
            mime="text/html",
            on_click="ignore",
            help="One self-contained HTML file, to share or print",
        )
        st.download_button(
            "Markdown",
            lambda: render_markdown(report).encode(),
            file_name="report.md",
            mime="text/markdown",
            on_click="ignore",
        )


# -- the parts ------------------------------------------------------------------------------------


def _view(report: Report, folder: Path) -> None:
    view = context.view("show", "Part of the study", _VIEWS, name="study_view")
    shown: dict[str, Callable[[], None]] = {
        "results": lambda: _results(report),
        "curves": lambda: _curves(report),
        "pictures": lambda: _pictures(report, folder),
        "learning": lambda: _learning(report),
        "cells": lambda: _cells(report, folder),
        "cost": lambda: study_parts.costs(report),
        "made": lambda: study_parts.made(report),
    }
    shown[str(view)]()


def _results(report: Report) -> None:
    for task in report.tasks:
        study_parts.task(report, task)
    study_parts.relative(report)
    if not report.tasks:
        parts.empty("No dense run is finished yet", "The tab Runs shows the progress of the study.")


def _curves(report: Report) -> None:
    if not study_parts.curves(report):
        parts.empty(
            "Only one amount was run",
            "Give a task several `fractions`, or `samples_seen` several values, to see curves.",
        )


def _pictures(report: Report, folder: Path) -> None:
    if not study_parts.pictures(report, folder):
        parts.empty("No images", "Each dense run saves some when it finishes.")


def _learning(report: Report) -> None:
    if not study_parts.learning(report):
        parts.empty("No curve yet", "Each run saves one when it finishes.")


def _cells(report: Report, folder: Path) -> None:
    records = read_cells(folder)
    frame = pl.DataFrame(runs.runs(report.plan, records), infer_schema_length=None)
    columns = st.columns(4)
    for column, name in zip(columns, ("arm", "task", "stage", "state"), strict=True):
        known = [str(value) for value in frame[name].drop_nulls().unique(maintain_order=True)]
        with column:
            chosen = _some(f"of_{name}", _capital(name), known)
        if chosen:
            frame = frame.filter(pl.col(name).is_in(chosen))
    st.html(f'<p class="cc-hint">{len(frame):,} of {report.num_cells:,} runs</p>')
    empty = [name for name in frame.columns if frame[name].null_count() == len(frame)]
    st.dataframe(
        frame.drop(empty),
        hide_index=True,
        height="auto" if len(frame) <= _FEW_ROWS else 640,
        column_config={
            "labels": st.column_config.NumberColumn(format="percent"),
            "seconds": st.column_config.NumberColumn(format="%.1f"),
        },
    )


def _some(key: str, label: str, options: list[str]) -> list[str]:
    """Draw a multi-select bound to the URL; an empty choice means all."""
    widget = f"some_{key}"
    if widget not in st.session_state:
        st.session_state[widget] = [v for v in context.state(key, [""]) if v in options]
    st.session_state[widget] = [v for v in st.session_state[widget] if v in options]
    chosen = [str(value) for value in st.multiselect(label, options, key=widget, placeholder="all")]
    context.put(key, chosen)
    return chosen


def _capital(word: str) -> str:
    return word[:1].upper() + word[1:]


context.run(page)
