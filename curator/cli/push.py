"""`push`: copy the store to an object store."""

from __future__ import annotations

from curator.cli import options as o
from curator.cli.output import show, show_json


def push(
    dataset: o.WholeDataset, url: o.StoreUrl, *, store: o.StoreOption = None, json: o.Json = False
) -> None:
    """Copy the store to an object store.

    Copies what is not there yet; the commit comes last. Nothing there is changed or removed. If
    another machine pushed since, it is refused: pull first. Jobs may go on meanwhile.

    Example:

        curator push shards/ s3://pictures/store
    """
    from curator.core.stopping import stop_on_signals
    from curator.shards.objects import parse_store_url
    from curator.steps.push import push as run
    from curator.steps.workspace import open_workspace, refuse_version

    refuse_version(dataset, "push")
    ws = open_workspace(dataset, store)
    with stop_on_signals() as stop:
        report = run(ws, parse_store_url(url), stop=stop)
    if json:
        show_json(report.to_json())
    elif report.is_new:
        show(
            f"push {report.number} of {url}: {report.num_new_files:,} files "
            f"({report.num_new_bytes:,} bytes) copied, {report.num_files:,} in all; newest version "
            f"{report.newest or '-'}"
        )
    else:
        show(f"push {report.number} of {url} has everything already")
