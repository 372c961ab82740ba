"""Training steps a second: the loop of `curator pretrain` against that of open_clip_train.

    python -m benchmarks.pretrain_steps --model tiny-conv --image-px 64 --batch-size 128
    python -m benchmarks.pretrain_steps --model ViT-B-16 --image-px 224 --batch-size 256

The same model with the same weights, AdamW, bf16 autocast and clipping, on batches that lie ready
in memory, in one process, taking turns:

    curator           `pretrain.loop.loop.train`: 8-bit images (for a GPU in pinned memory),
                      normalised on the device; texts no wider than needed
    open_clip_train   its `train_one_epoch`: normalised images in fp32, on the device already;
                      texts at full length
    ..., alike        curator with texts at full length too: what the loop itself costs

All arms reuse freed memory, which `train` asks for on CPUs. A step is timed from one batch to the
next, after `--warmup` of them. Texts are as long as the captions of the rendered world: 5 to 64
tokens, 29 on average. Target: at least as fast.

TFLOP/s are those of the matrix products of forward and backward, counted as `curator pretrain`
counts them, over the time of a step; the last column divides them by the rate of one large bf16
(on a CPU without it fp32) matrix product, measured in the same run.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from open_clip import ClipLoss
from open_clip_train.scheduler import cosine_lr
from open_clip_train.train import train_one_epoch

from benchmarks.common import parser, ratio, rounds, show, spread, take_turns
from curator.core.devices import DTYPES, choose_device
from pretrain.data.loader import Batch
from pretrain.loop.flops import counted
from pretrain.loop.loop import choose_precision, train
from pretrain.loop.options import LoopOptions
from pretrain.objectives.clip import ClipObjective
from pretrain.recipe import Recipe

TERA = 1e12
_NUM_BATCHES = 4


def main() -> None:
    """Run all arms and print the table."""
    options = parser(__doc__)
    options.add_argument("--model", default="tiny-conv")
    options.add_argument("--image-px", type=int, default=64)
    options.add_argument("--batch-size", type=int, default=128)
    options.add_argument("--steps", type=int, default=10)
    options.add_argument("--warmup", type=int, default=3)
    options.add_argument("--device")
    args = options.parse_args()
    if args.quick:
        args.batch_size, args.steps, args.warmup = 8, 2, 1
    device = choose_device(args.device)
    arms = {
        "curator": partial(_curator, args, device, whole_texts=False),
        "open_clip_train": partial(_open_clip, args, device),
        "curator, alike": partial(_curator, args, device, whole_texts=True),
    }
    found: dict[str, list[Steady]] = {name: [] for name in arms}

    def arm(name: str, way: Callable[[], Steady]) -> float:
        found[name].append(way())
        return found[name][-1].wall

    wall = take_turns({name: partial(arm, name, way) for name, way in arms.items()}, rounds(args))
    flops = {name: _flops(args, device, whole_texts=name != "curator") for name in arms}
    ceiling = _matmul_flops_per_sec(device, 512 if args.quick else 8192)
    rows = []
    for name in arms:
        cpu = [one.cpu for one in found[name]]
        theirs = [one.cpu for one in found["open_clip_train"]]
        rows.append(
            [
                name,
                spread([1 / seconds for seconds in wall[name]], 2),
                f"{args.batch_size / statistics.median(wall[name]):,.0f}",
                f"{ratio(wall['open_clip_train'], wall[name]):.2f}",
                spread(cpu, 2),
                f"{ratio(theirs, cpu):.2f}",
                f"{(rate := flops[name] / statistics.median(wall[name])) / TERA:,.1f}",
                f"{rate / ceiling:.0%}",
            ]
        )
    speed, use = "speed to open_clip_train", f"of {ceiling / TERA:,.1f}"
    columns = ["arm", "steps/s", "samples/s", speed, "CPU s a step", "CPU", "TFLOP/s", use]
    details = {
        name: [{"wall": one.wall, "cpu": one.cpu} for one in laps] for name, laps in found.items()
    }
    details |= {"flops_of_a_step": flops, "matmul_flops_per_sec": ceiling}
    if device.type == "cuda":
        details |= {"gpu": torch.cuda.get_device_name(device), "torch": torch.__version__}
    show(columns, rows, args=args, details=details)


class Steady:
    """Seconds a step, by the clock and by the processor, after the first ones."""

    def __init__(self, warmup: int, steps: int, device: torch.device) -> None:
        self._device, self._warmup, self._steps = device, warmup, steps
        self.wall = self.cpu = 0.0

    def over(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The batches, looking at the clock as they are taken."""
        for number in range(self._warmup + self._steps + 1):
            if number in (self._warmup, self._warmup + self._steps):
                _synchronize(self._device)
                sign = 1 if number > self._warmup else -1
                self.wall += sign * time.perf_counter() / self._steps
                self.cpu += sign * time.process_time() / self._steps
            yield next(batches)


