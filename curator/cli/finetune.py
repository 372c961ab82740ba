"""The command `finetune`: train a backbone on a dense task and evaluate it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curator.cli import options as o
from curator.cli.output import show, show_json, table
from curator.core.errors import UsageError
from finetune.protocols import PROTOCOLS
from finetune.tasks import TASKS

if TYPE_CHECKING:
    from finetune.grid import Grid
    from finetune.metrics import Metric


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(finetune)


def finetune(
    backbone: Annotated[
        str,
        typer.Argument(
            metavar="BACKBONE",
            help="Folder of a `curator pretrain` run, or open_clip:NAME:TAG, timm:NAME, "
            "random:NAME, or a local open_clip folder.",
        ),
    ],
    *,
    task: Annotated[str, typer.Option(help=f"One of: {', '.join(TASKS)}.")],
    data: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of labelled images.")],
    layout: Annotated[
        str | None,
        typer.Option(help="Layout of the folder; default: recognised from its files."),
    ] = None,
    head: Annotated[
        str | None, typer.Option(help="linear, fpn or upernet; default: by backbone and protocol.")
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            help="How the labels are used; all but finetune freeze the backbone: "
            + "; ".join(f"{name}: {one.help}" for name, one in PROTOCOLS.items())
            + "."
        ),
    ] = "finetune",
    fraction: Annotated[
        str,
        typer.Option(
            metavar="FRACTION,...", help="Fractions of the training images to use, e.g. 0.1,1."
        ),
    ] = "1",
    seeds: Annotated[
        int, typer.Option(min=1, help="Runs per fraction; their standard deviation is shown.")
    ] = 1,
    lr: Annotated[
        float | None, typer.Option(help="Peak learning rate; default: by protocol.")
    ] = None,
    layer_decay: Annotated[
        float | None,
        typer.Option(
            help="Learning rate of a block (plain ViT) or stage, relative to the next deeper one; "
            "default: by architecture. 1: the same for all layers."
        ),
    ] = None,
    sweep: Annotated[
        bool,
        typer.Option(
            "--sweep", help="Choose the learning rate on validation images, never on test images."
        ),
    ] = False,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Images per step.")] = None,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Image size in pixels, e.g. 360x480.")
    ] = None,
    inference: Annotated[
        str | None,
        typer.Option(
            help="whole: the resized image; keep: at its aspect ratio; slide: through a window of "
            "--size. Default: by protocol."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set one of the other options (drop_path=0.2, stride_px=[256,256]); repeat for "
            "more. docs/reference/finetune.md lists them.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Keep the results in this folder; also resumes a run there.")
    ] = None,
    device: o.Device = None,
    json: o.Json = False,
) -> None:
    """Train a backbone on a dense task and evaluate it.

    Metrics are shown as in the report: mIoU, AP and δ₁ in per cent (0 to 100), RMSE in metres; ± is
    the standard deviation over seeds. --json has both: `metrics` as stored (fractions from 0 to 1,
    metres), and `shown` as in the table.

    Example:

        curator finetune runs/clip-v2 --task segmentation --data camvid/ --protocol solved
    """
    from curator.core.package import require
    from curator.core.stopping import stop_on_signals
    from finetune.layouts import find_layout, open_dense
    from finetune.options import parse_options

    require("train", "curator finetune")  # before the labels are read, which can take minutes
    if sweep and lr is not None:
        raise UsageError("--lr and --sweep exclude each other", reason="option.value")
    given = {
        "task": task,
        "head": head,
        "protocol": protocol,
        "lr": lr,
        "layer_decay": layer_decay,
        "steps": steps,
        "batch_size": batch_size,
        "image_px": None if size is None else _pixels(size),
        "inference": inference,
    }
    values = {name: value for name, value in given.items() if value is not None}
    values |= _settings(settings or [], given)
    cells = [
        parse_options({**values, "fraction": one, "seed": seed})
        for one in _fractions(fraction)
        for seed in range(seeds)
    ]
    labels = TASKS.spec(task).labels
    layout = find_layout(labels, data, layout)  # a wrong folder is told before torch is loaded
    TASKS.get(task)  # refuse a class that breaks its contract before opening the data
    opened = open_dense(labels, data, layout)

    from finetune.grid import run_grid  # loads torch, after mistakes in the options

    with stop_on_signals() as stop:
        found = run_grid(
            backbone, opened, cells, choose_rate=sweep, out=out, device=device, stop=stop
        )
    if json:
        show_json(_as_json(backbone, found))
    else:
        _show(task, found)


def _fractions(text: str) -> list[float]:
    try:
        return sorted({float(part) for part in text.split(",")})
    except ValueError as error:
        raise UsageError(
            f"--fraction is {text!r}", hint="e.g. 0.01,0.1,1", reason="option.value"
        ) from error


def _settings(settings: Sequence[str], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of --set; `flags` are those that have an option of their own."""
    from curator.core.validation import toml_value

    found: dict[str, Any] = {}
    for setting in settings:
        key, sign, text = (part.strip() for part in setting.partition("="))
        if not sign:
            raise UsageError(f"--set {setting!r}", hint="write --set KEY=VALUE")
        if key in flags or key in ("fraction", "seed", "swept"):
            raise UsageError(
                f"--set {key}: it has an option of its own",
                hint="see curator finetune --help",
                reason="option.value",
            )
        found[key] = toml_value(text)
    return found


