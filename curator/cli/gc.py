"""`gc`: remove leftover files of a store."""

from __future__ import annotations

from typing import Annotated

import typer

from curator.cli import options as o
from curator.cli.output import show, show_json
from curator.cli.trust import HARMLESS


def gc(
    dataset: o.WholeDataset,
    *,
    grace_days: Annotated[
        float, typer.Option(min=0, help="Keep younger files, which a writer may still need.")
    ] = 7.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what would be removed."), HARMLESS
    ] = False,
    store: o.StoreOption = None,
    json: o.Json = False,
) -> None:
    """Remove leftover files that no version refers to.

    Facts and versions are never removed.

    Example:

        curator gc shards/ --dry-run
    """
    from curator.steps.gc import collect, find_garbage
    from curator.steps.workspace import open_workspace, refuse_version

    refuse_version(dataset, "gc")
    opened = open_workspace(dataset, store).store
    find = find_garbage if dry_run else collect
    found = list(find(opened, grace_days=grace_days))
    if json:
        show_json([{"path": g.path, "size_bytes": g.size_bytes, "why": g.why} for g in found])
        return
    for garbage in found:
        show(f"{garbage.size_bytes:>12,}  {garbage.path}  ({garbage.why})")
    verb = "could be removed" if dry_run else "removed"
    total = sum(garbage.size_bytes for garbage in found)
    show(f"{len(found)} files, {total:,} bytes {verb}")
