"""How often the limits of "N times fewer labels" are wrong, and how often they say anything.

    python -m benchmarks.fewer_labels

Each study has two arms and five amounts of labels, a factor of two apart. The candidate scores with
an amount what the baseline scores with `times` as much, so the true factor is known; a factor that
is itself a ratio of two amounts is the hardest case, because it is on the border of the test. A
score is the curve's, plus that of the tower (the same at all amounts of a seed; worlds as in
benchmarks/aa.py), plus noise of its own (normal, 0.5). Limits are wrong if "at least" is above the
true factor or "less than" is not above it. The promise is at most 5 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import stats

from benchmarks.aa import WORLDS
from benchmarks.common import parser, show
from finetune.report.efficiency import Efficiency, efficiency

AMOUNTS = (15.0, 30.0, 60.0, 120.0, 240.0)
SHAPES: dict[str, Callable[[float], float]] = {
    "steep": lambda share: 50 + 10 * math.log2(share),
    "saturating": lambda share: 50 - 40 * math.exp(-6 * share),
    "flat": lambda _: 50.0,
}
"""Share of the labels -> score of the baseline, in mIoU."""
CASES = (("steep", 1.0), ("steep", 2.0), ("steep", 3.0), ("saturating", 2.0), ("flat", 1.0))
SEEDS = (2, 3, 4, 5, 7)


def simulated(
    world: str, shape: str, rng: np.random.Generator, *, times: float, seeds: int
) -> Efficiency:
    """Return one study of two arms."""
    score, arms = SHAPES[shape], []
    for factor in (times, 1.0):
        towers_S = WORLDS[world](rng, (seeds,))
        arms.append(
            {
                amount: dict(
                    enumerate(
                        score(factor * amount / AMOUNTS[-1])
                        + towers_S
                        + 0.5 * rng.normal(size=seeds)
                    )
                )
                for amount in AMOUNTS
            }
        )
    found = efficiency(*arms, higher_is_better=True)
    assert found is not None, "both arms have all amounts and seeds"
    return found


def is_wrong(found: Efficiency, times: float) -> bool:
    """Whether a limit excludes the true factor."""
    # On a flat curve any amount is enough for both, and no factor above 1 may be claimed.
    return (found.claimed or 1) > times or (found.less_than or math.inf) <= times


def main() -> None:
    """Count, print the table."""
    options = parser(__doc__)
    options.add_argument("--studies", type=int, default=2000, help="of every cell of the table")
    args = options.parse_args()
    worlds, cases = list(WORLDS), CASES
    if args.quick:
        args.studies, worlds, cases = 20, worlds[:1], cases[1:2]
    rows, details = [], {}
    for world in worlds:
        for shape, times in cases:
            wrong, claimed = [], []
            for seeds in SEEDS:
                rng = np.random.default_rng([seeds, round(times), *world.encode()])
                found = [
                    simulated(world, shape, rng, times=times, seeds=seeds)
                    for _ in range(args.studies)
                ]
                wrong.append(sum(is_wrong(one, times) for one in found))
                claimed.append(sum(one.claimed is not None for one in found))
            limit = stats.binomtest(max(wrong), args.studies).proportion_ci(method="exact").high
            shares = [f"{100 * one / args.studies:.1f}" for one in wrong]
            told = [f"{100 * one / args.studies:.0f}" for one in claimed]
            rows.append([world, shape, f"{times:g}", *shares, f"{100 * limit:.1f}", *told])
            details[f"{world}, {shape}, {times:g}"] = {"wrong": wrong, "claimed": claimed}
    head = ["towers", "curve", "factor", *(f"{seeds} seeds: wrong, %" for seeds in SEEDS)]
    head += ["worst, at most %", *(f"{seeds}: claimed, %" for seeds in SEEDS)]
    show(head, rows, args=args, details=details)


if __name__ == "__main__":
    main()