def _pixels(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise UsageError(
            f"--size is {text!r}", hint="height x width, e.g. 360x480", reason="option.value"
        )
    return int(height), int(width)


def _show(task: str, found: Grid) -> None:
    from finetune.report.text import flops, parameters
    from finetune.study.results import metric_of

    data, swept = found.data, found.swept
    every = [run for runs in found.results.values() for run in runs]
    show(f"{data.folder.name}, {task}: evaluated on {len(data.test):,} test images")
    show(f"protocol {every[0].protocol} [{every[0].protocol_digest}]")
    for run in every:
        if run.certificate is not None:
            show(_certified(run.num_train, run.certificate))
    if swept is not None:
        by = metric_of(swept.metric)
        tried = ", ".join(
            f"{rate:g}: {'not finite' if value is None else by.number(value)}"
            for rate, value in swept.tried
        )
        show(f"learning rate {swept.lr:g}, set by {by.heading} on {swept.evaluated_on} ({tried})")
        if swept.at_edge:
            show("it is the smallest or largest rate tried; a wider range may contain a better one")
    metrics = [metric_of(name) for name in next(iter(found.results.values()))[0].metrics]
    rows = []
    for runs in found.results.values():
        spread = [_spread(metric, [run.metrics[metric.name] for run in runs]) for metric in metrics]
        seconds = statistics.mean(run.seconds for run in runs)
        rows.append([runs[0].num_train, len(runs), *spread, f"{seconds:,.0f} s"])
    show(table(rows, ["labels", "seeds", *(metric.heading for metric in metrics), "time"]))
    sizes = every[0].parameters
    show(
        f"{parameters(sizes['all'])} parameters, {parameters(sizes['backbone'])} of them in the "
        f"backbone; {flops(every[0].image_flops)} FLOPs to evaluate an image"
    )
    if len(next(iter(found.results.values()))) == 1:
        show("to compare backbones, use --seeds 3: one seed does not show the spread")
    else:
        show("run the same for another backbone to compare; `curator study` gives intervals")


def _certified(num_train: int, found: Mapping[str, Any]) -> str:
    """Say how a solved probe was found, and how close to the optimum it is."""
    from finetune.study.results import metric_of

    by = metric_of(found["metric"])
    tried = ", ".join(f"{one['strength']:g}: {by.number(one['score'])}" for one in found["curve"])
    relative = found["gradient_norm"] / (found["gradient_norm_at_zero"] or 1)
    cells = f"{found['cells']:,} of {found['cells_in_all']:,} cells"
    capped = ", stopped before its tolerance" if found["hit_cap"] else ""
    edge = ", the last one allowed" if found["at_edge"] else ""
    return (
        f"{num_train:,} images, {cells}: L2 strength {found['strength']:g}{edge}, set by "
        f"{by.heading} on {found['chosen_on']} ({tried}); gradient {relative:.1e} of that at zero "
        f"weights after {found['iterations']} iterations{capped}"
    )


def _spread(metric: Metric, values: Sequence[float]) -> str:
    mean = metric.number(statistics.mean(values))
    return mean if len(values) == 1 else f"{mean} ± {metric.number(statistics.stdev(values))}"


def _as_json(backbone: str, found: Grid) -> dict[str, object]:
    from dataclasses import asdict

    from finetune.study.results import metric_of

    cells = []
    for fraction, runs in found.results.items():
        for seed, run in enumerate(runs):
            shown = [(metric_of(name), value) for name, value in run.metrics.items()]
            cells.append(
                {
                    "fraction": fraction,
                    "seed": seed,
                    **run.to_json(),
                    "shown": {
                        metric.heading: round(value * metric.scale, metric.digits)
                        for metric, value in shown
                    },
                }
            )
    return {
        "backbone": backbone,
        "data": found.data.describe(),
        "sweep": None if found.swept is None else asdict(found.swept),
        "cells": cells,
    }
