"""The training images of both models, rendered once and kept in one array on disk."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from curator.core.progress import bar
from curator.core.stopping import StopRequest
from curator.demo.render import RenderedImage, make_image
from curator.demo.scene import MATERIALS, Scene, sample_scene
from curator.demo.seeds import training_seeds
from curator.demo.workers import Chunk, chunks_of, make_chunks
from curator.store import fsops

SIDE_PX = 64
"""Side of the images that the models see: things are large enough for it."""
GRID = 8
"""Cells along a side of the feature maps, one per 8 pixels."""
_RENDERED_PX = 128  # as in the demo's shards, so that the models see images made smaller as there
_CHUNK = 200
_COVER = 0.12  # a cell belongs to the thing that covers most of it, if that covers this fraction


@dataclass(frozen=True, slots=True)
class SceneImages:
    """N rendered scenes, some of whose things have patterns.

    Attributes:
        rgb: (N, SIDE_PX, SIDE_PX, 3) uint8.
        cells: (N, GRID, GRID) uint8, the thing that covers a cell of the image, from 1; 0 if none.
        scenes: the scenes that were rendered.
    """

    rgb: np.ndarray[Any, np.dtype[np.uint8]]
    cells: np.ndarray[Any, np.dtype[np.uint8]]
    scenes: list[Scene]


def load_images(folder: Path, first_seed: int, count: int) -> SceneImages:
    """Render scenes first_seed, first_seed + 1, ..., or read them if they were rendered before.

    Raises:
        UsageError: some of the scenes are held out.
    """
    seeds = training_seeds(first_seed, count)
    path = folder / f"scenes-{first_seed}-{count}-{SIDE_PX}.npz"
    if not path.exists():
        fsops.write_atomic(path, _rendered(seeds))
    with np.load(path) as stored:
        scenes = [sample_scene(int(seed), MATERIALS) for seed in stored["seeds"]]
        return SceneImages(stored["rgb"], stored["cells"], scenes)


def _rendered(seeds: range) -> bytes:
    rgb = np.empty((len(seeds), SIDE_PX, SIDE_PX, 3), np.uint8)
    cells = np.empty((len(seeds), GRID, GRID), np.uint8)
    scene_seeds = np.empty(len(seeds), np.int64)
    # This request is never set: all images are in one file, so a stop could keep nothing.
    stop = StopRequest()
    chunks = chunks_of(len(seeds), _CHUNK)
    with bar("render scenes", len(seeds), "scenes") as advance:
        for chunk, made in make_chunks(partial(_make_chunk, seeds), chunks, stop=stop):
            at = slice(chunk.start, chunk.stop)
            rgb[at], cells[at], scene_seeds[at] = (np.stack(column) for column in made)
            advance(len(chunk))
    out = io.BytesIO()
    np.savez(out, rgb=rgb, cells=cells, seeds=scene_seeds)
    return out.getvalue()


def _make_chunk(seeds: range, chunk: Chunk) -> tuple[list[np.ndarray], list[np.ndarray], list[int]]:
    made = [make_image(seeds[number], _RENDERED_PX, MATERIALS) for number in chunk]
    return (
        [_smaller(image.rgb) for _, image in made],
        [_cells(image) for _, image in made],
        [scene.seed for scene, _ in made],
    )


def _smaller(rgb: np.ndarray) -> np.ndarray:
    # Bicubic, as both models' own preprocessing.
    return np.asarray(Image.fromarray(rgb).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC))


def _cells(image: RenderedImage) -> np.ndarray:
    step = _RENDERED_PX // GRID
    blocks = image.instances.reshape(GRID, step, GRID, step).swapaxes(1, 2).reshape(-1, step**2)
    cells = np.zeros(GRID * GRID, np.uint8)
    for number, block in enumerate(blocks):
        counts = np.bincount(block, minlength=2)[1:]
        if counts.max() >= _COVER * block.size:
            cells[number] = counts.argmax() + 1
    return cells.reshape(GRID, GRID)


def as_pixels(rgb: np.ndarray[Any, np.dtype[np.uint8]]) -> torch.Tensor:
    """Convert (B, side, side, 3) uint8 to (B, 3, side, side) float32 in -1..1, channels last."""
    pixels = torch.from_numpy(rgb).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pixels.contiguous(memory_format=torch.channels_last)


def batches(count: int, size: int, seed: int, first: int = 0) -> Iterator[np.ndarray]:
    """Yield batches of numbers below `count` without end, from batch number `first` on.

    Every number comes once per epoch.
    """
    rng = np.random.default_rng(seed)
    waiting = np.empty(0, np.int64)
    for number in itertools.count():
        while len(waiting) < size:
            waiting = np.concatenate([waiting, rng.permutation(count)])
        if number >= first:
            yield waiting[:size]
        waiting = waiting[size:]
