"""finetune: what a pretrained backbone is worth for segmentation, depth and detection."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from curator.cli import options as o
from curator.cli.output import show, show_json, table


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
    task: Annotated[str, typer.Option(help="segmentation, depth or detection.")],
    data: Annotated[Path, typer.Option(metavar="FOLDER", help="Labelled pictures.")],
    layout: Annotated[
        str | None, typer.Option(help="Layout of the folder; default: recognised.")
    ] = None,
    head: Annotated[
        str, typer.Option(help="linear, fpn or upernet; auto: by backbone and mode.")
    ] = "auto",
    probe: Annotated[
        bool,
        typer.Option(
            "--probe/--finetune", help="Train a linear head only, or everything (default)."
        ),
    ] = False,
    fraction: Annotated[
        str, typer.Option(metavar="SHARE,...", help="Shares of the training pictures, e.g. 0.1,1.")
    ] = "1",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each share; the spread is shown.")] = 1,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate; default: by mode.")] = None,
    layer_decay: Annotated[
        float | None,
        typer.Option(
            help="Rate of a block (plain ViT) or stage, as a share of the next deeper one's; "
            "default: by architecture. 1: one rate."
        ),
    ] = None,
    sweep: Annotated[
        bool,
        typer.Option("--sweep", help="Choose the rate on validation pictures, never on test."),
    ] = False,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Pictures a step.")] = None,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Pixels to train at, e.g. 360x480.")
    ] = None,
    inference: Annotated[
        str, typer.Option(help="whole: resized pictures; slide: a moving window.")
    ] = "whole",
    out: Annotated[
        Path | None, typer.Option(help="Keep results here; a stopped run goes on there.")
    ] = None,
    device: o.Device = None,
    json: o.Json = False,
) -> None:
    """Train a backbone on a dense task; judge it.

    mIoU, AP and δ₁ are in per cent (0 to 100), RMSE in metres, as in the report; ± is the standard
    deviation over seeds. --json has both: `metrics` as stored (shares from 0 to 1, metres), and
    `shown` as in the table.

    Example:

        curator finetune runs/clip-v2 --task segmentation --data camvid/ --size 360x480 --probe
    """
    from curator.core.errors import UsageError
    from curator.core.package import require
    from curator.core.registry import load
    from curator.core.stopping import stop_on_signals

    require("train", "curator finetune")  # before the labels are read, which can take minutes
    if sweep and lr is not None:
        raise UsageError("--lr and --sweep exclude each other", reason="option.value")
    if probe and layer_decay is not None:
        raise UsageError(
            "--layer-decay and --probe exclude each other",
            hint="a probe trains no layer of the backbone",
            reason="option.value",
        )
    given = {
        "task": task,
        "head": head,
        "freeze": probe,
        "lr": lr,
        "layer_decay": layer_decay,
        "steps": steps,
        "batch_size": batch_size,
        "image_px": None if size is None else _pixels(size),
        "inference": inference,
    }
    values = {name: value for name, value in given.items() if value is not None}
    parse = load("finetune.options:parse_options")
    cells = [
        parse({**values, "fraction": share, "seed": seed})
        for share in _shares(fraction)
        for seed in range(seeds)
    ]
    opened = load("finetune.layouts:open_dense")(task, data, layout)
    with stop_on_signals() as stop:
        found = load("finetune.grid:run_grid")(
            backbone, opened, cells, choose_rate=sweep, out=out, device=device, stop=stop
        )
    if json:
        show_json(_as_json(backbone, found.data.describe(), found.swept, found.results))
    else:
        _show(found.data, found.swept, found.results)


def _shares(text: str) -> list[float]:
    from curator.core.errors import UsageError

    try:
        return sorted({float(part) for part in text.split(",")})
    except ValueError as error:
        raise UsageError(
            f"--fraction is {text!r}", hint="e.g. 0.01,0.1,1", reason="option.value"
        ) from error


def _pixels(text: str) -> tuple[int, int]:
    from curator.core.errors import UsageError

    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise UsageError(
            f"--size is {text!r}", hint="height x width, e.g. 360x480", reason="option.value"
        )
    return int(height), int(width)


def _show(opened: Any, swept: Any, results: Mapping[float, Sequence[Any]]) -> None:
    from curator.core.registry import load

    metric_of = load("finetune.study.results:metric_of")
    facts = opened.describe()
    show(f"{facts['folder']}, {facts['task']}: judged on {facts['num_test']:,} test pictures")
    if swept is not None:
        by = metric_of(swept.metric)
        tried = ", ".join(
            f"{rate:g}: {'not finite' if value is None else by.number(value)}"
            for rate, value in swept.tried.items()
        )
        show(f"learning rate {swept.best_lr:g} by {by.heading} on {swept.judged_on} ({tried})")
        if swept.at_edge:
            show("that is the edge of what was tried: a wider range may hold a better one")
    names = list(next(iter(results.values()))[0].metrics)
    rows = []
    for found in results.values():
        spread = [_spread(metric_of(name), [one.metrics[name] for one in found]) for name in names]
        seconds = statistics.mean(one.seconds for one in found)
        rows.append([found[0].num_train, len(found), *spread, f"{seconds:,.0f} s"])
    headings = [metric_of(name).heading for name in names]
    show(table(rows, ["labels", "seeds", *headings, "time"]))
    if len(next(iter(results.values()))) == 1:
        show("--seeds 3 shows the spread, without which two backbones cannot be compared")
    else:
        show("compare it with the same for another backbone; `curator study` gives intervals")


def _spread(metric: Any, values: Sequence[float]) -> str:
    mean: str = metric.number(statistics.mean(values))
    return mean if len(values) == 1 else f"{mean} ± {metric.number(statistics.stdev(values))}"


def _shown(metric_of: Any, metrics: Mapping[str, float]) -> dict[str, float]:
    """The numbers of the table under its headings: {"mIoU (%)": 8.7}."""
    told = {metric_of(name): value for name, value in metrics.items()}
    return {one.heading: round(value * one.scale, one.digits) for one, value in told.items()}


def _as_json(
    backbone: str,
    facts: Mapping[str, object],
    swept: Any,
    results: Mapping[float, Sequence[Any]],
) -> dict[str, object]:
    from curator.core.registry import load

    metric_of = load("finetune.study.results:metric_of")
    return {
        "backbone": backbone,
        "data": facts,
        "sweep": None
        if swept is None
        else {
            "best_lr": swept.best_lr,
            "metric": swept.metric,
            "tried": swept.tried,
            "judged_on": swept.judged_on,
        },
        "cells": [
            {
                "fraction": share,
                "seed": seed,
                "lr": one.lr,
                "layer_decay": one.layer_decay,
                "num_train": one.num_train,
                "num_test": one.num_test,
                "seconds": one.seconds,
                "flops": one.flops,
                "metrics": one.metrics,
                "shown": _shown(metric_of, one.metrics),
                "per_class": one.per_class,
            }
            for share, found in results.items()
            for seed, one in enumerate(found)
        ],
    }
