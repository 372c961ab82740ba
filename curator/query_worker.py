"""The process that runs one query; see `curator.query` for what it guards against and how.

Reads a `Request` as JSON on stdin. Answers on stdout with one line of JSON, then the rows as an
Arrow IPC stream. Started by `curator.query.run_query` only.
"""

from __future__ import annotations

import json
import math
import os
import re
import resource
import sys
from collections.abc import Iterator, Mapping

import duckdb
import pyarrow as pa

from curator.errors import DamageError, Unusable
from curator.query import VIEWS, Request
from curator.query_tables import sources

_MAX_THREADS = 4
# What the parse tree of a query may consist of; COPY, INSERT, ... are nodes too (as CTEs).
_QUERY_NODES = frozenset(("SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"))

# Columns whose value in the view is not the column of the same name.
_RENAMED = {
    "byte_offset": '"offset" AS byte_offset',
    "num_bytes": "length AS num_bytes",
    "created": "make_timestamp(CAST(created * 1000000 AS BIGINT)) AS created",
}
# A failure counts while no later attempt succeeded; a success can only follow a failure as an
# attempt above 0, so that the right side of the anti join stays small.
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


def main() -> None:
    """Answer the request on stdin, within the limits of the process."""
    request = Request(**json.loads(sys.stdin.buffer.read()))
    _limit_process(request)
    pa.set_cpu_count(_threads())
    head, table = answer(request)
    out = sys.stdout.buffer
    out.write(json.dumps(head).encode() + b"\n")
    if table is not None:
        with pa.ipc.new_stream(out, table.schema) as stream:
            stream.write_table(table)
    out.flush()


def answer(request: Request) -> tuple[dict[str, object], pa.Table | None]:
    """Run the query: `truncated` and the rows, or `error` (a reason) with `message`."""
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
    return {"truncated": truncated}, table


def _reason(error: Exception) -> str:
    """Errors while rows are read cross DuckDB and Arrow, and only their text arrives whole."""
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
    """What the kernel enforces: no file is written, no core dumped, memory and time are bounded."""
    cpu_sec = math.ceil(request.timeout_sec * _threads()) + 5  # if the parent dies, nobody kills us
    data_bytes = request.memory_mib << 20
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_sec, cpu_sec))
    resource.setrlimit(resource.RLIMIT_DATA, (data_bytes, data_bytes))


def _connect(request: Request) -> duckdb.DuckDBPyConnection:
    """A connection in which the views exist and nothing else can be reached."""
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
            # Half: Arrow's read-ahead and the result lie beside DuckDB's buffers.
            "memory_limit": f"{request.memory_mib // 2}MiB",
            "threads": _threads(),
        },
    )
    for name, source in sources(request):
        con.register(name, source)
    for view in VIEWS:
        con.execute(f"CREATE VIEW {view.name} AS {_view_sql(view.name, view.columns)}")
    con.execute("SET lock_configuration = true")
    return con


def _view_sql(view: str, columns: Mapping[str, object]) -> str:
    if view == "quarantine":
        return _QUARANTINE
    listed = ", ".join(_RENAMED.get(name, f'"{name}"') for name in columns)
    return f"SELECT {listed} FROM _{view}"


def _check(con: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Refuse everything but one query.

    Raises:
        Unusable: query.refused or query.invalid.
    """
    try:
        statements = con.extract_statements(sql)
    except duckdb.ParserException as error:
        raise Unusable("query.invalid", _first_line(error)) from error
    if len(statements) != 1:
        raise Unusable("query.refused", f"{len(statements)} statements instead of one")
    kind = statements[0].type
    if kind != duckdb.StatementType.SELECT:
        raise Unusable("query.refused", f"a {kind.name} statement")
    found = con.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()
    tree = json.loads(found[0][0])
    if tree["error"]:
        raise Unusable("query.refused", str(tree.get("error_message")))
    foreign = {node for node in _nodes(tree) if node not in _QUERY_NODES}
    if foreign:
        raise Unusable("query.refused", f"a {min(foreign).removesuffix('_QUERY_NODE')} inside")


def _nodes(tree: object) -> Iterator[str]:
    """The types of all query nodes in a serialized parse tree."""
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
    """The first rows of the answer. The engine stops when enough of them came."""
    reader = con.sql(request.sql).to_arrow_reader(max(1, min(request.limit + 1, 10_000)))
    batches, num_rows = [], 0
    for batch in reader:
        batches.append(batch)
        num_rows += batch.num_rows
        if num_rows > request.limit:
            break
    table = pa.Table.from_batches(batches, reader.schema)
    return table.slice(0, request.limit), num_rows > request.limit


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:500] if lines else type(error).__name__
