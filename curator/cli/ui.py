"""ui: the dashboard."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from curator.cli import options as o
from curator.cli.output import show


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(ui)


def ui(
    dataset: o.WholeDataset,
    *,
    store: o.StoreOption = None,
    studies: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Also show this study, or the studies below it."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; there is no password, so mind who is there.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8501,
) -> None:
    """Look through the captions in a browser, correct them, try policies.

    Shows the address and runs until Ctrl-C. It only reads what is there, beside a running job as
    well; edits, ratings and versions are added when somebody asks for them on a page.

    Example:

        curator ui shards/
    """
    from curator.core import progress
    from curator.core.registry import load
    from curator.steps.workspace import open_workspace, refuse_version

    refuse_version(dataset, "ui")
    opened = open_workspace(dataset, store)
    serving = load("ui.serve:Serving")(
        dataset=opened.spec, store=opened.store.root, studies=studies, host=host, port=port
    )
    if not serving.is_private:
        progress.say(f"anybody who can reach {host}:{serving.port} can read and edit the captions")
    show(serving.url)
    sys.stdout.flush()  # it may be a pipe, and the server keeps this process for itself
    load("ui.serve:serve")(serving)
