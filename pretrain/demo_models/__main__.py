"""Train the scorer and the captioner of the rendered world from scratch.

    python -m pretrain.demo_models OUT [--only scorer|captioner] [--device cuda]

OUT/scorer and OUT/captioner are folders that `--scorer` and `--model` of `curator recaption` take.
After a stop or a crash the same command resumes from the last checkpoint and ends with the same
bytes. Scenes 0, 1, 2, ... are for training; the demo and the evaluation start at
`curator.demo.seeds.HELD_OUT`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer

from curator.cli.output import run_app
from curator.core.devices import choose_device
from curator.core.stopping import stop_on_signals
from pretrain.demo_models import captioner, scorer
from pretrain.demo_models.images import load_images

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def train(
    out: Annotated[Path, typer.Argument(metavar="OUT")],
    *,
    only: Annotated[Literal["scorer", "captioner"] | None, typer.Option()] = None,
    device: Annotated[str | None, typer.Option(help="Default: a GPU if there is one.")] = None,
    threads: Annotated[
        int, typer.Option(min=1, help="Threads; sums, and so the weights, depend on it.")
    ] = 1,
    scenes: Annotated[int, typer.Option(min=1)] = 20_000,
    captioner_steps: Annotated[int, typer.Option(min=1)] = 2000,
    scorer_steps: Annotated[int, typer.Option(min=1)] = 2000,
) -> None:
    """Train the scorer and the captioner of the rendered world from scratch.

    Each takes about 40 minutes on one core that multiplies bf16 in hardware.
    """
    torch.set_num_threads(threads)
    where = choose_device(device)
    images = load_images(out, 0, scenes)
    with stop_on_signals() as stop:
        if only != "scorer":
            captioner.train(
                images, out / "captioner", steps=captioner_steps, device=where, stop=stop
            )
        if only != "captioner":
            scorer.train(images, out / "scorer", steps=scorer_steps, device=where, stop=stop)


if __name__ == "__main__":
    sys.exit(run_app(app, sys.argv[1:], "python -m pretrain.demo_models"))