def _objective(args: argparse.Namespace, device: torch.device) -> ClipObjective:
    made = ClipObjective(
        Recipe(
            name="benchmark",
            model=args.model,
            image_px=args.image_px,
            samples_seen=1,
            batch_size=args.batch_size,
            lr=1e-3,
        )
    )
    return made.to(device, memory_format=torch.channels_last)


def _batches(args: argparse.Namespace, context: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    size, side = args.batch_size, args.image_px
    made = []
    for _ in range(_NUM_BATCHES):
        tokens = torch.zeros(size, context, dtype=torch.int64)
        lengths = torch.randint(5, 54, (size,), generator=generator).clamp(max=context)
        for row, length in zip(tokens, lengths.tolist(), strict=True):
            row[:length] = torch.randint(1, 49406, (length,), generator=generator)
            row[length - 1] = 49407
        images = torch.randint(0, 256, (size, 3, side, side), generator=generator).byte()
        images = images.contiguous(memory_format=torch.channels_last)
        made.append(Batch(images, tokens, torch.arange(size), torch.arange(size)))
    return made


def _endless(batches: list[Any]) -> Iterator[Any]:
    while True:
        yield from batches


def _curator(args: argparse.Namespace, device: torch.device, *, whole_texts: bool) -> Steady:
    made = _objective(args, device)
    if whole_texts:
        made._causal_LL = None
    batches = _batches(args, int(made.model.context_length))
    if device.type == "cuda":
        batches = [
            batch.pin_memory() for batch in batches
        ]  # as `pretrain.data.loader` hands them over
    steady = Steady(args.warmup, args.steps, device)
    options = LoopOptions(
        total_steps=args.warmup + args.steps + 1,
        lr=1e-3,
        warmup_steps=2,
        weight_decay=0.2,
        beta2=0.95,
        log_every=10,
    )
    train(made, lambda _: steady.over(_endless(batches)), options, folder=None)
    return steady


def _open_clip(args: argparse.Namespace, device: torch.device) -> Steady:
    made = _objective(args, device)
    made.model.output_dict = True
    batches = [
        (made.normalise(batch.images), batch.tokens.to(device))
        for batch in _batches(args, int(made.model.context_length))
    ]
    steady = Steady(args.warmup, args.steps, device)
    num_steps = args.warmup + args.steps + 1
    data = {"train": _Data(steady.over(_endless(batches)), num_steps, args.batch_size)}
    parameters = list(made.model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": 0.2},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), eps=1e-6)
    settings = argparse.Namespace(
        device=str(device),
        precision="amp_bf16" if choose_precision("auto", device) == "bf16" else "fp32",
        distill=False,
        accum_freq=1,
        skip_scheduler=False,
        grad_clip_norm=1.0,
        horovod=False,
        rank=0,
        world_size=1,
        batch_size=args.batch_size,
        log_every_n_steps=10,
        wandb=False,
    )
    scheduler = cosine_lr(optimizer, 1e-3, 2, num_steps)
    train_one_epoch(made.model, data, ClipLoss(), 0, optimizer, None, scheduler, None, settings)
    return steady


def _flops(args: argparse.Namespace, device: torch.device, *, whole_texts: bool) -> float:
    """Of a step, the mean over the batches."""
    made = _objective(args, device)
    if whole_texts:
        made._causal_LL = None
    total = 0
    for batch in _batches(args, int(made.model.context_length)):
        with counted() as count:
            made.losses(batch)["loss"].backward()
        total += count.total
    return total / _NUM_BATCHES


def _matmul_flops_per_sec(device: torch.device, side: int) -> float:
    """The best of some products of two square matrices of normal numbers."""
    dtype = DTYPES[choose_precision("auto", device)]
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = math.inf
    for _ in range(20 if device.type == "cuda" else 2):
        _synchronize(device)
        began = time.perf_counter()
        one @ other
        _synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _Data:
    """What open_clip_train takes for a data loader."""

    def __init__(self, batches: Iterator[Any], num_batches: int, batch_size: int) -> None:
        self.dataloader = self
        self.num_batches, self.num_samples = num_batches, num_batches * batch_size
        self._batches = batches

    def set_epoch(self, epoch: int) -> None:
        """There is one."""

    def __iter__(self) -> Iterator[Any]:
        return self._batches


if __name__ == "__main__":
    main()
