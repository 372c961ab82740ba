"""Query: read-only SQL over the tables, with the schema beside it and results to download.

Nothing runs by itself: a link brings its SQL along, and the reader presses Run. `curator.query.run`
isolates foreign SQL in its own process, one for each query; this page only keeps the next one
started, so that nobody waits for its libraries.
"""

from __future__ import annotations

import io
import json
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import streamlit as st

from curator.core.errors import CuratorError
from curator.core.strictjson import finite
from curator.query.run import VIEWS, QueryProcess, QueryResult, View
from curator.store import parquet
from ui.shared import context, parts

_CSS = Path(__file__).resolve().parents[2] / "theme" / "decide.css"
_TEXT = "query_sql"
_RESULT = "query_result"
_KEPT = "query_kept"
_LIMITS = {"100": "100", "1000": "1,000", "10000": "10,000", "100000": "100,000"}
TIMEOUT_SEC = 30.0
MEMORY_MIB = 1024
_FEW_ROWS = 10
_SCHEMA_PX = 330

EXAMPLES = {
    "Texts by source": """select source, count(*) as texts, avg(score) as mean_score
from captions
where text is not null
group by source
order by texts desc""",
    "Worst scores": """select shard, row, score, source, text
from captions
where text is not null
order by score
limit 50""",
    "What a recaption changed": """select old.shard, old.row, old.text as before, new.text as after,
       new.score - old.score as gain
from all_captions old
join all_captions new using (shard, row, slot)
where old.version = 1 and new.version = 2 and old.text <> new.text
order by gain desc""",
    "Why samples are dropped": """select action, because, count(*) as samples
from captions
where action in ('dropped', 'quarantined')
group by all
order by samples desc""",
    "Alt texts against captions": """select g.generator, count(*) as images,
       avg(s.score) as of_captions, avg(a.score) as of_alt_texts
from samples m
join generated g using (image_sha256)
join scores s on s.image_sha256 = m.image_sha256 and s.text_sha256 = g.text_sha256
join scores a on a.image_sha256 = m.image_sha256 and a.text_sha256 = m.alt_sha256
where s.scorer = a.scorer
group by g.generator""",
    "Duplicate images": """select image_sha256, count(*) as copies,
       count(distinct alt_text) as different_texts
from samples
where image_sha256 is not null
group by image_sha256
having count(*) > 1
order by copies desc""",
    "Edits by reviewer": """select reviewer, action, count(*) as edits
from edits
where not undone
group by all
order by edits desc""",
    "Failures by reason": """select stage, reason, maker, count(*) as rows
from quarantine
group by all
order by rows desc""",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A result and the question it answers."""

    sql: str
    version: str
    seconds: float
    result: QueryResult


def page() -> None:
    """Draw the page."""
    _keep_one_started()
    st.html(_CSS)
    parts.heading("Query", "One read-only SELECT over the tables of the store")
    left, right = st.columns([2, 1], gap="large")
    with right:
        _schema()
    with left:
        _ask()
    answer: Answer | CuratorError | None = st.session_state.get(_RESULT)
    if answer is None:
        parts.empty("No result yet", "Write a SELECT or choose an example, then press Run.")
    elif isinstance(answer, CuratorError):
        parts.error(answer)
    else:
        _show(answer)


def ask(sql: str, *, version: int | None, limit: int) -> QueryResult:
    """Run the SQL of the page and return its rows.

    Raises:
        UsageError: refused, invalid, too slow or too large. DamageError: a damaged file.
    """
    ws = context.workspace()
    with _take() as process:
        found = process.run(
            ws.store,
            sql,
            version=version,
            shards=[ref.name for ref in ws.shards],
            limit=limit,
            timeout_sec=TIMEOUT_SEC,
            memory_mib=MEMORY_MIB,
        )
    _keep_one_started()
    return found


@st.cache_resource(show_spinner=False)
def _started() -> deque[QueryProcess]:
    """Return the processes that wait for a query, of all readers together."""
    return deque()


def _keep_one_started() -> None:
    if not _started():
        _started().append(QueryProcess())


def _take() -> QueryProcess:
    while True:
        try:
            process = _started().pop()
        except IndexError:  # another reader took it
            return QueryProcess()
        if process.is_alive:
            return process


# -- the question ---------------------------------------------------------------------------------


def _ask() -> None:
    version, limit = _options()
    if _TEXT not in st.session_state:
        # Restore what was typed before a visit to another page: Streamlit forgets widgets.
        kept = st.session_state.get(_KEPT, next(iter(EXAMPLES.values())))
        st.session_state[_TEXT] = context.state("sql", kept)
    with st.form("query", border=False):
        sql = str(st.text_area("SQL", key=_TEXT, height=210, label_visibility="collapsed"))
        asked = st.form_submit_button("Run", type="primary", help="Ctrl+Enter in the text")
    context.put("sql", sql)
    st.session_state[_KEPT] = sql
    if not asked:
        return
    started = time.monotonic()
    try:
        with st.spinner(f"running, at most {TIMEOUT_SEC:.0f} s", show_time=True):
            result = ask(sql, version=version, limit=limit)
    except CuratorError as error:
        st.session_state[_RESULT] = error
        return
    seconds = time.monotonic() - started
    name = f"v{version}" if version is not None else "no version"
    st.session_state[_RESULT] = Answer(sql, name, seconds, result)


def _options() -> tuple[int | None, int]:
    """Return the version behind the view `captions`, and the number of rows to show."""
    has_versions = bool(context.workspace().store.numbers())
    with st.container(horizontal=True, vertical_alignment="bottom"):
        version = context.version(label="Version behind captions") if has_versions else None
        limit = context.pick(
            "limit", "Maximum rows", list(_LIMITS), default="1000", title=_LIMITS.__getitem__
        )
        st.selectbox(
            "Examples",
            ["", *EXAMPLES],
            key="query_example",
            format_func=lambda name: name or "choose an example",
            on_change=_take_example,
        )
    return version.number if version else None, int(limit)


def _take_example() -> None:
    name = st.session_state["query_example"]
    if name:
        st.session_state[_TEXT] = EXAMPLES[name]
        st.session_state["query_example"] = ""


def _schema() -> None:
    st.html('<div class="cc-rule">Tables</div>')
    with st.container(height=_SCHEMA_PX, border=False, gap="xsmall"):
        for view in VIEWS:
            with st.expander(view.name):
                st.html(schema_html(view))


def schema_html(view: View) -> str:
    """Return a view with its columns as HTML."""
    rows = "".join(
        f"<tr><td>{parts.escaped(name)}</td><td>{parts.escaped(about)}"
        f"<small>{parts.escaped(kind)}</small></td></tr>"
        for name, (kind, about) in view.columns.items()
    )
    about = f'<p class="cc-scope">{parts.escaped(view.about)}</p>'
    return f'{about}<table class="cc-schema">{rows}</table>'


# -- the answer -----------------------------------------------------------------------------------


def _show(answer: Answer) -> None:
    table = answer.result.table
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    if answer.result.truncated:
        said = (
            f"The first {table.num_rows:,} rows; there are more. Raise the maximum or narrow the "
            "query. The downloads hold these rows only."
        )
    else:
        said = f"{table.num_rows:,} {'row' if table.num_rows == 1 else 'rows'}, complete."
    part = " cc-part" if answer.result.truncated else ""
    asked = f"{answer.version}, {answer.seconds:.1f} s"
    if st.session_state[_TEXT] != answer.sql:
        asked += ", for an earlier query text"
    for sentence in answer.result.renamed:
        st.html(f'<p class="cc-scope cc-part">{parts.escaped(sentence)}</p>')
    with st.container(horizontal=True, vertical_alignment="center"):
        st.html(f'<p class="cc-scope{part}">{parts.escaped(said)} ({parts.escaped(asked)})</p>')
        st.download_button(
            "CSV",
            lambda: to_csv(frame),
            file_name="query.csv",
            mime="text/csv",
            on_click="ignore",
        )
        st.download_button(
            "Parquet",
            lambda: parquet.to_bytes(table),
            file_name="query.parquet",
            mime="application/vnd.apache.parquet",
            on_click="ignore",
        )
    if frame.width and frame.height:
        st.dataframe(frame, hide_index=True, height="auto" if frame.height <= _FEW_ROWS else 560)


def to_csv(frame: pl.DataFrame) -> bytes:
    """Return UTF-8 CSV with a header; lists and structs become JSON, which CSV cells can hold."""
    nested = [name for name, kind in frame.schema.items() if kind.is_nested()]
    flat = frame.with_columns(
        pl.Series(name, [_json(value) for value in frame[name].to_list()], pl.String)
        for name in nested
    )
    out = io.BytesIO()
    flat.write_csv(out)
    return out.getvalue()


def _json(value: object) -> str | None:
    if value is None:
        return None
    return json.dumps(finite(value), ensure_ascii=False, default=str, allow_nan=False)


context.run(page)
