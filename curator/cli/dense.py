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

    Shares are between 0 and 1, RMSE in metres; ± is the standard deviation over seeds.

    Example:

        curator finetune runs/clip-v2 --task segmentation --data camvid/ --size 360x480 --probe
    """
    from curator.errors import UsageError
    from curator.registry import load
    from curator.stopping import stop_on_signals

    if sweep and lr is not None:
        raise UsageError("--lr and --sweep exclude each other", reason="option.value")
    given = {
        "task": task,
        "head": head,
        "freeze": probe,
        "lr": lr,
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
        show_json(_as_json(backbone, opened.describe(), found.swept, found.results))
    else:
        _show(opened, found.swept, found.results)


def _shares(text: str) -> list[float]:
    from curator.errors import UsageError

    try:
        return sorted({float(part) for part in text.split(",")})
    except ValueError as error:
        raise UsageError(
            f"--fraction is {text!r}", hint="e.g. 0.01,0.1,1", reason="option.value"
        ) from error


def _pixels(text: str) -> tuple[int, int]:
    from curator.errors import UsageError

    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise UsageError(
            f"--size is {text!r}", hint="height x width, e.g. 360x480", reason="option.value"
        )
    return int(height), int(width)


def _show(opened: Any, swept: Any, results: Mapping[float, Sequence[Any]]) -> None:
    facts = opened.describe()
    show(f"{facts['folder']}, {facts['task']}: judged on {facts['num_test']:,} test pictures")
    if swept is not None:
        tried = ", ".join(
            f"{rate:g}: {'not finite' if value is None else f'{value:.3f}'}"
            for rate, value in swept.tried.items()
        )
        show(f"learning rate {swept.best_lr:g} by {swept.metric} on {swept.judged_on} ({tried})")
        if swept.at_edge:
            show("that is the edge of what was tried: a wider range may hold a better one")
    names = list(next(iter(results.values()))[0].metrics)
    rows = []
    for found in results.values():
        spread = [_spread([one.metrics[name] for one in found]) for name in names]
        seconds = statistics.mean(one.seconds for one in found)
        rows.append([found[0].num_train, len(found), *spread, f"{seconds:,.0f} s"])
    show(table(rows, ["labels", "seeds", *names, "time"]))
    if len(next(iter(results.values()))) == 1:
        show("next: --seeds 3 shows the spread, without which two backbones cannot be compared")
    else:
        show("next: the same with another backbone; a verdict with intervals: curator study")


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.mean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.3f}"


def _as_json(
    backbone: str,
    facts: Mapping[str, object],
    swept: Any,
    results: Mapping[float, Sequence[Any]],
) -> dict[str, object]:
    return {
        "backbone": backbone,
        "data": facts,
        "sweep": None
        if swept is None
        else {"best_lr": swept.best_lr, "tried": swept.tried, "judged_on": swept.judged_on},
        "cells": [
            {
                "fraction": share,
                "seed": seed,
                "lr": one.lr,
                "num_train": one.num_train,
                "num_test": one.num_test,
                "seconds": one.seconds,
                "flops": one.flops,
                "metrics": one.metrics,
                "per_class": one.per_class,
            }
            for share, found in results.items()
            for seed, one in enumerate(found)
        ],
    }
