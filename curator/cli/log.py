"""`log`: list the versions of a store."""

from __future__ import annotations

from curator.cli import options as o
from curator.cli.output import show, show_json, table


def log(dataset: o.WholeDataset, *, store: o.StoreOption = None, json: o.Json = False) -> None:
    """List all versions, newest first.

    Example:

        curator log shards/
    """
    from curator.core.clock import iso
    from curator.steps.workspace import open_workspace, refuse_version

    refuse_version(dataset, "log")
    ws = open_workspace(dataset, store, reads="versions")
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
