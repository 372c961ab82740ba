"""How much of a study's verdict is the haste of its probes?

    python -m benchmarks.whitened_probes STUDY/runs TASK=FOLDER ... --baseline @v2

A linear probe is a convex problem, but its features are correlated, so that a few hundred steps
leave it half way. Here they are whitened first: multiplied by the inverse root of their covariance
over the training pictures, shrunk towards a multiple of the identity. The maps that can be learnt
are the same, and each step comes farther: compare 100 with 400. Runs are grouped by what they
learnt from; groups are held against the one whose name ends as `--baseline` does, paired by seed.

Everything else (pictures, batches, loss, judging) is that of `curator finetune --protocol quick`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import conv2d

from benchmarks.common import parser, show
from curator.core.stopping import StopRequest
from finetune.feeding import Features, Feed, Kept
from finetune.layouts import DenseSet, open_dense
from finetune.options import DenseOptions
from finetune.report.stats import difference, pair
from finetune.scaling import scaled
from finetune.tasks import TASKS
from pretrain.loop.loop import train
from pretrain.loop.options import LoopOptions
from pretrain.towers.backbone import load_backbone

SHRINKAGE = (
    0.1  # of 0.001, 0.01, 0.1 and 1; how it was chosen: docs/results/2026-11-27-demo-study.md
)
Statistics = tuple[torch.Tensor, torch.Tensor]  # (C,) mean and (C, C) inverse root of a covariance


def main() -> None:
    """Probe every run and print how the groups compare."""
    options = parser(__doc__)
    options.add_argument("runs", type=Path, help="folder of pretraining runs")
    options.add_argument("data", nargs="+", metavar="TASK=FOLDER")
    options.add_argument("--baseline", required=True, metavar="END")
    options.add_argument("--random", metavar="ARCH", help="also three towers with random weights")
    options.add_argument("--steps", type=int, default=100)
    options.add_argument("--lr", type=float, default=0.03)
    options.add_argument("--size", type=int, default=128, help="pixels, height and width")
    args = options.parse_args()
    rows, details = [], {}
    for one in args.data:
        task, _, folder = one.partition("=")
        data = open_dense(task, Path(folder))
        asked = DenseOptions(
            task=task, freeze=True, steps=args.steps, lr=args.lr, image_px=(args.size, args.size)
        )
        found = details[task] = grouped(args.runs, data, asked)
        if args.random:
            found["random"] = {
                seed: probed(f"random:{args.random}", data, asked.model_copy(update={"seed": seed}))
                for seed in range(3)
            }
        metric = asked.spec.metrics[0]
        (base,) = (values for name, values in found.items() if name.endswith(args.baseline))
        for name, values in sorted(found.items()):
            mean = sum(values.values()) / len(values)
            against = ""
            if values is not base:
                told = difference(pair(values, base), higher_is_better=metric.higher_is_better)
                against = f"{told.mean:+.4f} [{told.low:.4f}, {told.high:.4f}]"
            rows.append([f"{task} {metric.name}", name, str(len(values)), f"{mean:.4f}", against])
    show(["task", "learnt from", "seeds", "mean", "gain"], rows, args=args, details=details)


def grouped(runs: Path, data: DenseSet, options: DenseOptions) -> dict[str, dict[int, float]]:
    """What a run learnt from -> seed -> the task's first metric."""
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for summary in sorted(runs.glob("*/summary.json")):
        recipe = json.loads((summary.parent / "run.json").read_bytes())["recipe"]
        source = json.loads(summary.read_bytes())["source"]
        asked = options.model_copy(update={"seed": recipe["seed"]})
        value = probed(str(summary.parent), data, asked)
        found[f"{recipe['objective']} {source}"][recipe["seed"]] = value
    return dict(found)


def probed(backbone: str, data: DenseSet, options: DenseOptions) -> float:
    """Train a whitened probe on all training pictures; its first metric on the test pictures."""
    options, stop, features = options.settled(), StopRequest(), Features()
    net = load_backbone(backbone, image_px=options.image_px, seed=options.seed)
    task: Any = TASKS.get(options.task)(net, options, data, data.train)
    task.to(memory_format=torch.channels_last).eval()
    of_train, of_test = (
        features.of("this", split, options.image_px, task.features, stop)
        for split in (data.train, data.test)
    )
    assert of_train is not None, "these data sets are small"
    assert of_test is not None, "these data sets are small"
    num_out = task.head.shares[0].out_channels
    levels = range(len(of_train[0].maps))
    task.head = WhitenedLinear([statistics(of_train, level) for level in levels], num_out)
    loop = LoopOptions(
        total_steps=options.steps, lr=options.lr or 0, warmup_steps=5, seed=options.seed
    )
    train(task, Feed(data.train, options, of_train).batches, loop, folder=None, what="probe",
          parameter_groups=task.groups())  # fmt: skip
    metrics = task.evaluate(data.test, kept=of_test, stop=stop).metrics
    return float(metrics[options.spec.metrics[0].name])


def statistics(kept: Sequence[Kept], level: int) -> Statistics:
    """Over all places of all pictures."""
    count = sum(one.maps[level].shape[:2].numel() for one in kept)
    width = kept[0].maps[level].shape[-1]
    total_C = torch.zeros(width, dtype=torch.float64)
    squares_CC = torch.zeros(width, width, dtype=torch.float64)
    for one in kept:
        places_NC = one.maps[level].reshape(-1, width).double()
        total_C += places_NC.sum(0)
        squares_CC += places_NC.T @ places_NC
    mean_C = total_C / count
    values_C, vectors_CC = torch.linalg.eigh(squares_CC / count - mean_C.outer(mean_C))
    roots_C = (values_C.clamp(min=0) + SHRINKAGE * values_C.mean()).rsqrt()
    return mean_C.float(), ((vectors_CC * roots_C) @ vectors_CC.T).float()


class WhitenedLinear(nn.Module):
    """As `finetune.heads.LinearHead`, but what it learns are weights of whitened features."""

    def __init__(self, levels: Sequence[Statistics], num_out: int) -> None:
        super().__init__()
        self.levels = levels
        self.weights = nn.ParameterList(torch.zeros(num_out, len(mean)) for mean, _ in levels)
        self.bias = nn.Parameter(torch.zeros(num_out))

    def forward(self, maps_BChw: Sequence[torch.Tensor]) -> torch.Tensor:
        """Maps, finest first -> (B, K, h, w) at the finest map's size."""
        total: torch.Tensor | None = None
        for (mean_C, root_CC), weight_KC, level in zip(
            self.levels, self.weights, maps_BChw, strict=True
        ):
            with torch.autocast("cpu", enabled=False):
                folded_KC = weight_KC @ root_CC
                shift_K = self.bias / len(self.levels) - folded_KC @ mean_C
            part = conv2d(level, folded_KC[:, :, None, None], shift_K)
            total = part if total is None else total + scaled(part, total.shape[-2:])
        assert total is not None, "there are maps"
        return total


if __name__ == "__main__":
    main()
