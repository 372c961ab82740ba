"""Render a report as Markdown, with the same sentences and tables as the HTML page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from curator.core.clock import duration
from finetune.metrics import Metric
from finetune.report import text
from finetune.report.stats import Mean
from finetune.report.tables import (
    arm_lines,
    asked_gaps,
    comparisons_of,
    families,
    gap_columns,
    gap_rows,
    net_table,
    study_lines,
    task_lines,
)
from finetune.report.values import Report, TaskResult

_MARKS = re.compile(r"([\\`*_{}\[\]<>|#~])")


def render_markdown(report: Report) -> str:
    """Return the report in Markdown, ending in a newline."""
    lines = [f"# {_safe(report.name)}", ""]
    if report.description:
        lines += [_safe(report.description), ""]
    for name, said in text.headline(report):
        lines += [f"**{_safe(name[:1].upper() + name[1:])}:** {_safe(said)}", ""]
    if report.warnings or report.notes:
        lines += ["Before you believe this:", ""]
        lines += [f"* {_safe(line)}" for line in (*report.warnings, *report.notes)] + [""]
    for task in report.tasks:
        lines += _task(report, task)
    lines += [*_gaps(report), *_relative(report), *_costs(report), *_made(report)]
    if report.failures:
        rows = [[failure.label, failure.message] for failure in report.failures]
        lines += ["## What failed", "", *_table(["run", "reason"], rows), ""]
    lines.append(f"Made by caption-curator {report.tool_version}.")
    return "\n".join(lines) + "\n"


def _safe(words: str) -> str:
    """Escape everything in a text that Markdown would interpret."""
    return _MARKS.sub(r"\\\1", words.replace("\n", " "))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(map(_safe, head))} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(map(_safe, row))} |"


def _mean(found: Mean | None, metric: Metric) -> str:
    if found is None:
        return text.NONE
    return f"{metric.number(found.mean)} {text.interval(metric, found)}".strip()


def _task(report: Report, task: TaskResult) -> Iterator[str]:
    metric, compared = task.metric, comparisons_of(report)[task.name]
    yield f"## {_safe(task.name[:1].upper() + task.name[1:])}"
    yield ""
    yield (
        f"{text.how_trained(task).capitalize()}, {task.num_train:,} labelled images "
        f"({text.share(task.fraction)}), {task.num_test:,} test images. "
        f"Intervals are 95 %, p is adjusted by Holm's method over {_safe(families(report))}."
    )
    yield ""
    rows = []
    for arm in report.arms:
        if arm.name not in task.means:
            continue
        found = compared.get(arm.name)
        gain = found.difference if found else None
        told = [text.NONE, text.NONE, text.NONE]
        if gain is not None:
            amount = metric.number(gain.mean, signed=True)
            told = [f"{amount} {text.interval(metric, gain, signed=True)}".strip()]
            told += [text.p_value(gain), text.effect(gain)]
        rows.append(
            [
                arm.name,
                str(task.means[arm.name].n),
                _mean(task.means[arm.name], metric),
                *(_mean(means.get(arm.name), other) for other, means in task.others),
                *told,
            ]
        )
    others = [other.label for other, _ in task.others]
    head = [
        "arm",
        "seeds",
        text.measured_as(task, metric),
        *others,
        f"gain over {report.baseline}",
        "p",
        "effect",
    ]
    yield from _table(head, rows)
    yield ""
    for comparison in task.comparisons:
        yield f"* {_safe(text.sentence(comparison))}"
    yield ""


def _gaps(report: Report) -> Iterator[str]:
    columns = gap_columns(report)
    if not columns:
        return
    yield "## Fewer labels, fewer samples"
    yield ""
    yield text.GAPS_ARE
    yield ""
    rows = [
        [
            name,
            *(
                f"{text.factor(gap)} {text.factor_limit(gap)}".strip()
                + f" (n = {gap.efficiency.n})"
                if gap
                else text.NONE
                for gap in gaps
            ),
        ]
        for name, gaps in gap_rows(report)
    ]
    head = [f"times fewer than {report.baseline}", *(title for title, _ in columns)]
    yield from _table(head, rows)
    yield ""
    for gap in asked_gaps(report):
        yield f"* {_safe(text.gap_sentence(gap))}"
    yield ""


def _relative(report: Report) -> Iterator[str]:
    tasks = [task for task in report.tasks if task.relative]
    if not tasks:
        return
    yield f"## Against {_safe(report.mae or '')}, as the paper reports it"
    yield ""
    yield _safe(text.relative_is(report))
    yield ""
    rows = [
        [
            arm.name,
            *(
                f"{text.relative(task.relative[arm.name])} (n = {task.relative[arm.name].n})"
                if arm.name in task.relative
                else text.NONE
                for task in tasks
            ),
        ]
        for arm in report.arms
        if arm.name != report.mae
    ]
    yield from _table(["arm", *(f"{task.name}, {task.metric.label}" for task in tasks)], rows)
    yield ""


def _costs(report: Report) -> Iterator[str]:
    yield "## Cost"
    yield ""
    yield text.COSTS_ARE
    yield ""
    rows = [
        [
            cost.arm,
            f"{cost.samples.mean:,.0f}" if cost.samples else text.NONE,
            text.flops(cost.flops.mean) if cost.flops else text.NONE,
            duration(cost.seconds.mean) if cost.seconds else text.NONE,
            cost.hours or text.NONE,
            duration(cost.dense_seconds.mean) if cost.dense_seconds else text.NONE,
            *(_mean(means.get(cost.arm), metric) for metric, means in report.retrieval),
        ]
        for cost in report.costs
    ]
    head = ["arm", "samples seen", "FLOPs", "pretraining", "device time", "one dense run"]
    yield from _table([*head, *(metric.label for metric, _ in report.retrieval)], rows)
    yield ""
    if report.retrieval:
        yield text.RETRIEVAL_IS
        yield ""
    if report.nets:
        yield text.NETS_ARE
        yield ""
        yield from _table(*net_table(report))
        yield ""


def _made(report: Report) -> Iterator[str]:
    yield "## How it was made"
    yield ""
    for name, lines in [("study", study_lines(report)), *task_lines(report), *arm_lines(report)]:
        told = "; ".join(f"{label} {value}" for label, value in lines)
        yield f"* {_safe(name)}: {_safe(told)}"
    yield ""
