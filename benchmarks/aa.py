"""How often a report calls captions better or worse that are those of the baseline.

    python -m benchmarks.aa                      # simulated towers
    python -m benchmarks.aa STUDY_FOLDER...      # towers of finished studies

Every study here compares a baseline with candidates that do not differ from it. An error is any
candidate that is called better or worse in any task; without one there is no decision either. The
promise is at most 5 % of studies. Samples of the studies of every cell go through the report's own
code (`finetune.report.build.correct`, `finetune.report.decision`).

Simulated: the score of an arm, seed and task is that of its tower (the worlds below, a spread of 1
or so) plus noise of its own (normal, 0.5), so tasks agree as far as towers differ. Towers of a
folder: what is left of their scores after the mean of their arm is taken away, times sqrt(s/(s-1))
for s seeds, all tasks of a tower together. Each study draws different towers, without replacement,
from one arm if that has enough, else from all arms. Pairs of such a study share no seed, as the
same captions with the same seed would be the same run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from scipy import stats

from benchmarks.common import parser, show
from finetune.report.build import build_report, comparisons_of, correct
from finetune.report.decision import decide
from finetune.report.stats import ALPHA, fewest_pairs
from finetune.report.values import Decision, Progress, TaskResult
from finetune.study.results import metric_of

MIOU = metric_of("mIoU")
_CHECKED = 5
FINISHED = Progress(num_needed=1, num_waiting=0, seconds_left=None, seconds_per_seed=None)

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
WORLDS: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "heavy tails": lambda rng, shape: rng.standard_t(3, size=shape),
    "1 in 20 fails": lambda rng, shape: rng.normal(size=shape) - 10 * (rng.random(shape) < 0.05),
    "skewed": lambda rng, shape: rng.lognormal(size=shape),
    "uniform": lambda rng, shape: rng.uniform(-2, 2, size=shape),
    "half learn": lambda rng, shape: rng.normal(size=shape) + 20 * (rng.random(shape) < 0.5),
    "4 in 5 learn": lambda rng, shape: rng.normal(size=shape) + 20 * (rng.random(shape) < 0.8),
}
"""World -> scores of towers, in mIoU."""

FAMILIES = ((1, 1), (1, 2), (3, 2), (5, 3))
"""(candidates, tasks)"""


def compared(scores_TAS: np.ndarray) -> list[TaskResult]:
    """Return the tasks of a study as in its report; `scores_TAS` are in mIoU, by task, arm (the
    first, v0, is the baseline) and seed.
    """
    names = [f"v{arm}" for arm in range(scores_TAS.shape[1])]
    tasks = []
    for number, scores_AS in enumerate(scores_TAS):
        values = {
            name: {seed: float(score) / MIOU.scale for seed, score in enumerate(scores_S)}
            for name, scores_S in zip(names, scores_AS, strict=True)
        }
        tasks.append(
            TaskResult(
                name=f"task {number}", kind="segmentation",
                protocol="quick", protocol_digest="", metric=MIOU,
                fraction=1.0, num_train=0, num_test=0, values=values, means={}, others=[],
                comparisons=comparisons_of(values, names[0], MIOU, names), relative={},
                curves={}, ladders={}, gaps=[], pictures=[],
            )
        )  # fmt: skip
    return correct(tasks, names[1:])


def decided(scores_TAS: np.ndarray) -> Decision:
    """Return the first sentence of the report."""
    tasks = compared(scores_TAS)
    candidates = [one.arm for one in tasks[0].comparisons]
    return decide(
        tasks,
        asked={task.name: ["v0", *candidates] for task in tasks},
        baseline="v0",
        candidates=candidates,
        progress=FINISHED,
    )


def simulated(
    world: str, rng: np.random.Generator, *, studies: int, arms: int, seeds: int, tasks: int
) -> np.ndarray:
    """Return the scores of many studies, by study, task, arm and seed."""
    towers = WORLDS[world](rng, (studies, 1, arms, seeds))
    return 40 + towers + 0.5 * rng.normal(size=(studies, tasks, arms, seeds))


def which_name(scores_NTAS: np.ndarray, *, checked: int) -> np.ndarray:
    """Return which of the studies call any candidate better or worse, in any task.

    That is where Holm's first step rejects (the smallest p of the family is below 5 % divided by
    its size) and there are seeds enough; for so many tests at once computed here. The first
    `checked` studies that do, and as many that do not, go through the code of the report.

    Raises:
        AssertionError: the report says otherwise.
    """
    gains_NTAS = scores_NTAS[:, :, 1:] - scores_NTAS[:, :, :1]
    p_NTA = stats.ttest_1samp(gains_NTAS, 0, axis=-1).pvalue
    _, _, candidates, seeds = gains_NTAS.shape
    named_N = (p_NTA < ALPHA / p_NTA[0].size).any(axis=(1, 2))
    named_N &= seeds >= fewest_pairs(candidates)
    for is_named in (True, False):
        for place in np.flatnonzero(named_N == is_named)[:checked]:
            outcomes = {
                one.outcome for task in compared(scores_NTAS[place]) for one in task.comparisons
            }
            assert (outcomes != {"unclear"}) is is_named, f"study {place}: {outcomes}"
            # A decision needs a difference.
            assert is_named or decided(scores_NTAS[place]).choice == "none"
    return named_N


def errors(
    world: str,
    *,
    candidates: int,
    seeds: int,
    tasks: int,
    studies: int,
    checked: int,
    looks: int = 1,
) -> int:
    """Count simulated studies that call a candidate better or worse.

    With two `looks`, as many seeds are added where the first did not.
    """
    rng = np.random.default_rng([candidates, seeds, tasks, *world.encode()])
    scores = simulated(
        world, rng, studies=studies, arms=candidates + 1, seeds=seeds * looks, tasks=tasks
    )
    wrong_N = np.zeros(studies, dtype=bool)
    for look in range(1, looks + 1):
        wrong_N |= which_name(scores[..., : seeds * look], checked=checked)
    return int(wrong_N.sum())


Towers = Mapping[str, np.ndarray]
"""Arm -> scores of its towers around their mean, by tower and task."""


def towers_of(folder: Path) -> Towers:
    """Read the towers of a finished study; arms without two complete seeds are left out."""
    found = {}
    report = build_report(folder)
    for arm in report.arms:
        by_task = [task.values.get(arm.name, {}) for task in report.tasks]
        seeds = sorted(set.intersection(*map(set, by_task))) if by_task else []
        if len(seeds) > 1:
            scores_NT = np.array([[values[seed] for values in by_task] for seed in seeds])
            left_NT = scores_NT - scores_NT.mean(axis=0)
            found[arm.name] = left_NT * MIOU.scale * np.sqrt(len(seeds) / (len(seeds) - 1))
    return found


def drawn_errors(towers: Towers, *, candidates: int, seeds: int, studies: int) -> int | None:
    """Count the same of studies of drawn towers; None if there are too few towers."""
    needed = (candidates + 1) * seeds
    pools = [found for found in towers.values() if len(found) >= needed]
    every_NT = np.concatenate(list(towers.values()))
    if not pools and len(every_NT) >= needed:
        pools = [every_NT]
    if not pools:
        return None
    rng = np.random.default_rng([candidates, seeds])
    drawn = []
    for _ in range(studies):
        pool_NT = pools[rng.integers(len(pools))]
        chosen_NT = pool_NT[rng.choice(len(pool_NT), needed, replace=False)]
        drawn.append(40 + chosen_NT.T.reshape(-1, candidates + 1, seeds))
    return int(which_name(np.array(drawn), checked=_CHECKED).sum())


def _row(what: str, candidates: int, tasks: int, wrong: Mapping[int, int], n: int) -> list[str]:
    cells = [f"{100 * wrong[s] / n:.1f}" if s in wrong else "" for s in SEEDS]
    worst = max(wrong.values())
    limit = stats.binomtest(worst, n).proportion_ci(method="exact").high
    return [what, str(candidates), str(tasks), *cells, f"{100 * limit:.1f}"]


SEEDS = (2, 3, 4, 5, 6, 7)


def main() -> None:
    """Count, print the table."""
    options = parser(__doc__)
    options.add_argument("folders", nargs="*", type=Path, metavar="STUDY_FOLDER")
    options.add_argument("--studies", type=int, default=10_000, help="of every cell of the table")
    args = options.parse_args()
    worlds, families = list(WORLDS), FAMILIES
    if args.quick:
        args.studies, worlds, families = 20, worlds[:1], families[:1]
    n, rows, details = args.studies, [], {}
    for folder in args.folders:
        towers = towers_of(folder)
        num_tasks = next(iter(towers.values())).shape[1]
        for candidates in (1, 2, 3, 5):
            wrong = {
                seeds: found
                for seeds in SEEDS
                if (found := drawn_errors(towers, candidates=candidates, seeds=seeds, studies=n))
                is not None
            }
            if wrong:
                rows.append(_row(folder.name, candidates, num_tasks, wrong, n))
                details[f"{folder.name}, {candidates} candidates"] = wrong
    if not args.folders:
        for world in worlds:
            for candidates, tasks in families:
                wrong = {
                    seeds: errors(
                        world,
                        candidates=candidates,
                        seeds=seeds,
                        tasks=tasks,
                        studies=n,
                        checked=_CHECKED,
                    )
                    for seeds in SEEDS
                }
                rows.append(_row(world, candidates, tasks, wrong, n))
                details[f"{world}, {candidates} candidates, {tasks} tasks"] = wrong
        for world in worlds:
            again = {
                seeds: errors(
                    world, candidates=1, seeds=seeds, tasks=2, studies=n, checked=_CHECKED, looks=2
                )
                for seeds in SEEDS[:3]
            }
            rows.append(_row(f"{world}, looked at twice", 1, 2, again, n))
            details[f"{world}, looked at twice"] = again
    head = ["towers", "candidates", "tasks", *(f"{seeds} seeds, %" for seeds in SEEDS)]
    show([*head, "worst, at most %"], rows, args=args, details=details)


if __name__ == "__main__":
    main()
