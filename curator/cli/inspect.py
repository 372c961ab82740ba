"""log, show, tag: looking at versions and naming them."""

from __future__ import annotations

from typing import Annotated

import typer

from curator.cli import options as o
from curator.cli.output import show, show_json, table


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(log)
    app.command(name="show")(show_version)
    app.command()(tag)


def log(dataset: o.Dataset, *, store: o.StoreOption = None, json: o.Json = False) -> None:
    """List the versions, newest first.

    Example:

        curator log shards/
    """
    from curator.steps.workspace import open_workspace
    from curator.versions import iso

    opened = open_workspace(dataset, store).store
    tags: dict[int, list[str]] = {}
    for name, number in opened.tags().items():
        tags.setdefault(number, []).append(name)
    rows = []
    for version in reversed(list(opened.versions())):
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
        show("there is no version yet: `curator recaption` or `curator decide` makes one")


def show_version(dataset: o.Dataset, *, store: o.StoreOption = None, json: o.Json = False) -> None:
    """Show how a version was made: policy, thresholds, makers, counts.

    Example:

        curator show shards/@v2
    """
    from dataclasses import asdict

    from curator.steps.workspace import open_workspace
    from curator.versions import iso

    version = open_workspace(dataset, store).version()
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


def tag(
    dataset: o.Dataset,
    name: Annotated[str, typer.Argument(help="A word; moves if it exists.")],
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
    ws.store.tag(name, version)
    if json:
        show_json({"tag": name, "version": version.number, "id": version.id})
    else:
        show(f"{name} -> {version.name} ({version.id[:12]})")
