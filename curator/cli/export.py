"""`export`: write a version as files that any trainer reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from curator.cli import options as o
from curator.cli.output import show, show_json


def export(
    dataset: o.Dataset,
    out: Annotated[
        str,
        typer.Argument(
            metavar="OUT", help="Folder to write, new or to resume; also s3://, gs:// or az://."
        ),
    ],
    *,
    to: Annotated[
        Literal["wds", "open_clip", "datacompdr", "hf", "parquet", "overlay"],
        typer.Option(
            "--to",
            help="Tars: wds for any trainer, open_clip with all captions by weight, datacompdr for"
            " MobileCLIP, hf with a dataset card. Tables: parquet, and overlay to publish"
            " captions without images.",
        ),
    ] = "wds",
    other_members: Annotated[
        bool,
        typer.Option("--other-members", help="Also copy members other than image, text and json."),
    ] = False,
    license: Annotated[
        str | None,
        typer.Option(
            "--license",
            help="License id for the card of hf and overlay, e.g. cc-by-4.0; unknown if left out.",
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", help="Column layout for parquet: recap-datacomp.")
    ] = None,
    store: o.StoreOption = None,
    cache_dir: o.CacheDir = None,
    cache_size: o.CacheSize = None,
    json: o.Json = False,
) -> None:
    """Write a version as files that any trainer reads.

    Image bytes are copied unchanged.

    Example:

        curator export shards/@v2 out/
    """
    from curator.core import progress
    from curator.core.stopping import stop_on_signals
    from curator.export.version import ExportOptions
    from curator.export.version import export as run
    from curator.shards.patterns import check_scheme
    from curator.shards.places import is_remote, parse
    from curator.steps.workspace import open_workspace

    options = ExportOptions(other_members=other_members, license=license, preset=preset)
    ws = open_workspace(dataset, store, reads="all")
    if not is_remote(out):
        check_scheme(out)
    folder = parse(out) if is_remote(out) else Path(out)
    ws.check_output(folder)
    version = ws.version()
    total = version.counts["captioned"] + version.counts["kept"]
    with stop_on_signals() as stop, progress.bar("export", total, "samples") as advance:

        def step(number: int) -> None:
            advance(number)
            stop.check("finished shards are kept")

        report = run(ws.store, ws.shards, version, folder, to=to, options=options, on_progress=step)
    for warning in report.warnings:
        progress.say(f"warning: {warning}")
    if json:
        show_json(report.to_json())
        return
    show(
        f"{version.name} -> {out}: {report.num_samples:,} samples, {report.num_captions:,} captions"
        f" in {report.num_shards} shards ({report.num_new_shards} new), {report.size_bytes:,} bytes"
    )
    for command in report.commands:
        show(f"{command.about}:\n  {command.text}")
