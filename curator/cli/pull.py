"""`pull`: bring what was pushed into the store."""

from __future__ import annotations

from curator.cli import options as o
from curator.cli.output import show, show_json


def pull(
    dataset: o.WholeDataset, url: o.StoreUrl, *, store: o.StoreOption = None, json: o.Json = False
) -> None:
    """Bring what was pushed into the store.

    Where there is no store it becomes a copy; otherwise what it lacks is merged into it.

    Example:

        curator pull shards/ s3://pictures/store
    """
    from curator.core.stopping import stop_on_signals
    from curator.shards.objects import parse_store_url
    from curator.steps.pull import pull as run
    from curator.steps.workspace import refuse_version

    refuse_version(dataset, "pull")
    with stop_on_signals() as stop:
        report = run(dataset, store, parse_store_url(url), stop=stop)
    if json:
        show_json(report.to_json())
        return
    what = f"{report.num_files:,} files copied"
    if (merged := report.merged) is not None:
        what = (
            f"merged {merged.num_fact_files:,} fact files, {merged.num_edits:,} edits and "
            f"{merged.num_ratings:,} ratings"
        )
    show(f"push {report.number} of {url}: {what}; newest version {report.newest or '-'}")
