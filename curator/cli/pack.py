"""`pack`: images and captions into shards."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from curator.cli import options as o
from curator.cli.output import show, show_json
from curator.cli.trust import HARMLESS, INSIDE


def pack(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder of images with .txt, .caption or .json files or a metadata.jsonl or .csv;"
            " or a .jsonl, .csv, COCO .json, .parquet."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Folder for the shards: new, or to resume.")],
    *,
    format: Annotated[
        str | None,
        typer.Option("--format", help="folder, jsonl, csv, coco or parquet; default: by content."),
        HARMLESS,
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images", help="Folder that paths in a table are relative to and must stay in."
        ),
        INSIDE,
    ] = None,
    image_column: Annotated[
        str | None,
        typer.Option("--image-column", help="Column with the image path or image bytes."),
        HARMLESS,
    ] = None,
    caption_column: Annotated[
        str | None,
        typer.Option("--caption-column", help="Caption column; '' for none."),
        HARMLESS,
    ] = None,
    samples_per_shard: Annotated[int, typer.Option(min=1, help="Rows per shard.")] = 10_000,
    json: o.Json = False,
) -> None:
    """Pack images and captions into .tar shards.

    The layout is that of img2dataset; image bytes are copied unchanged.

    Example:

        curator pack photos/ shards/
    """
    from curator.core import progress
    from curator.core.stopping import stop_on_signals
    from curator.pack.shards import PackOptions
    from curator.pack.shards import pack as run
    from curator.pack.sources import SourceOptions

    columns = SourceOptions(images=images, image_column=image_column, caption_column=caption_column)
    options = PackOptions(format=format, source=columns, samples_per_shard=samples_per_shard)
    with stop_on_signals() as stop, progress.bar("pack", None, "rows") as advance:

        def step(number: int) -> None:
            advance(number)
            stop.check("finished shards are kept")

        report = run(source, out, options=options, on_progress=step)
    for warning in report.warnings:
        progress.say(f"warning: {warning}")
    if json:
        show_json(report.to_json())
        return
    show(
        f"{report.num_packed:,} of {report.num_rows:,} rows packed into {report.num_shards} shards"
        f" ({report.num_new_shards} new), {report.num_without_caption:,} without a caption"
        + (
            f", {report.num_blank_captions:,} with a blank caption"
            if report.num_blank_captions
            else ""
        )
    )
    for reason, count in report.failures.items():
        show(f"  not packed: {count:,}x {reason} (see the .parquet beside each shard)")
    show(f"next: {shlex.join(['curator', 'index', str(out)])}")
