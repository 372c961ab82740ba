"""The command `pretrain`: train an image tower on a version of the captions."""

from __future__ import annotations

import shlex
from os import environ
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from curator.cli import options as o
from curator.cli.output import show, show_json
from pretrain.objectives import OBJECTIVES

if TYPE_CHECKING:
    from pretrain.run_files import RunSummary


def pretrain(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET[@VERSION]", help="Shards with a store, or exported shards without one."
        ),
    ],
    *,
    recipe: Annotated[
        str, typer.Option("--recipe", help="A preset (demo, vit-b16, ...) or a .toml file.")
    ] = "demo",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FOLDER", help="Folder of the run; default: runs/RECIPE-VERSION."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one value of the recipe (lr=5e-4, simmim.mask=0.5); repeat for more. "
            f"Objectives: {', '.join(OBJECTIVES)}.",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET@VERSION",
            help="Version whose text lengths or sample count a control arm matches.",
        ),
    ] = None,
    held_out: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Held-out pairs to check the model on; default: a tenth, at most 500.",
        ),
    ] = None,
    device: o.Device = None,
    store: o.StoreOption = None,
    cache_dir: o.CacheDir = None,
    cache_size: o.CacheSize = None,
    json: o.Json = False,
) -> None:
    """Train an image tower on the captions of a version.

    CLIP or SigLIP learn from image-text pairs, MAE or SimMIM from the images alone. Everything else
    is set by the recipe. The same command resumes a run that was stopped. On several GPUs:
    torchrun --nproc-per-node 8 -m curator pretrain ...

    Example:

        curator pretrain shards/@v2 --recipe demo --set seed=1 --out runs/v2-seed1
    """
    from curator.core.stopping import stop_on_signals
    from curator.steps.workspace import open_workspace, split_spec
    from pretrain.data.captions_table import split_table
    from pretrain.recipe import read_recipe

    chosen = read_recipe(recipe).changed(settings or [])

    if split_table(dataset) is None and split_spec(dataset)[1] is not None:
        open_workspace(
            dataset, store, reads="versions"
        ).version()  # raises if there is no such version

    from pretrain import run  # loads torch, after mistakes in the recipe

    where = out or Path("runs") / f"{chosen.name}-{_label(dataset)}"
    with stop_on_signals() as stop:
        summary = run.pretrain(
            dataset,
            chosen,
            where,
            store=store,
            reference=reference,
            held_out=held_out,
            device=device,
            stop=stop,
        )
    if environ.get("RANK", "0") != "0":
        return  # only one of torchrun's processes prints
    if json:
        show_json({"out": str(where), **summary.to_json()})
    else:
        show(_summary_text(where, summary))


def _label(dataset: str) -> str:
    """Return a folder name for a dataset: shards/@v2 -> shards-v2."""
    path, _, version = dataset.partition("@")
    return "-".join(part for part in (Path(path).name, version) if part).replace("/", "-")


def _summary_text(out: Path, summary: RunSummary) -> str:
    lines = [
        f"trained {summary.recipe} on {summary.source}",
        f"  {summary.samples_seen:,} samples seen ({summary.epochs:.1f} epochs) in "
        f"{summary.steps:,} steps, {summary.seconds:,.0f} s, {summary.flops:.2e} FLOPs, "
        f"{summary.precision} on {summary.device}",
        "  " + ", ".join(f"{name} {value:.4g}" for name, value in summary.final.items()),
    ]
    lines += [f"  {sentence}" for sentence in summary.cut_texts()]
    if summary.retrieval:
        found = summary.retrieval
        lines.append(
            f"  retrieval among {found['num_pairs']:,.0f} held-out pairs: image to text R@1 "
            f"{found['image_to_text_r1']:.1%}, R@5 {found['image_to_text_r5']:.1%}; text to image "
            f"R@1 {found['text_to_image_r1']:.1%}, R@5 {found['text_to_image_r5']:.1%}"
        )
    if summary.zero_shot:
        found = summary.zero_shot
        lines.append(
            f"  zero-shot recognition of {found['num_words']:,.0f} words of their captions: AUROC "
            f"{found['word_auroc']:.3f} (0.5 is chance)"
        )
    lines.append(
        f"`curator finetune {shlex.quote(str(out))}` evaluates it on your labelled images:"
    )
    lines.append("next: curator finetune --help")
    return "\n".join(lines)
