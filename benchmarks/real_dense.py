"""Dense tasks on small real data sets: what a backbone gains over the same one at random.

    python -m benchmarks.real_dense DATA NAME=BACKBONE [NAME=BACKBONE ...] [--full] [--json FILE]

DATA holds camvid/ (segmentation), rgbd_kitchen/ (depth) and pennfudan/ (detection); BACKBONE is
what `curator finetune` takes. All arms have the same head, steps, seeds and share of labels, and
one learning rate unless --sweep chooses it for each arm on held-out training pictures. Probes by
default; --full finetunes everything, which takes hours on a CPU at the default sizes.

Shown: mean and standard deviation over seeds. These are sanity checks: pretrained has to beat
random by far more than the spread.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.common import parser, show
from finetune.feeding import Features
from finetune.layouts import open_dense
from finetune.options import DenseOptions
from finetune.run import finetune, sweep
from finetune.tasks import TASKS

SETS = {
    "segmentation": ("camvid", (192, 256)),
    "depth": ("rgbd_kitchen", (192, 256)),
    "detection": ("pennfudan", (256, 256)),
}


def main() -> None:
    """Run all cells and print a table."""
    options = parser(__doc__)
    options.add_argument("data", type=Path)
    options.add_argument("backbones", nargs="+", metavar="NAME=BACKBONE")
    options.add_argument("--tasks", nargs="+", default=list(SETS), choices=list(SETS))
    options.add_argument("--full", action="store_true", help="finetune everything")
    options.add_argument("--sweep", action="store_true", help="choose the rate of each arm")
    options.add_argument("--seeds", type=int, default=2)
    options.add_argument("--steps", type=int, default=300)
    options.add_argument("--batch-size", type=int, default=8)
    options.add_argument("--fraction", type=float, default=1.0)
    args = options.parse_args()
    rows, details = [], {}
    for task in args.tasks:
        folder, size = SETS[task]
        data = open_dense(task, args.data / folder)
        asked = DenseOptions(
            task=task,
            freeze=not args.full,
            steps=2 if args.quick else args.steps,
            batch_size=args.batch_size,
            image_px=size,
            fraction=args.fraction,
        )
        for arm in args.backbones:
            name, _, backbone = arm.partition("=")
            began, features, lr = time.perf_counter(), Features(), asked.lr
            if args.sweep:
                found = sweep(backbone, data, asked, features=features)
                lr, details[f"{task} {name} sweep"] = found.lr, asdict(found)
            runs = [
                finetune(
                    backbone,
                    data,
                    asked.model_copy(update={"lr": lr, "seed": seed}),
                    features=features,
                )
                for seed in range(args.seeds)
            ]
            metrics = [metric.name for metric in TASKS.spec(task).metrics]
            for metric in metrics:
                values = [run.metrics[metric] for run in runs]
                spread = statistics.stdev(values) if len(values) > 1 else 0.0
                told = f"{statistics.mean(values):.3f} ± {spread:.3f}"
                rows.append([f"{task} {metric}", name, told, f"{time.perf_counter() - began:.0f}"])
                details[f"{task} {name} {metric}"] = values
            print(*rows[-len(metrics)], flush=True)
    show(["metric", "backbone", "mean ± sd", "s"], rows, args=args, details=details)


if __name__ == "__main__":
    main()
