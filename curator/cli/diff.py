"""`log`, `show`, `diff`, `query`, `tag`: inspect versions and name them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from curator.cli import options as o
from curator.cli.output import check_writable, show, show_json, table
from curator.cli.trust import HARMLESS
from curator.core.errors import GateError, UsageError

if TYPE_CHECKING:
    from curator.steps.workspace import Workspace


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(log)
    app.command(name="show")(show_version)
    app.command()(diff)
    app.command()(query)
    app.command()(tag)


def log(dataset: o.WholeDataset, *, store: o.StoreOption = None, json: o.Json = False) -> None:
    """List all versions, newest first.

    Example:

        curator log shards/
    """
    from curator.core.clock import iso
    from curator.steps.workspace import open_workspace, refuse_version

    refuse_version(dataset, "log")
    ws = open_workspace(dataset, store)
    opened = ws.store
    tags: dict[int, list[str]] = {}
    for name, number in opened.tags().items():
        tags.setdefault(number, []).append(name)
    rows = []
    for version in reversed(list(opened.versions())):
        ws.say_missing(version)
        scored = version.totals.get("num_scored", 0)
        rows.append(
            {
                "version": version.name,
                "id": version.id[:12],
                "created": iso(version.created),
                "policy": version.policy["name"],
                **version.counts,
                "mean_score": version.totals["score_sum"] / scored if scored else None,
                "tags": " ".join(tags.get(version.number, [])),
            }
        )
    if json:
        show_json(rows)
    elif rows:
        show(table([list(row.values()) for row in rows], list(rows[0])))
    else:
        show("there is no version yet: make one with `curator recaption` or `curator decide`")


def show_version(dataset: o.Dataset, *, store: o.StoreOption = None, json: o.Json = False) -> None:
    """Show how a version was made.

    Example:

        curator show shards/@v2
    """
    from dataclasses import asdict

    from curator.core.clock import iso
    from curator.steps.workspace import open_workspace

    ws = open_workspace(dataset, store)
    version = ws.version()
    ws.say_missing(version, "you can inspect this version, but not export it from here")
    if json:
        show_json(asdict(version))
        return
    lines = [
        f"{version.name}  {version.id}",
        f"created {iso(version.created)} by caption-curator {version.tool_version}",
        f"parent  {version.parent or '-'}",
        f"policy  {version.policy['name']}: {version.policy['description']}",
    ]
    lines += [f"  {name} = {value:.4f}" for name, value in sorted(version.thresholds.items())]
    for name, recipe in version.makers.items():
        lines.append(f"maker   {name}")
        lines += [f"  {key} = {value}" for key, value in recipe.items()]
    lines.append(f"samples {version.num_samples:,} in {len(version.shards)} shards")
    lines += [f"  {action:<12}{count:>12,}" for action, count in version.counts.items()]
    show("\n".join(lines))


def diff(
    old: Annotated[str, typer.Argument(metavar="DATASET@OLD", help="The older version.")],
    new: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATASET@NEW]", help="The newer version; default: the newest, or OLD's child."
        ),
    ] = None,
    *,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a self-contained page with images.")
    ] = None,
    changes: Annotated[
        Path | None, typer.Option("--changes", help="Write every changed caption as JSONL.")
    ] = None,
    max_dropped: Annotated[
        float | None,
        typer.Option(help="Gate: maximum fraction of newly dropped samples."),
        HARMLESS,
    ] = None,
    min_shift: Annotated[
        float | None, typer.Option(help="Gate: minimum change of the mean score."), HARMLESS
    ] = None,
    max_lost_names: Annotated[
        float | None,
        typer.Option(help="Gate: maximum fraction of alt texts that lose a name."),
        HARMLESS,
    ] = None,
    store: o.StoreOption = None,
    json: o.Json = False,
) -> None:
    """Compare two versions, caption by caption.

    Given one version, compares it with its parent. Exits with 5 when a gate is violated.

    Example:

        curator diff shards/@v1 shards/@v2 --html diff.html
    """
    from dataclasses import asdict

    from curator.compare import diff as compare
    from curator.compare.text import render_text
    from curator.core import progress
    from curator.core.hashing import canonical_json
    from curator.steps.workspace import open_workspace
    from curator.store import fsops

    for out in (html, changes):  # check before the comparison, which can take an hour
        if out is not None:
            check_writable(out)
    ws = open_workspace(old, store)
    if new is not None:
        older, newer = ws.version(), _in_same_store(ws, open_workspace(new, store)).version()
    else:
        newer = ws.version()
        if newer.number == 1:
            raise UsageError(
                "v1 has nothing before it", hint="name two versions", reason="version.none"
            )
        older = ws.store.version(newer.number - 1)
    for version in (older, newer):
        ws.say_missing(version)
    num_shards = len({entry.name for version in (older, newer) for entry in version.shards})
    with progress.bar("diff", num_shards, "shards") as advance:
        found = compare.diff(ws.store, older, newer, advance=advance)
    if changes is not None:
        with fsops.atomic_file(changes) as file:
            for change in compare.changes(ws.store, older, newer):
                file.write(canonical_json(asdict(change)) + b"\n")
    if html is not None:
        from curator.compare.html import render_html, thumbnails  # with matplotlib

        page = render_html(found, thumbnails(ws.store, ws.dataset, found))
        fsops.write_atomic(html, page.encode())
    show_json(asdict(found), indent=1) if json else show(render_text(found))
    violated = compare.gate(
        found,
        max_dropped_share=max_dropped,
        min_mean_score_shift=min_shift,
        max_lost_names_share=max_lost_names,
    )
    if violated:
        raise GateError("; ".join(violated), hint="see the report above for where")


def _in_same_store(ws: Workspace, other: Workspace) -> Workspace:
    """Return `other` if both versions are in one store. Raises UsageError if not."""
    if ws.store.root.resolve() != other.store.root.resolve():
        raise UsageError(
            f"{ws.spec} and {other.spec} have different stores",
            where=other.store.root,
            hint="compare two versions of one dataset, or name their store with --store",
            reason="version.not_taken",
        )
    return other


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
    from curator.core import progress
    from curator.query.run import run_query
    from curator.steps.workspace import open_workspace

    ws = open_workspace(dataset, store)
    chosen = ws.version() if ws.version_name is not None else ws.store.newest()
    version = chosen.number if chosen else None
    if chosen is not None and re.search(r"captions\b", sql, re.IGNORECASE):
        ws.say_missing(chosen, "their rows are left out")
    names = [ref.name for ref in ws.shards]
    found = run_query(
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


def tag(
    dataset: o.Dataset,
    name: Annotated[str, typer.Argument(help="Tag name; an existing tag is moved.")],
    *,
    store: o.StoreOption = None,
    json: o.Json = False,
) -> None:
    """Give a version a name.

    Example:

        curator tag shards/@v2 best
    """
    from curator.steps.workspace import open_workspace

    ws = open_workspace(dataset, store)
    version = ws.version()
    ws.say_missing(version)
    ws.store.tag(name, version)
    if json:
        show_json({"tag": name, "version": version.number, "id": version.id})
    else:
        show(f"{name} -> {version.name} ({version.id[:12]})")
