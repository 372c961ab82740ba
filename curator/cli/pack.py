"""`pack`, `index`, `export`: read and write shards."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from curator.cli import options as o
from curator.cli.output import show, show_json
from curator.cli.trust import HARMLESS, INSIDE
from curator.core.errors import DamageError


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(pack)
    app.command()(index)
    app.command()(export)


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


def index(
    dataset: o.WholeDataset,
    *,
    caption_field: o.CaptionField = None,
    image_ext: o.ImageExt = None,
    workers: o.Workers = 1,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Accept this dataset as the store's own, moved here.")
    ] = False,
    store: o.StoreOption = None,
    json: o.Json = False,
) -> None:
    """Read every shard once and list all damage.

    Stores keys, offsets, hashes, sizes and alt texts. `recaption` and `score` index by themselves.

    Example:

        curator index shards/
    """
    from curator.core.run_options import RunOptions
    from curator.core.stopping import stop_on_signals
    from curator.shards.scan import ScanOptions
    from curator.steps.index import make_index, say_index
    from curator.steps.workspace import open_workspace, refuse_version
    from curator.store.runs import open_run

    refuse_version(dataset, "index")
    scan = ScanOptions(
        caption_field=caption_field, image_ext=tuple(image_ext) if image_ext else None
    )
    ws = open_workspace(dataset, store, create=True, adopt=adopt)
    with stop_on_signals() as stop, open_run(ws.store, "index", {"dataset": dataset}) as run:
        report = make_index(ws, scan, RunOptions(workers=workers), stop=stop)
        say_index(report, run)
    with contextlib.suppress(
        DamageError
    ):  # a damaged version does not affect the index; fsck reports it
        if (newest := ws.store.newest()) is not None:
            ws.say_missing(newest)
    if json:
        show_json(report.to_json())
    else:
        show(f"{report.num_usable:,} of {report.num_samples:,} samples are usable")


def export(
    dataset: o.Dataset,
    out: Annotated[Path, typer.Argument(help="Folder to write: new, or to resume.")],
    *,
    to: Annotated[
        Literal["wds", "parquet", "hf"],
        typer.Option(
            "--to", help="Tars, Parquet tables, or tars with a Hugging Face dataset card."
        ),
    ] = "wds",
    other_members: Annotated[
        bool,
        typer.Option("--other-members", help="Also copy members other than image, text and json."),
    ] = False,
    license: Annotated[
        str | None,
        typer.Option("--license", help="License id for the dataset card, e.g. cc-by-4.0."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", help="Column layout for parquet: recap-datacomp.")
    ] = None,
    store: o.StoreOption = None,
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
    from curator.steps.workspace import open_workspace

    options = ExportOptions(other_members=other_members, license=license, preset=preset)
    ws = open_workspace(dataset, store)
    ws.check_output(out)
    version = ws.version()
    total = version.counts["captioned"] + version.counts["kept"]
    with stop_on_signals() as stop, progress.bar("export", total, "samples") as advance:

        def step(number: int) -> None:
            advance(number)
            stop.check("finished shards are kept")

        report = run(ws.store, ws.shards, version, out, to=to, options=options, on_progress=step)
    for warning in report.warnings:
        progress.say(f"warning: {warning}")
    if json:
        show_json(report.to_json())
        return
    show(
        f"{version.name} -> {out}: {report.num_samples:,} samples, {report.num_captions:,} captions"
        f" in {report.num_shards} shards ({report.num_new_shards} new), {report.size_bytes:,} bytes"
    )
