"""What a step of finetuning costs over the model alone.

    python -m benchmarks.finetune_step [--backbone random:timm:mobilenetv2_100]

Arms, which take turns:

    step    the whole thing: pictures read, augmented and collated, the loop with its optimiser
    floor   forward and backward of the same modules on one batch that lies ready in memory

and the same for a probe on kept features, whose floor is the head alone. Data are made up in
memory, so decoding is left out. Milliseconds a step and the ratio to the floor; the same for the
processor time of the whole process, which a busy neighbour disturbs less.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import parser, ratio, rounds, show, spread, take_turns
from curator.core.stopping import StopRequest
from finetune.feeding import DenseBatch, Features, Feed
from finetune.layouts import DenseSet, LabelledImage, Split
from finetune.options import DenseOptions
from finetune.tasks.segmentation import Segmentation
from pretrain.loop.loop import train
from pretrain.loop.options import LoopOptions
from pretrain.towers.backbone import load_backbone

NUM_CLASSES = 11

Measure = Callable[[], tuple[float, float]]
"""Seconds of wall and of processor time a step."""


def main() -> None:
    """Print the table."""
    options = parser(__doc__)
    options.add_argument("--backbone", default="random:timm:mobilenetv2_100")
    options.add_argument("--size", type=int, nargs=2, default=(256, 320))
    args = options.parse_args()
    size = (64, 64) if args.quick else tuple(args.size)
    ways: dict[str, Callable[[], float]] = {}
    cpu: dict[str, list[float]] = {}
    for name, freeze in (("finetune", False), ("probe", True)):
        for arm, measure in zip(
            ("step", "floor"), _ways(args, freeze=freeze, size=size), strict=True
        ):
            ways[f"{name} {arm}"] = _wall_of(measure, cpu.setdefault(f"{name} {arm}", []))
    found = take_turns(ways, rounds(args))
    rows = []
    for name, values in found.items():
        floor = f"{name.split()[0]} floor"
        wall = [spread([value * 1000 for value in values]), f"{ratio(values, found[floor]):.2f}"]
        rows.append([name, *wall, f"{ratio(cpu[name], cpu[floor]):.2f}"])
    details = {"wall": found, "cpu": cpu}
    show(["arm", "ms a step", "to floor", "CPU to floor"], rows, args=args, details=details)


def _wall_of(measure: Measure, cpu: list[float]) -> Callable[[], float]:
    def measured() -> float:
        wall, processor = measure()
        cpu.append(processor)
        return wall

    return measured


class _Laps:
    """Seconds of wall and processor time between calls."""

    def __init__(self) -> None:
        self._at: list[tuple[float, float]] = []

    def lap(self) -> None:
        self._at.append((time.perf_counter(), time.process_time()))

    def medians(self) -> tuple[float, float]:
        """Without the first lap."""
        walls, processors = np.diff(np.array(self._at[1:]), axis=0).T
        return float(np.median(walls)), float(np.median(processors))


def _ways(
    args: argparse.Namespace, *, freeze: bool, size: tuple[int, int]
) -> tuple[Measure, Measure]:
    num_steps = 2 if args.quick else 8
    data = _made_up(4 if args.quick else 32, size)
    options = DenseOptions(
        task="segmentation",
        protocol="quick" if freeze else "finetune",
        image_px=size,
        batch_size=2 if args.quick else 8,
        steps=num_steps,
    )
    task = Segmentation(load_backbone(args.backbone, image_px=size), options, data, data.train)
    task.to(memory_format=torch.channels_last)  # as a cell of a study has it
    kept = None
    if freeze:
        task.eval()
        kept = Features().of("one", data.train, size, task.features, StopRequest())
    feed = Feed(data.train, options, kept)
    batch = next(feed.batches(0))

    def step() -> tuple[float, float]:
        laps = _Laps()

        def timed(start: int) -> Iterator[DenseBatch]:
            # A lap ends when the loop asks for the next batch. In the first one, which is left
            # out, the loop counts operations.
            for one in feed.batches(start):
                laps.lap()
                yield one

        loop = LoopOptions(total_steps=num_steps + 2, lr=1e-3, precision="fp32")
        train(task, timed, loop, folder=None, parameter_groups=task.groups())
        return laps.medians()

    def floor() -> tuple[float, float]:
        task.train()
        laps = _Laps()
        for _ in range(num_steps + 2):
            laps.lap()
            task.zero_grad()
            task.losses(batch)["loss"].backward()
        return laps.medians()

    return step, floor


def _made_up(number: int, size: tuple[int, int]) -> DenseSet:
    rng = np.random.default_rng(0)
    items = {
        f"{place:03}": LabelledImage(
            name=f"{place:03}",
            image=rng.integers(0, 256, (*size, 3), dtype=np.uint8),
            target=rng.integers(0, NUM_CLASSES, size, dtype=np.uint8),
        )
        for place in range(number)
    }
    split = Split(tuple(items), items.__getitem__)
    classes = tuple(f"class {place}" for place in range(NUM_CLASSES))
    return DenseSet(
        labels="segmentation",
        layout="memory",
        folder=Path("memory"),
        classes=classes,
        train=split,
        val=split[:0],
        test=split,
    )


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
