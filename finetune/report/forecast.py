"""Say before a study runs what it will cost, and which differences it can show.

Times and spreads are measured ones: of the study's own finished runs, or of a pilot, which is any
study folder with tasks of the same name. Where nothing of a kind was measured, its time is a rough
estimate of the caller (passes through the tower only), and a spread cannot be guessed.

The least visible difference is that of `finetune.report.decision`. A spread from few pairs is
uncertain itself: with `degrees` of freedom its 95 % interval is sd * sqrt(degrees / chi2), which
for three pairs reaches from half to six times the estimate.

Reads, runs no cell, writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy import stats as scipy_stats

from curator.core.clock import duration
from finetune.report import text
from finetune.report.build import build_report
from finetune.report.stats import (
    ALPHA,
    fewest_pairs,
    pooled_sd,
    seeds_to_halve,
    smallest_detectable,
)
from finetune.report.values import Report
from finetune.study.costs import Times, cells_of_a_seed
from finetune.study.files import Json, read_cells, read_plan
from finetune.study.results import metric_of, primary_metric
from finetune.tasks import TASKS

Rough = Callable[[Json], float]
"""Cell of study.json -> roughly its seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visible:
    """The differences that one task can show with `seeds` pairs, in the units of its metric.

    `least` is the least visible one, `low` and `high` its 95 % interval, as the spread `sd` is from
    `degrees` of freedom only. All of them are None without a measured spread, and `least` also
    where so few seeds name no winner.
    """

    task: str
    metric: str
    seeds: int
    sd: float | None
    degrees: int
    least: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What is known of a study before it runs.

    `seconds` are those of the `num_missing` runs, one after the other; `num_rough` of them were
    estimated roughly. `fewest` seeds are the least that name a winner among the `num_compared`
    comparisons (candidates times tasks). `seeds_for_half` show half of the least differences, and
    `seconds_for_half` are those of the seeds to add.
    """

    study: str
    num_cells: int
    num_missing: int
    num_rough: int
    seconds: float
    num_compared: int
    fewest: int
    tasks: tuple[Visible, ...]
    seeds: int
    seeds_for_half: int | None
    seconds_for_half: float | None
    pilot: str | None


def forecast(
    plan: Json, records: Mapping[str, Json], *, pilot: Path | None, rough: Rough
) -> Forecast:
    """Return the forecast for a plan (as in study.json), of which `records` are finished.

    Raises:
        UsageError: `pilot` is not a study. DamageError: a damaged file in it.
    """
    study = plan["study"]
    known = [Times(plan, records)]
    report: Report | None = None
    if pilot is not None:
        known.append(Times(read_plan(pilot), read_cells(pilot)))
        report = build_report(pilot)

    def measured(cell: Json) -> float | None:
        found = (times.seconds(cell) for times in known)
        return next((seconds for seconds in found if seconds is not None), None)

    def seconds(cell: Json) -> float:
        found = measured(cell)
        return rough(cell) if found is None else found

    cells = {cell["digest"]: cell for cell in plan["cells"]}
    missing = [
        cell for digest, cell in cells.items() if records.get(digest, {}).get("status") != "done"
    ]
    names = [arm["name"] for arm in study["arm"] if arm["name"] != study["baseline"]]
    candidates = study["verdict"] or names
    number = max(len(candidates) * len(study["task"]), 1)
    fewest = fewest_pairs(max(len(candidates), 1))
    seeds = _pairs(study, candidates)
    tasks = tuple(
        _visible(task, report, candidates, seeds, alpha=ALPHA / number, fewest=fewest)
        for task in study["task"]
    )
    half = None
    if seeds >= fewest:
        half = seeds_to_halve(seeds, alpha=ALPHA / number, fewest=fewest)
    per_seed = sum(
        seconds(cell)
        for cell in {
            cell["digest"]: cell for cell in cells_of_a_seed(plan, [study["baseline"], *candidates])
        }.values()
    )
    return Forecast(
        study=study["name"],
        num_cells=len(cells),
        num_missing=len(missing),
        num_rough=sum(measured(cell) is None for cell in missing),
        seconds=sum(map(seconds, missing)),
        num_compared=number,
        fewest=fewest,
        tasks=tasks,
        seeds=seeds,
        seeds_for_half=half,
        seconds_for_half=None if half is None else (half - seeds) * per_seed,
        pilot=None if pilot is None else str(pilot),
    )


def _pairs(study: Json, candidates: Sequence[str]) -> int:
    """Return the pairs of the candidate that has fewest."""
    asked = {study["baseline"], *candidates}
    limits = [arm["seeds"] for arm in study["arm"] if arm["name"] in asked]
    return int(min([len(study["seeds"]), *(limit for limit in limits if limit is not None)]))


def _visible(
    task: Json,
    report: Report | None,
    candidates: Sequence[str],
    seeds: int,
    *,
    alpha: float,
    fewest: int,
) -> Visible:
    title = str(task["name"] or task["task"])
    metric = primary_metric([metric.name for metric in TASKS.spec(task["task"]).metrics])
    sd, degrees = _spread(report, title, metric, candidates)
    least = low = high = None
    if sd is not None and seeds >= fewest:
        least = smallest_detectable(sd, seeds, alpha=alpha)
        low, high = (
            least * (degrees / float(scipy_stats.chi2.ppf(level, degrees))) ** 0.5
            for level in (1 - ALPHA / 2, ALPHA / 2)
        )
    return Visible(
        task=title, metric=metric, seeds=seeds, sd=sd, degrees=degrees, least=least, low=low,
        high=high,
    )  # fmt: skip


def _spread(
    report: Report | None, title: str, metric: str, candidates: Sequence[str]
) -> tuple[float | None, int]:
    """Return the spread of paired differences: of the candidates, or of all arms of a pilot whose
    arms have other names.
    """
    gains = {
        one.arm: one.difference
        for task in (report.tasks if report else ())
        if (task.name, task.metric.name) == (title, metric)
        for one in task.comparisons
        if one.difference is not None and one.difference.p is not None
    }
    chosen = [gain for arm, gain in gains.items() if arm in candidates] or list(gains.values())
    return pooled_sd(chosen) if chosen else (None, 0)


# -- in words -------------------------------------------------------------------------------------


def lines(found: Forecast, *, jobs: int = 1) -> list[str]:
    """Return the forecast as lines for the terminal."""
    done = found.num_cells - found.num_missing
    said = [
        f"{found.study}: {found.num_cells:,} runs, {done:,} of them finished; nothing was started"
    ]
    if found.num_missing:
        share = f" with {jobs} jobs" if jobs > 1 else ""
        said.append(
            f"{found.num_missing:,} runs to do: about {duration(found.seconds / jobs)}{share}"
            f"{_how_timed(found)}"
        )
    said += [_line(task, found) for task in found.tasks]
    if found.seeds < found.fewest:
        said.append(
            f"{text.seeds(found.seeds)} can name no winner among {found.num_compared} comparisons; "
            f"{found.fewest} are the least"
        )
    elif found.seeds_for_half is not None and found.seconds_for_half is not None:
        said.append(
            f"half of what {text.seeds(found.seeds)} show: {found.seeds_for_half:,} seeds, "
            f"{duration(found.seconds_for_half / jobs)} more"
        )
    said.append(
        f"(80 % power, paired, two-sided 5 % over {found.num_compared} "
        f"{'comparison' if found.num_compared == 1 else 'comparisons'})"
    )
    return said


def _how_timed(found: Forecast) -> str:
    if not found.num_rough:
        return "" if found.pilot is None else f", by the times of {found.pilot}"
    which = "" if found.num_rough == found.num_missing else f" for {found.num_rough:,} of them"
    return f"; a rough estimate{which}: passes through the tower, on the machine as busy as it is"


def _line(task: Visible, found: Forecast) -> str:
    metric = metric_of(task.metric)
    if task.sd is None:
        return (
            f"{task.task}: how small a difference {text.seeds(task.seeds)} show is not known: no "
            "spread between paired seeds was measured; a pilot of 3 seeds measures it"
        )
    spread = f"paired seeds differ by {metric.amount(task.sd)} (sd, {task.degrees} df)"
    if task.least is None or task.low is None or task.high is None:
        return f"{task.task}: {spread}"
    return (
        f"{task.task}: {text.seeds(task.seeds)} show {metric.amount(task.least)} or more "
        f"[{metric.number(task.low)}, {metric.number(task.high)}]; {spread}"
    )
