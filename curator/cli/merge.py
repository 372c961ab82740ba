"""`merge`: unite stores of one dataset."""

from __future__ import annotations

from typing import Annotated

import typer

from curator.cli import options as o
from curator.cli.output import show, show_json


def merge(
    dataset: o.WholeDataset,
    stores: Annotated[
        list[str],
        typer.Argument(
            metavar="STORE...",
            help="Stores to read, folders or URLs of `curator push`; they do not change.",
        ),
    ],
    *,
    store: o.StoreOption = None,
    json: o.Json = False,
) -> None:
    """Unite the stores of slices in the dataset's store.

    Adds facts, edits, ratings, versions, tags and runs. What is there already is not added again,
    so a merge that was stopped, or stores that have grown, are merged by the same command.

    Example:

        curator merge shards/ slices/*/
    """
    from pathlib import Path

    from curator.core.stopping import stop_on_signals
    from curator.shards.places import is_remote, parse
    from curator.steps.merge import merge as run
    from curator.steps.merge import open_stores
    from curator.steps.workspace import open_workspace, refuse_version
    from curator.store.runs import open_run

    refuse_version(dataset, "merge")
    ws = open_workspace(dataset, store, create=True)
    places = [parse(name) if is_remote(name) else Path(name) for name in stores]
    open_stores(ws, places)  # report a wrong path before a run is recorded
    options = {"dataset": dataset, "stores": stores}
    with stop_on_signals() as stop, open_run(ws.store, "merge", options):
        report = run(ws, places, stop=stop)
    if json:
        show_json(report.to_json())
        return
    added = {
        "shards": report.num_shards,
        "fact files": report.num_fact_files,
        "edits": report.num_edits,
        "ratings": report.num_ratings,
        "tags": report.num_tags,
        "runs": report.num_runs,
    }
    listed = ", ".join(f"{count:,} {what}" for what, count in added.items() if count)
    show(f"merged {report.num_stores} stores: {listed or 'everything was there already'}")
    for there, here in report.versions.items():
        if there.rpartition(" ")[2] != here:
            show(f"  {there} is {here}")
    if report.num_unfinished:
        show(
            f"  {report.num_unfinished:,} journals of unfinished runs: their facts so far are "
            "merged; run these slices again, then merge again"
        )
    if report.num_rival_edits:
        show(
            f"  {report.num_rival_edits:,} texts were edited differently in two stores: the "
            "earlier edit counts (`curator edits list` shows all)"
        )
    if report.num_not_indexed:
        show(
            f"  {report.num_not_indexed:,} of {len(ws.shards):,} shards are in none of the stores, "
            f"first {report.not_indexed[0]!r}"
        )
    else:
        show(f"next: {ws.command('decide')}")
