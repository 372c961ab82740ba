"""`demo`: render a dataset with known ground truth and run every command on it."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curator.cli import options as o
from curator.cli.output import run_app, show, show_json, table

if TYPE_CHECKING:
    from curator.demo.evaluate import TruthScores

_Out = Annotated[Path, typer.Argument(help="Folder for the demo: new, or to resume.")]
_MOST_JOBS = 4  # each needs 1 GB of memory
_Images = Annotated[
    int, typer.Option(min=1, help="Number of images with alt text to put into shards.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = typer.Typer(
        help="Render a dataset with known ground truth, offline.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command()(data)
    group.command()(run)
    app.add_typer(group, name="demo")


def data(
    out: _Out,
    *,
    images: _Images = 3000,
    labelled: Annotated[
        int,
        typer.Option(min=0, help="Number of images with dense labels: 60/10/30 % train/val/test."),
    ] = 1000,
    side: Annotated[
        int, typer.Option(help="Width and height of each image in pixels, 32 to 1024.")
    ] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the dataset.")] = 0,
    noise: Annotated[
        str | None,
        typer.Option(
            metavar="KIND=RATE,...",
            help="Rate of each kind of alt text; rates sum to 1.",
        ),
    ] = None,
    patterns: Annotated[
        bool, typer.Option("--patterns", help="Also make striped and dotted things.")
    ] = False,
    json: o.Json = False,
) -> None:
    """Render shards with noisy alt text, their ground truth, and dense labels.

    A stopped run resumes where it stopped.

    Example:

        curator demo data world/ --labelled 4000 --noise good=0.5,spam=0.5
    """
    from curator.core.stopping import stop_on_signals
    from curator.demo.alttext import DEFAULT_RATES, parse_rates
    from curator.demo.data import DemoData, make_data

    asked = DemoData(
        images=images,
        labelled=labelled,
        side_px=side,
        seed=seed,
        patterns=patterns,
        rates=parse_rates(noise) if noise else DEFAULT_RATES,
    )
    with stop_on_signals() as stop:
        report = make_data(out, asked, stop=stop)
    if json:
        show_json(report.to_json())
    else:
        show(f"{report.num_packed:,} images in {report.num_shards} shards below {out / 'shards'}")
        show(f"next: {shlex.join(['curator', 'recaption', str(out / 'shards')])}")


def run(
    context: typer.Context,
    out: _Out = Path("demo-out"),
    *,
    images: _Images = 3000,
    study: Annotated[
        bool, typer.Option(help="End with a study on dense tasks: 10 to 30 minutes on two cores.")
    ] = True,
    quick: Annotated[
        bool, typer.Option("--quick", help="Run a smaller study, too small to name a winner.")
    ] = False,
    seed: Annotated[
        int, typer.Option(min=0, help="Random seed of the dataset; another seed, other images.")
    ] = 0,
) -> None:
    """Run every step on a rendered dataset, offline.

    Renders shards, captions and scores them with the bundled models, commits versions and compares
    them with the ground truth; then pretrains on them, finetunes on dense tasks and writes the
    report. A stopped run resumes where it stopped; a finished one is not repeated.

    Example:

        curator demo run demo-out --quick
    """
    from curator.core.progress import say

    if study and quick:
        say("--quick: three seeds and half the samples, too few to name a winner")
    shards = out / "shards"
    curator = context.find_root().command
    data_options = f"--images {images} --labelled {min(1000, images)} --seed {seed}".split()
    _run_all(
        curator,
        ["demo", "data", str(out), *data_options],
        ["recaption", str(shards)],  # its options are in the folder's curator.toml
        ["decide", str(shards), "--policy", "as-is"],
        ["decide", str(shards), "--policy", "replace"],
        ["log", str(shards)],
        ["fsck", str(shards), "--deep"],
    )
    page = out / "diff.html"
    say(f"\n$ curator diff {shards}@v2 {shards}@v1 --html {page}    # its first sentence")
    _compare(shards, page)
    _show_truth(out, shards)
    if study:
        _run_all(curator, _study_command(out, quick=quick), ["report", str(out / "study")])
    show("\nNext, with models on your own shards:")
    show("  curator recaption SHARDS --model HuggingFaceTB/SmolVLM-500M-Instruct --policy best")


def _run_all(curator: Callable[..., Any], *commands: list[str]) -> None:
    """Run `curator` commands in this process as if typed, including settings files."""
    from curator.core.progress import say

    for argv in commands:
        say(f"\n$ curator {' '.join(argv)}")
        if code := run_app(curator, argv):
            raise typer.Exit(code)


def _study_command(out: Path, *, quick: bool) -> list[str]:
    import os

    settings = {"demo": str(out)}
    if quick:
        settings |= {"seeds": "3", "samples": "16000"}
    asked = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    jobs = min(_MOST_JOBS, os.cpu_count() or 1)
    return ["study", "demo", *asked, "--out", str(out / "study"), "--jobs", str(jobs)]


def _compare(shards: Path, page: Path) -> None:
    """Compare two versions as `diff` does, without its tables, which are too long for a tour."""
    from curator.compare import diff as compare
    from curator.compare.html import render_html, thumbnails
    from curator.compare.text import WIDTH, verdict
    from curator.steps.workspace import open_workspace
    from curator.store import fsops

    ws = open_workspace(str(shards), None, create=False)
    found = compare.diff(ws.store, ws.store.version(2), ws.store.version(1))
    fsops.write_atomic(page, render_html(found, thumbnails(ws.store, ws.dataset, found)).encode())
    show(textwrap.fill(verdict(found), WIDTH))


def _show_truth(out: Path, shards: Path) -> None:
    from curator.demo.evaluate import read_truth, score_against_truth, separation
    from curator.steps.workspace import open_workspace

    ws = open_workspace(str(shards), None, create=False)
    truth = read_truth(out)
    newest = {str(version.policy["name"]): version for version in ws.store.versions()}
    versions = [newest[policy] for policy in ("as-is", "replace", "best")]
    show("\nCompared with the ground truth, which no model saw:")
    show(_verdict_table([score_against_truth(ws.store, version, truth) for version in versions]))
    rows = [
        (kind, f"{value:.3f}")
        for kind, value in separation(ws.store, newest["as-is"], truth).items()
    ]
    show("\nDoes the score separate good alt texts from noisy ones?")
    show(table(rows, ["noise", "AUROC"]))
    show(f"\nOpen {out / 'diff.html'} in a browser.")


def _verdict_table(found: list[TruthScores]) -> str:
    rows = [
        (
            f"{j.version} {j.policy}",
            f"{j.num_texts:,} of {j.num_samples:,}",
            f"{j.summary.right_share:.1%}",
            f"{j.summary.facts['object'].f1:.3f}",
            f"{j.summary.hallucination_rate:.1%}",
            f"{j.mean_score:.3f}",
        )
        for j in found
    ]
    return table(
        rows, ["version", "captions", "right", "F1 of kinds", "hallucinated", "mean score"]
    )
