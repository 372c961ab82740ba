"""`diff`: compare two versions, caption by caption."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from curator.cli import options as o
from curator.cli.output import check_writable, show, show_json
from curator.cli.trust import HARMLESS
from curator.core.errors import GateError, UsageError

if TYPE_CHECKING:
    from curator.steps.workspace import Workspace


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
    ws = open_workspace(old, store, reads="all")
    if new is not None:
        older, newer = (
            ws.version(),
            _in_same_store(ws, open_workspace(new, store, reads="all")).version(),
        )
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
