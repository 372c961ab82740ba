"""The process that runs one query; its safeguards are described in `curator.query.run`.

Reads a `Request` as JSON on stdin. Answers with one line of JSON, then the rows as an Arrow IPC
stream, on a copy of stdout private to this module: libraries may print to stdout (DuckDB shows a
progress bar after two seconds), so descriptor 1 is redirected to stderr before any is imported.
Started only by `curator.query.run.run_query`.
"""

from __future__ import annotations

import json
import math
import os
import re
import resource
import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

import duckdb
import pyarrow as pa

from curator.core.errors import DamageError, Unusable
from curator.query.run import VIEWS, Request
from curator.query.tables import sources

_MAX_THREADS = 4
# The node types allowed in the parse tree of a query; COPY, INSERT, ... are nodes too (as CTEs).
_QUERY_NODES = frozenset(("SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"))

# Types whose values survive in Arrow, Python, polars, CSV and Parquet; columns of other types are
# cast to DuckDB's text. Without the cast, DuckDB gives Arrow -1 for the largest UHUGEINT and drops
# the zone of a TIMETZ, and Parquet cannot store an INTERVAL.
_WHOLE = frozenset(
    (
        *("boolean", "tinyint", "smallint", "integer", "bigint", "hugeint"),
        *("utinyint", "usmallint", "uinteger", "ubigint", "float", "double", "decimal"),
        *("date", "time", "timestamp", "timestamp_s", "timestamp_ms", "timestamp with time zone"),
        *("varchar", "uuid", "enum", "null", '"null"'),
    )
)
_NESTED = frozenset(("list", "array", "struct"))

# Columns whose value in the view differs from the table's column of the same name.
_RENAMED = {
    "byte_offset": '"offset" AS byte_offset',
    "num_bytes": "length AS num_bytes",
    "created": "make_timestamp(CAST(created * 1000000 AS BIGINT)) AS created",
}
# A failure counts if no later attempt succeeded. A success after a failure always has an attempt
# above 0, so the right side of the anti join stays small.
_QUARANTINE = """
WITH failed AS (
    SELECT generator AS maker, image_sha256, candidate::VARCHAR AS what, failure, detail, attempt
    FROM generated WHERE failure IS NOT NULL
    UNION ALL
    SELECT scorer, image_sha256, text_sha256, failure, detail, attempt
    FROM scores WHERE failure IS NOT NULL
), mended AS (
    SELECT generator AS maker, image_sha256, candidate::VARCHAR AS what
    FROM generated WHERE failure IS NULL AND attempt > 0
    UNION ALL
    SELECT scorer, image_sha256, text_sha256 FROM scores WHERE failure IS NULL AND attempt > 0
), open AS (
    SELECT * FROM failed ANTI JOIN mended USING (maker, image_sha256, what)
    QUALIFY row_number() OVER (PARTITION BY maker, image_sha256, what ORDER BY attempt DESC) = 1
), found AS (
    SELECT reason, shard, NULL AS key, byte_offset, NULL AS num_bytes, NULL AS image_sha256,
           NULL AS maker, detail, 0 AS attempt
    FROM _problems
    UNION ALL
    SELECT reason, shard, key, byte_offset, num_bytes, image_sha256, NULL, detail, 0
    FROM samples WHERE reason IS NOT NULL
    UNION ALL
    SELECT open.failure, s.shard, s.key, s.byte_offset, s.num_bytes, open.image_sha256,
           open.maker, open.detail, open.attempt
    FROM open LEFT JOIN samples s ON s.image_sha256 = open.image_sha256
)
SELECT r.stage, found.reason, r.retryable, found.shard, found.key, found.byte_offset,
       found.num_bytes, found.image_sha256, found.maker, found.detail,
       found.attempt::SMALLINT AS attempt
FROM found LEFT JOIN _reasons r ON r.reason = found.reason
"""


