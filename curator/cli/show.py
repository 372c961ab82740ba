"""`show`: how a version was made."""

from __future__ import annotations

from curator.cli import options as o
from curator.cli.output import show, show_json


def show_version(dataset: o.Dataset, *, store: o.StoreOption = None, json: o.Json = False) -> None:
    """Show how a version was made.

    Example:

        curator show shards/@v2
    """
    from dataclasses import asdict

    from curator.core.clock import iso
    from curator.steps.workspace import open_workspace

    ws = open_workspace(dataset, store, reads="versions")
    version = ws.version()
    ws.say_missing(version, "you can inspect this version, but not export it from here")
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
