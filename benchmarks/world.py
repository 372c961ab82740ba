"""The rendered world: scenes a second a core, redraws of hidden scenes and truth included.

    python -m benchmarks.world

`make_image` at 64 and 128 px, on the same seeds in every round. The floor does what no faster
ray caster could leave out: draw the same scenes, those that are thrown away as well, and put the
lens (blur) and the sensor (noise) on a grey image each. Times are processor times of one process,
so a busy neighbour counts little. Target: 200 scenes/s at 64 px.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from benchmarks.common import parser, ratio, rounds, show, spread, take_turns
from curator.demo.render import ATTEMPTS, make_image
from curator.demo.scene import sample_scene
from curator.demo.seeds import shard_seeds

_SIDES_PX = (64, 128)
_TARGET = 200
_TARGET_SIDE_PX = 64
_WORLD = 1


def main() -> None:
    """Time both and print the table."""
    options = parser(__doc__)
    options.add_argument("--scenes", type=int, default=400, help="a round and size")
    args = options.parse_args()
    if args.quick:
        args.scenes = 5
    seeds = shard_seeds(_WORLD, args.scenes)
    tries = {side: [_attempts(seed, side) for seed in seeds] for side in _SIDES_PX}
    ways: dict[str, Callable[[], float]] = {}
    for side in _SIDES_PX:
        ways[f"{side} px"] = partial(_ms_a_scene, partial(make_image, side=side), seeds)
        drawn = dict(zip(seeds, tries[side], strict=True))
        ways[f"floor {side}"] = partial(_ms_a_scene, partial(_floor, drawn, side), seeds)
    found = take_turns(ways, rounds(args))
    rows = [_row(side, found, statistics.mean(tries[side])) for side in _SIDES_PX]
    columns = ["image", "scenes/s", "target", "ms a scene", "floor ms", "to floor", "draws"]
    show(columns, rows, args=args, details=found)


def _row(side: int, found: dict[str, list[float]], draws: float) -> list[str]:
    ours, floor = found[f"{side} px"], found[f"floor {side}"]
    rate = 1000 / statistics.median(ours)
    met = "met" if rate >= _TARGET else "missed"
    return [
        f"{side} px",
        f"{rate:.0f}",
        f"{_TARGET}: {met}" if side == _TARGET_SIDE_PX else "-",
        spread(ours, 2),
        spread(floor, 2),
        f"{ratio(ours, floor):.1f}",
        f"{draws:.2f}",
    ]


def _attempts(seed: int, side: int) -> int:
    """How many scenes `make_image` draws until one shows all its things."""
    return make_image(seed, side)[0].seed - seed * ATTEMPTS + 1


def _ms_a_scene(make: Callable[[int], Any], seeds: range) -> float:
    began = time.process_time()
    for seed in seeds:
        make(seed)
    return (time.process_time() - began) / len(seeds) * 1000


def _floor(draws: dict[int, int], side: int, seed: int) -> np.ndarray[Any, Any]:
    for attempt in range(draws[seed]):
        scene = sample_scene(seed * ATTEMPTS + attempt)
    grey = Image.new("RGB", (side, side), "gray")
    blurred = np.asarray(grey.filter(ImageFilter.GaussianBlur(scene.blur * side / 128)))
    noise = np.random.default_rng(seed).standard_normal(blurred.shape, np.float32)
    noisy: np.ndarray[Any, Any] = np.clip(blurred + 255 * np.float32(scene.noise) * noise, 0, 255)
    return noisy.astype(np.uint8)


if __name__ == "__main__":
    main()
