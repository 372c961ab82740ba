"""Render a report as one HTML page: images embedded, no script, no request, light and dark.

Names of arms and error messages come from files: the template escapes everything, and a content
security policy forbids all but inline styles and `data:` images. The same cells give the same
bytes. The page can be printed.
"""

from __future__ import annotations

import base64
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from curator.core.clock import duration
from finetune.report import tables, text
from finetune.report.plots import NUM_COLOURS, curve_plot, learning_plot, task_plot
from finetune.report.values import Report


def render_html(report: Report, folder: Path) -> str:
    """Return the whole page; sample predictions are read from `folder`, the study's folder."""
    return _environment().get_template("report.html").render(
        report=report,
        headline=text.headline(report),
        none_=text.NONE,
        costs_are=text.COSTS_ARE,
        nets_are=text.NETS_ARE,
        net_table=tables.net_table(report),
        gaps_are=text.GAPS_ARE,
        relative_is=text.relative_is(report),
        matched=text.matched(report),
        retrieval_is=text.RETRIEVAL_IS,
        slot=lambda name: report.arm(name).slot % NUM_COLOURS,
        families=tables.families(report),
        comparisons=tables.comparisons_of(report),
        baseline_cost=next(cost for cost in report.costs if cost.arm == report.baseline),
        total_seconds=report.total_seconds,
        task_plots={task.name: task_plot(task, report.arms) for task in report.tasks},
        curve_plots=_curve_plots(report),
        curve_arms={arm for task in report.tasks for arm in (*task.curves, *task.ladders)},
        gap_columns=tables.gap_columns(report),
        gap_rows=tables.gap_rows(report),
        asked_gaps=tables.asked_gaps(report),
        relative_tasks=[task for task in report.tasks if task.relative],
        samples=_samples(report, folder),
        learning_plots=[
            (stage, learning_plot(runs, report.arms, stage))
            for stage, runs in report.learning.items()
        ],
        learning_arms={arm for runs in report.learning.values() for arm in runs},
        study_lines=tables.study_lines(report),
        task_lines=tables.task_lines(report),
        arm_lines=tables.arm_lines(report),
    )  # fmt: skip


def _environment() -> Environment:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("finetune.report"), PackageLoader("curator.compare")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": lambda value: f"{value:,.0f}",
        "duration": duration,
        "effect": text.effect,
        "flops": text.flops,
        "gap_sentence": text.gap_sentence,
        "interval": lambda found, metric, signed=False: text.interval(metric, found, signed=signed),
        "how_trained": text.how_trained,
        "measured_as": text.measured_as,
        "factor": text.factor,
        "factor_limit": text.factor_limit,
        "p_value": text.p_value,
        "relative": text.relative,
        "sentence": text.sentence,
        "share": text.share,
    }
    # Jinja's own `capitalize` lowercases the other letters.
    environment.filters["capitalize"] = lambda word: word[:1].upper() + word[1:]
    return environment


def _curve_plots(report: Report) -> list[tuple[str, str]]:
    plots = []
    for task in report.tasks:
        for what, curves in (("labels", task.curves), ("samples", task.ladders)):
            if curves:
                title = f"{task.name[:1].upper()}{task.name[1:]}, by {what}"
                plots.append((title, curve_plot(curves, report.arms, task.metric, what=what)))
    return plots


Samples = list[tuple[str, list[str], list[list[str | None]]]]


def _samples(report: Report, folder: Path) -> Samples:
    """Return (task, arms, rows of `data:` URIs: image, truth, one per arm)."""
    found: Samples = []
    for task in report.tasks:
        names = [
            arm.name
            for arm in report.arms
            if any(arm.name in picture.predictions for picture in task.pictures)
        ]
        rows = [
            [
                _uri(folder, path)
                for path in (
                    picture.image,
                    picture.truth,
                    *(picture.predictions.get(name) for name in names),
                )
            ]
            for picture in task.pictures
        ]
        if rows:
            found.append((task.name, names, rows))
    return found


def _uri(folder: Path, name: str | None) -> str | None:
    """Return an image of the study as a `data:` URI; None if its file is missing."""
    if name is None or not (folder / name).is_file():
        return None
    return "data:image/png;base64," + base64.b64encode((folder / name).read_bytes()).decode()