def main(answer_to: int) -> None:
    """Write the answer to the request on stdin to a file descriptor, under the process limits."""
    asked = sys.stdin.buffer.read()
    if not asked:  # the caller found nothing to ask, or is gone
        return
    request = Request(**json.loads(asked))
    if any("\ud800" <= char <= "\udfff" for char in request.root):
        # Arrow accepts only UTF-8 paths: in its folder, the store has another one.
        os.chdir(request.root)
        request = replace(request, root=".")
    _limit_process(request)
    pa.set_cpu_count(_threads())
    head, table = answer(request)
    with os.fdopen(answer_to, "wb") as out:
        out.write(json.dumps(head).encode() + b"\n")
        if table is not None:
            with pa.ipc.new_stream(out, table.schema) as stream:
                stream.write_table(table)


def answer(request: Request) -> tuple[dict[str, object], pa.Table | None]:
    """Run the query: `truncated`, `renamed` and rows, or else `error` (a reason) and `message`."""
    try:
        con = _connect(request)
        _check(con, request.sql)
        table, truncated = _fetch(con, request)
    except Unusable as refused:
        return {"error": refused.reason, "message": refused.detail}, None
    except DamageError as error:
        return {"error": error.reason, "message": str(error)}, None
    except (duckdb.Error, pa.ArrowException, OSError, MemoryError) as error:
        return {"error": _reason(error), "message": _first_line(error)}, None
    names, renamed = distinct(table.column_names)
    return {"truncated": truncated, "renamed": renamed}, table.rename_columns(names)


def distinct(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Make column names unique, ignoring case; also return one sentence for each change.

    The first column keeps its name; `key`, `key` become `key`, `key_1`. Joins usually repeat names,
    but JSON rows, polars frames and DuckDB (where `Key` equals `key`) need them unique.
    """
    taken = {name.lower() for name in names}
    found: list[str] = []
    said = []
    for place, name in enumerate(names, 1):
        new, number = name, 0
        while (number and new.lower() in taken) or new.lower() in {one.lower() for one in found}:
            number += 1
            new = f"{name}_{number}"
        found.append(new)
        if new != name:
            said.append(f"column {place}, {name!r}, is shown as {new!r}: its name is taken")
    return found, said


def _reason(error: Exception) -> str:
    """Return the reason of an error, from its text: DuckDB and Arrow preserve little else."""
    text = str(error)
    out_of_memory = isinstance(error, duckdb.OutOfMemoryException | MemoryError)
    if out_of_memory or re.search("out of memory|malloc", text, re.IGNORECASE):
        return "query.too_large"
    if isinstance(error, duckdb.PermissionException):
        return "query.refused"
    if "reading the stream registered as" in text or re.search(r"\b(IO|OS)Error\b", text):
        return DamageError.reason
    return "query.invalid"


def _threads() -> int:
    return min(_MAX_THREADS, os.cpu_count() or 1)


def _limit_process(request: Request) -> None:
    """Set the kernel's limits: no file writes, no core dump, bounded memory and CPU time."""
    cpu_sec = math.ceil(request.timeout_sec * _threads()) + 5  # in case the parent dies
    data_bytes = request.memory_mib << 20
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_sec, cpu_sec))
    resource.setrlimit(resource.RLIMIT_DATA, (data_bytes, data_bytes))


def _connect(request: Request) -> duckdb.DuckDBPyConnection:
    """Open a connection that has the views and no access to anything else."""
    con = duckdb.connect(
        ":memory:",
        config={
            "enable_external_access": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "allow_persistent_secrets": False,
            "python_enable_replacements": False,
            "temp_directory": "",
            "max_temp_directory_size": "0KB",
            # Half, because Arrow's read-ahead and the result need memory beside DuckDB's buffers.
            "memory_limit": f"{request.memory_mib // 2}MiB",
            "threads": _threads(),
        },
    )
    for name, source in sources(request):
        con.register(name, source)
    for view in VIEWS:
        con.execute(f"CREATE VIEW {view.name} AS {_view_sql(view.name, view.columns)}")
    con.execute("SET enable_progress_bar = false")
    con.execute("SET lock_configuration = true")
    return con


