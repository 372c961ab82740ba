"""The pictures that both models are trained on: rendered once, kept in one array on disk."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from curator import fsops
from curator.demo.render import make_picture
from curator.demo.scene import Scene, sample_scene
from curator.progress import bar

SIDE_PX = 96
GRID = 6
"""Cells along a side of the captioner's feature map."""
_COVER = 0.12  # a cell belongs to the solid that covers most of it, if it covers this share


@dataclass(frozen=True, slots=True)
class Pictures:
    """N rendered scenes.

    Attributes:
        rgb: (N, SIDE_PX, SIDE_PX, 3) uint8.
        cells: (N, GRID, GRID) uint8, the solid that rules a cell of the picture, counted from 1.
        scenes: the scenes themselves.
    """

    rgb: np.ndarray[Any, np.dtype[np.uint8]]
    cells: np.ndarray[Any, np.dtype[np.uint8]]
    scenes: list[Scene]


def load_pictures(folder: Path, first_seed: int, count: int) -> Pictures:
    """Render scenes first_seed, first_seed + 1, ...; what was rendered before is read."""
    path = folder / f"scenes-{first_seed}-{count}-{SIDE_PX}.npz"
    if not path.exists():
        with (
            ProcessPoolExecutor(mp_context=get_context("spawn")) as pool,
            bar("render scenes", count, "scenes") as advance,
        ):
            rows = []
            for row in pool.map(_one, range(first_seed, first_seed + count), chunksize=64):
                rows.append(row)
                advance(1)
        out = io.BytesIO()
        rgb, cells, seeds = (np.stack(column) for column in zip(*rows, strict=True))
        np.savez(out, rgb=rgb, cells=cells, seeds=seeds)
        fsops.write_atomic(path, out.getvalue())
    with np.load(path) as stored:
        scenes = [sample_scene(int(seed)) for seed in stored["seeds"]]
        return Pictures(stored["rgb"], stored["cells"], scenes)


def _one(seed: int) -> tuple[np.ndarray, np.ndarray, np.int64]:
    scene, picture = make_picture(seed, SIDE_PX)
    step = SIDE_PX // GRID
    blocks = picture.instances.reshape(GRID, step, GRID, step).swapaxes(1, 2).reshape(-1, step**2)
    cells = np.zeros(GRID * GRID, np.uint8)
    for number, block in enumerate(blocks):
        counts = np.bincount(block, minlength=2)[1:]
        if counts.max() >= _COVER * block.size:
            cells[number] = counts.argmax() + 1
    return picture.rgb, cells.reshape(GRID, GRID), np.int64(scene.seed)


def batches(count: int, size: int, steps: int, seed: int) -> Iterator[np.ndarray]:
    """`steps` batches of numbers below `count`; every number comes once a round."""
    rng = np.random.default_rng(seed)
    waiting = np.empty(0, np.int64)
    for _ in range(steps):
        while len(waiting) < size:
            waiting = np.concatenate([waiting, rng.permutation(count)])
        yield waiting[:size]
        waiting = waiting[size:]
