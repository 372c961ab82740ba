"""study, report: what versions are worth for dense tasks, with seeds and intervals."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from curator.cli import inspect
from curator.cli import options as o
from curator.cli.output import show, show_json
from curator.core.errors import EngineError, UsageError

_CELLS_FAILED = "study.cells_failed"


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(study)
    app.command()(report)


def study(
    recipe: Annotated[str, typer.Argument(metavar="STUDY", help="A study file, or demo.")],
    *,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the study; default: its name.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Fill a {NAME} of the study file."),
    ] = None,
    store: o.StoreOption = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Runs at a time: a GPU each, or a share of the cores.")
    ] = 1,
    device: o.Device = None,
    pretrain_only: Annotated[
        bool, typer.Option("--pretrain-only", help="No dense runs yet: a later call makes them.")
    ] = False,
    json: o.Json = False,
) -> None:
    """Pretrain on versions, judge on dense tasks.

    Arms times seeds times tasks; runs what is missing, so the same command goes on after a stop or
    a crash. A cell that fails keeps its reason and the others go on; the exit code is then 30.
    With --jobs, several cells run side by side.

    Example:

        curator study study.toml --set steps=400
    """
    from contextlib import nullcontext
    from dataclasses import asdict

    from curator.core.registry import load
    from curator.core.stopping import stop_on_signals

    values = dict(_setting(setting) for setting in settings or ())
    asked = load("finetune.study.recipe:read_study")(recipe, values)
    folder = out or Path(asked.name)
    models = {"store": store, "device": device}
    runner = load("finetune.study.runner:ModelRunner")(**models)
    workers, make = load("finetune.study.jobs:workers"), "finetune.study.runner:runner_of_job"
    with (
        stop_on_signals() as stop,
        workers(make, models, jobs) if jobs > 1 else nullcontext() as side_by_side,
    ):
        summary = load("finetune.study.run:run_study")(
            asked,
            folder,
            runner=runner,
            stop=stop,
            jobs=side_by_side,
            pretrain_only=pretrain_only,
        )
    if json:
        show_json({**asdict(summary), "folder": str(folder)})
    else:
        show(f"{summary.num_done} of {summary.num_cells} runs are finished in {folder}")
        for reason in summary.reasons:
            show(f"failed: {reason}")
        again = [recipe, "--out", folder, *_set_again(settings or ()), "--jobs", jobs]
        again += [*(("--store", store) if store else ()), *(("--device", device) if device else ())]
        follows = ["study", *again] if pretrain_only else ["report", folder]
        show(f"next: {shlex.join(['curator', *map(str, follows)])}")
    if summary.num_failed:
        raise EngineError(
            f"{summary.num_failed} of {summary.num_cells} runs failed",
            where=folder,
            did="the others are kept",
            hint="the same command tries the failed ones again",
            reason=_CELLS_FAILED,
        )


def _set_again(settings: Sequence[str]) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def _setting(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign:
        raise UsageError(f"--set {text!r}", hint="write --set NAME=VALUE", reason="study.set")
    return name.strip(), value.strip()


def report(
    target: Annotated[
        str, typer.Argument(metavar="STUDY_FOLDER", help="What `curator study` made; or a version.")
    ],
    other: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATASET@NEW]", help="Compare versions: DATASET@OLD DATASET@NEW, as `diff`."
        ),
    ] = None,
    *,
    out: Annotated[
        Path | None, typer.Option(help="The page; default: report.html in the study's folder.")
    ] = None,
    store: o.StoreOption = None,
    json: o.Json = False,
) -> None:
    """Write the verdict of a study as a page.

    HTML that opens without a network, and Markdown beside it. With two versions instead of a
    folder, it is the comparison of `curator diff --html`.

    Example:

        curator report study-folder --out verdict.html
    """
    if other is not None:
        page = out or Path("report.html")
        inspect.diff(target, other, html=page, store=store, json=json)
        return
    from curator.core.registry import load

    written = load("finetune.report.write:write_report")(Path(target), out)
    headline = load("finetune.report.text:headline")(written.report)
    if json:
        sentences = [{"task": task, "verdict": said} for task, said in headline]
        files = {"html": str(written.html), "markdown": str(written.markdown)}
        show_json({**files, "verdict": sentences, "warnings": written.report.warnings})
        return
    for task, said in headline:
        show(f"{task}: {said}")
    for warning in written.report.warnings:
        show(f"  note: {warning}")
    show(f"written: {written.html} and {written.markdown}")
