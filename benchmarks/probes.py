"""Which probe? The same frozen towers and labels, scored by several probes.

    python -m benchmarks.probes TASK DATA HEIGHTxWIDTH NAME=BACKBONE NAME=BACKBONE ...

TASK is segmentation or depth, DATA a folder of labels and BACKBONE what `curator finetune` takes.
Probes that need a rate or a number of steps name them: quick:STEPS:RATE.

Shown for each probe and tower: the test score over the seeds (mean, and standard deviation), and
the CPU seconds of a seed, without the features, which the probes share. Below it the smallest
difference between two towers that are neighbours in their order, and the order itself. A probe is
better where towers differ by more of its own spread, and at a lower price; its scores being higher
says something only among probes that are linear in the same features.
"""

from __future__ import annotations

import itertools
import re
import statistics
import time
from pathlib import Path

from benchmarks.common import parser, show
from finetune.feeding import Features
from finetune.labels import examined
from finetune.layouts import open_dense
from finetune.options import DenseOptions, parse_options
from finetune.run import finetune
from finetune.tasks import TASKS

PROBES = ("solved", "quick:200:0.03", "quick:1000:0.01", "hummingbird")


def options_of(probe: str, task: str, size: tuple[int, int]) -> DenseOptions:
    """Return the options that a probe's name stands for."""
    protocol, *rest = probe.split(":")
    values: dict[str, object] = {"task": task, "protocol": protocol, "image_px": size}
    if rest:
        values |= {"steps": int(rest[0]), "lr": float(rest[1])}
    return parse_options(values)


def main() -> None:
    """Run all cells and print a table."""
    options = parser(__doc__)
    options.add_argument("task", choices=("segmentation", "depth"))
    options.add_argument("data", type=Path)
    options.add_argument("size", metavar="HEIGHTxWIDTH")
    options.add_argument("towers", nargs="+", metavar="NAME=BACKBONE")
    options.add_argument("--probes", nargs="+", default=None, metavar="PROBE")
    options.add_argument("--seeds", type=int, default=3)
    args = options.parse_args()
    spec = TASKS.spec(args.task)
    metric = spec.metrics[0]
    height, width = (int(part) for part in re.split("x", args.size))
    probes = args.probes or [one for one in PROBES if one != "hummingbird" or args.task != "depth"]
    data = examined(open_dense(spec.labels, args.data))
    caches = {tower: Features() for tower in args.towers}
    rows, details = [], {}
    for probe in probes:
        means: dict[str, float] = {}
        for tower in args.towers:
            name, _, backbone = tower.partition("=")
            asked = options_of(probe, args.task, (height, width))
            values, seconds = [], []
            for seed in range(args.seeds):
                began = time.process_time()
                one = asked.model_copy(update={"seed": seed})
                found = finetune(backbone, data, one, features=caches[tower])
                values.append(metric.scale * found.metrics[metric.name])
                seconds.append(time.process_time() - began)
            means[name] = statistics.mean(values)
            told = f"{means[name]:.3f} ± {statistics.stdev(values):.3f}"
            # The first seed of the first probe computes the features.
            rows.append([probe, name, told, f"{statistics.median(seconds):.1f}"])
            details[f"{probe} {name}"] = {"values": values, "seconds": seconds}
            print(*rows[-1], flush=True)
        order = sorted(means, key=lambda name: means[name], reverse=metric.higher_is_better)
        steps = [abs(means[a] - means[b]) for a, b in itertools.pairwise(order)]
        rows.append([probe, " > ".join(order), f"{min(steps):.3f} apart at least", ""])
    show(["probe", "tower", metric.heading, "CPU s"], rows, args=args, details=details)


if __name__ == "__main__":
    main()
