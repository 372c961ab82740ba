"""`query`: read-only SQL over samples, captions and scores."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from curator.cli import options as o
from curator.cli.output import show, show_json, table
from curator.cli.trust import HARMLESS


def query(
    dataset: o.Dataset,
    sql: Annotated[str, typer.Argument(help="One SELECT statement over the views below.")],
    *,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of rows."), HARMLESS] = 1000,
    timeout: Annotated[float, typer.Option(help="Time limit in seconds.")] = 30.0,
    store: o.StoreOption = None,
    json: o.Json = False,
) -> None:
    """Run a read-only SQL query over samples, captions and scores.

    Views: samples, captions (of DATASET@VERSION), all_captions, generated, scores, edits,
    versions, quarantine. Their columns are listed in docs/reference/query.md.

    Example:

        curator query shards/ "select source, count(*) from captions group by source"
    """
    from curator.query.run import QueryProcess

    with QueryProcess() as process:
        from curator.core import progress
        from curator.steps.workspace import open_workspace

        ws = open_workspace(dataset, store, reads="all")
        chosen = ws.version() if ws.version_name is not None else ws.store.newest()
        version = chosen.number if chosen else None
        if chosen is not None and re.search(r"captions\b", sql, re.IGNORECASE):
            ws.say_missing(chosen, "their rows are left out")
        names = [ref.name for ref in ws.shards]
        found = process.run(
            ws.store, sql, version=version, shards=names, limit=limit, timeout_sec=timeout
        )
    names = found.table.column_names
    rows = list(zip(*(column.to_pylist() for column in found.table.columns), strict=True))
    if json:
        for row in rows:
            show_json(dict(zip(names, row, strict=True)))
    else:
        show(table(rows, names))
    for sentence in found.renamed:
        progress.say(sentence)
    if found.truncated:
        progress.say(f"only the first {limit:,} rows are shown; raise --limit to see more")
