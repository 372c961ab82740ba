"""`ui`: start the dashboard."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from curator.cli import options as o
from curator.cli.output import show


def ui(
    dataset: o.WholeDataset,
    *,
    store: o.StoreOption = None,
    studies: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Also show this study, or all studies in this folder."),
    ] = None,
    host: Annotated[
        str,
        typer.Option(help="Address to listen on. No password: anyone who can reach it can edit."),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes any free one.")
    ] = 8501,
) -> None:
    """Open the dashboard: inspect, review, compare, query.

    Prints its address and runs until Ctrl-C. Reads the store, also while a job is running. Writes
    only what you ask for on a page: edits, ratings, policy files, versions.

    Example:

        curator ui shards/
    """
    from curator.core import progress
    from curator.steps.workspace import open_workspace, refuse_version
    from ui.serve import Serving, serve

    refuse_version(dataset, "ui")
    opened = open_workspace(dataset, store, reads="all")
    serving = Serving(
        dataset=opened.spec, store=opened.store.name, studies=studies, host=host, port=port
    )
    if not serving.is_private:
        progress.say(f"anyone who can reach {host}:{serving.port} can read and edit the captions")
    show(serving.url)
    sys.stdout.flush()  # stdout may be a pipe, and the server blocks from here on
    serve(serving)
