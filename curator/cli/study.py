"""`study`: compare versions on dense tasks, with seeds and intervals."""

from __future__ import annotations

import shlex
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from curator.cli import options as o
from curator.cli.output import show, show_json
from curator.core.errors import EngineError, UsageError
from curator.core.run_options import ExecutorName, require_ray_for

if TYPE_CHECKING:
    from curator.steps.workspace import StoreName
    from finetune.report.forecast import Forecast
    from finetune.study.cells import Runner
    from finetune.study.jobs import Jobs
    from finetune.study.recipe import Study

_CELLS_FAILED = "study.cells_failed"


def study(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="STUDY", help="A .toml file, or a built-in study: demo, reference, world."
        ),
    ],
    *,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the study; default: its name.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Set a {NAME} of the study file."),
    ] = None,
    store: o.StoreOption = None,
    jobs: Annotated[
        int,
        typer.Option(min=1, help="Parallel runs, each on one GPU or a part of the cores."),
    ] = 1,
    executor: o.Executor = "local",
    ray_address: o.RayAddress = None,
    device: o.Device = None,
    pretrain_only: Annotated[
        bool,
        typer.Option(
            "--pretrain-only",
            help="Pretrain only; the same command without it adds the dense runs.",
        ),
    ] = False,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="Only say what the study will cost and which differences it can show.",
        ),
    ] = False,
    pilot: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FOLDER",
            help="With --plan: take times and spreads from this study; default: from --out.",
        ),
    ] = None,
    json: o.Json = False,
) -> None:
    """Pretrain on versions, evaluate on dense tasks.

    Every arm is pretrained with every seed and finetuned on every task. Finished runs are kept, so
    the same command resumes after a stop or a crash. If a run fails, its reason is recorded, the
    others continue, and the exit code is 30.

    --plan says what the study will cost and which differences it can show, by the runs in --from;
    it runs and writes nothing.

    Example:

        curator study study.toml --set steps=400
    """
    from dataclasses import asdict

    from curator.core.stopping import stop_on_signals
    from finetune.study.recipe import read_study
    from finetune.study.run import run_study

    if pilot is not None and not plan:
        raise UsageError("--from goes with --plan", reason="study.from")
    values = dict(_setting(setting) for setting in settings or ())
    asked = read_study(recipe, values)

    from finetune.study import runner  # loads torch, after mistakes in the study file

    folder = out or Path(asked.name)
    again = [recipe, "--out", folder, "--jobs", jobs]
    again += [part for setting in settings or () for part in ("--set", setting)]
    again += [*(("--store", store) if store else ()), *(("--device", device) if device else ())]
    again += [] if executor == "local" else ["--executor", executor]
    again += ["--ray-address", ray_address] if ray_address else []
    if plan:
        from finetune.report.forecast import lines

        models = runner.ModelRunner(store, device)
        found = _forecast(asked, folder, models, pilot, pretrain_only=pretrain_only)
        if json:
            show_json(asdict(found))
            return
        for line in lines(found, jobs=jobs):
            show(line)
        show(f"next: {_command('study', *again, *(['--pretrain-only'] if pretrain_only else []))}")
        return
    with stop_on_signals() as stop, _jobs(executor, ray_address, jobs, store, device) as running:
        summary = run_study(
            asked,
            folder,
            runner=runner.ModelRunner(store, device),
            stop=stop,
            jobs=running,
            pretrain_only=pretrain_only,
        )
    from finetune.report.build import build_report

    decision = build_report(folder).decision
    if json:
        show_json({**asdict(summary), "folder": str(folder), "decision": asdict(decision)})
    else:
        show(f"{summary.num_done} of {summary.num_cells} runs are finished in {folder}")
        for reason in summary.reasons:
            show(f"failed: {reason}")
        show(decision.sentence)
        follows = ["study", *again] if pretrain_only else ["report", folder]
        show(f"next: {_command(*follows)}")
    if summary.num_failed:
        raise EngineError(
            f"{summary.num_failed} of {summary.num_cells} runs failed",
            where=folder,
            did="the others are kept",
            hint="the same command retries the failed runs",
            reason=_CELLS_FAILED,
        )


def _jobs(
    executor: ExecutorName,
    address: str | None,
    number: int,
    store: StoreName | None,
    device: str | None,
) -> AbstractContextManager[Jobs | None]:
    """Return where the runs are run; None is one after the other, in this process."""
    require_ray_for(executor, {"--ray-address": address})
    from finetune.study import runner

    arguments = {"store": store, "device": device}
    if executor == "ray":
        from curator.core.package import require

        require("ray", "--executor ray")
        from finetune.study.jobs_on_ray import on_ray  # loads ray

        return on_ray(runner.runner_on_node, arguments, number, address)
    from finetune.study.jobs import workers

    return workers(runner.runner_of_job, arguments, number) if number > 1 else nullcontext()


def _forecast(
    asked: Study, folder: Path, runner: Runner, pilot: Path | None, *, pretrain_only: bool
) -> Forecast:
    from finetune.report.forecast import forecast
    from finetune.study.files import STUDY_FILE, read_cells
    from finetune.study.plan import make_plan
    from finetune.study.run import check_folder

    check_folder(asked, folder)
    made = make_plan(asked, runner)
    cells = {cell.digest: cell for cell in made.cells}
    plan = made.to_json()
    if pretrain_only:
        plan["cells"] = [cell for cell in plan["cells"] if cell["kind"] == "pretrain"]
    return forecast(
        plan,
        read_cells(folder, damaged=[]),  # a damaged cell is run again
        pilot=pilot or (folder if (folder / STUDY_FILE).is_file() else None),
        rough=lambda cell: runner.rough_seconds(cells[cell["digest"]]),
    )


def _command(*words: object) -> str:
    return shlex.join(["curator", *map(str, words)])


def _setting(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign:
        raise UsageError(f"--set {text!r}", hint="write --set NAME=VALUE", reason="study.set")
    return name.strip(), value.strip()
