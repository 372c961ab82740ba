"""Prepare the world of the reference study (`finetune/studies/reference.toml`).

    python -m benchmarks.reference_study WORLD [--images 12000] [--labelled 2000] [--seed 100]

Renders the images, captions them with the bundled captioner, commits its captions, and writes
WORLD/alt_texts.parquet: for every image (column image_sha256) four alt texts, of which 15, 37, 60
and 80 % are right (columns right_15, ...). The noise among the wrong ones has the demo's mix. A
stopped preparation continues; what is there is not made again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl

from curator.demo.alttext import DEFAULT_RATES, alt_text
from curator.demo.data import materials, other_scene
from curator.demo.evaluate import read_truth
from curator.demo.render import ATTEMPTS
from curator.demo.scene import sample_scene

RIGHT_PERCENT = (15, 37, 60, 80)
RIGHT = ("good", "html")
"""The kinds of alt text that contain a true English caption."""


def rates(right: float) -> dict[str, float]:
    """Return rates of alt texts of which a fraction `right` is right, else mixed as by default."""
    default = sum(DEFAULT_RATES[kind] for kind in RIGHT)
    return {
        kind: rate * (right / default if kind in RIGHT else (1 - right) / (1 - default))
        for kind, rate in DEFAULT_RATES.items()
    }


def alt_texts(truth: pl.DataFrame) -> pl.DataFrame:
    """Return alt texts at every rate for the images of a truth table."""
    columns: dict[str, list[str]] = {f"right_{percent}": [] for percent in RIGHT_PERCENT}
    for scene_seed, patterns in truth.select("scene_seed", "patterns").iter_rows():
        used = materials(patterns)
        scene = sample_scene(scene_seed, used)
        other = other_scene(scene, scene_seed // ATTEMPTS, used)
        for percent in RIGHT_PERCENT:
            rng = np.random.default_rng((percent, scene_seed))
            text = alt_text(scene, other, rates(percent / 100), rng).text
            columns[f"right_{percent}"].append(text)
    return pl.DataFrame({"image_sha256": truth["image_sha256"], **columns})


def main() -> None:
    """Prepare the world named on the command line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("world", type=Path)
    options.add_argument("--images", type=int, default=12_000)
    options.add_argument("--labelled", type=int, default=2_000)
    options.add_argument("--seed", type=int, default=100)
    asked = options.parse_args()
    world = asked.world
    counts = ["--images", asked.images, "--labelled", asked.labelled, "--seed", asked.seed]
    for argv in (
        ["demo", "data", world, *counts],
        ["recaption", world / "shards", "--policy", "replace"],
    ):
        command = [sys.executable, "-m", "curator", *map(str, argv)]
        print("$ curator", *argv, flush=True)
        subprocess.run(command, check=True)
    alt_texts(read_truth(world)).write_parquet(world / "alt_texts.parquet")
    print("next: curator study reference --set", f"world={world}", "--jobs 2")


if __name__ == "__main__":
    main()