def _view_sql(view: str, columns: Mapping[str, object]) -> str:
    if view == "quarantine":
        return _QUARANTINE
    listed = ", ".join(_RENAMED.get(name, f'"{name}"') for name in columns)
    return f"SELECT {listed} FROM _{view}"


def _check(con: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Refuse anything except exactly one query.

    Raises:
        Unusable: query.refused or query.invalid.
    """
    try:
        statements = con.extract_statements(sql)
    except duckdb.ParserException as error:
        raise Unusable("query.invalid", _first_line(error)) from error
    if len(statements) != 1:
        raise Unusable("query.refused", f"{len(statements)} statements; only one is allowed")
    kind = statements[0].type
    if kind != duckdb.StatementType.SELECT:
        raise Unusable("query.refused", f"{kind.name} statements are not allowed")
    found = con.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()
    tree = json.loads(found[0][0])
    if tree["error"]:
        raise Unusable("query.refused", str(tree.get("error_message")))
    foreign = {node for node in _nodes(tree) if node not in _QUERY_NODES}
    if foreign:
        node = min(foreign).removesuffix("_QUERY_NODE")
        raise Unusable("query.refused", f"{node} is not allowed in a query")


def _nodes(tree: object) -> Iterator[str]:
    """Yield the types of all query nodes in a serialized parse tree."""
    todo = [tree]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            kind = value.get("type")
            if isinstance(kind, str) and kind.endswith("_NODE"):
                yield kind
            todo.extend(value.values())
        elif isinstance(value, list):
            todo.extend(value)


def _fetch(con: duckdb.DuckDBPyConnection, request: Request) -> tuple[pa.Table, bool]:
    """Fetch the first rows of the answer; the engine stops once there are enough."""
    asked = con.sql(request.sql)
    as_text = {place for place, kind in enumerate(asked.types) if not _arrives_whole(kind)}
    table, truncated = _rows(asked, as_text, request.limit)
    beyond = {place for place, column in enumerate(table.columns) if _is_beyond_python(column)}
    if beyond:  # known only now, so the query runs again; this is rare
        table, truncated = _rows(con.sql(request.sql), as_text | beyond, request.limit)
    return table, truncated


def _arrives_whole(kind: Any) -> bool:
    if kind.id in _NESTED:
        # The children of an array are its element and its length.
        children = kind.children[:1] if kind.id == "array" else kind.children
        return all(_arrives_whole(child) for _, child in children)
    return kind.id in _WHOLE


def _is_beyond_python(column: pa.ChunkedArray) -> bool:
    """Whether a date is outside Python's range: infinity, or a year above 9999 or below 1."""
    if not _holds_time(column.type):
        return False
    try:
        column.to_pylist()
    except (OverflowError, ValueError):
        return True
    return False


def _holds_time(kind: pa.DataType) -> bool:
    inner = (kind.field(place).type for place in range(kind.num_fields))
    return pa.types.is_temporal(kind) or any(map(_holds_time, inner))


def _rows(asked: duckdb.DuckDBPyRelation, as_text: Set[int], limit: int) -> tuple[pa.Table, bool]:
    names = asked.columns
    if as_text:
        places = range(len(names))
        asked = asked.project(
            ", ".join(f"#{place + 1}{'::VARCHAR' * (place in as_text)}" for place in places)
        )
    reader = asked.to_arrow_reader(max(1, min(limit + 1, 10_000)))
    batches, num_rows = [], 0
    for batch in reader:
        batches.append(batch)
        num_rows += batch.num_rows
        if num_rows > limit:
            break
    table = pa.Table.from_batches(batches, reader.schema)
    table = table.rename_columns(names)  # the projection has changed the names
    return table.slice(0, min(limit, num_rows)), num_rows > limit


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:500] if lines else type(error).__name__
