"""`tag`: give a version a name."""

from __future__ import annotations

from typing import Annotated

import typer

from curator.cli import options as o
from curator.cli.output import show, show_json


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
