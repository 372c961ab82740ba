"""Parts of a study: verdict, results, curves, images, cost, how it was made.

Every number and sentence comes from the report (`finetune.report`).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path

import streamlit as st

from curator.core.clock import duration
from finetune.metrics import Metric
from finetune.report import plots as report_plots
from finetune.report import tables as report_tables
from finetune.report import text as report_text
from finetune.report.stats import Mean
from finetune.report.values import Comparison, Gap, Report, TaskResult
from ui.shared import parts, plots

_MAX_PICTURE_BYTES = 4 << 20
_TASK_PX, _CURVE_PX, _LOSS_PX = 1060, 600, 520


# -- the verdict ----------------------------------------------------------------------------------


def verdict(report: Report) -> None:
    """Draw the sentences that answer the question."""
    said = report_text.headline(report)
    lines = [
        f"<b>{parts.escaped(_capital(task))}:</b> {parts.escaped(line)}" for task, line in said
    ]
    body = "".join(f'<p class="cc-verdict">{line}</p>' for line in lines)
    st.html(body or '<p class="cc-verdict">No dense run is finished yet.</p>')


def doubts(report: Report) -> None:
    """Draw what a reader must know before believing the verdict."""
    lines = [*report.warnings, *report.notes]
    if lines:
        items = "".join(f"<li>{parts.escaped(line)}</li>" for line in lines)
        st.html(f'<div class="cc-believe"><b>Before you believe this</b><ul>{items}</ul></div>')


def figures(report: Report) -> None:
    """Draw how much was run."""
    failed = f", {len(report.failures):,} failed" if report.failures else ""
    parts.metrics(
        {
            "runs finished": report.num_done,
            "arms": len(report.arms),
            "seeds": len(report.seeds),
            "tasks": len(report.tasks),
            "compute time": duration(report.total_seconds),
        },
        about={
            "runs finished": f"of {report.num_cells:,}{failed}",
            "seeds": "paired: same data order, labels, heads",
            "compute time": "sum over all runs",
        },
    )
    hint(
        "Intervals are 95 %. Runs are paired by seed; a winner is named only where its interval "
        "excludes zero and its p-value, adjusted by Holm's method, is below 5 %."
    )


# -- results --------------------------------------------------------------------------------------


def task(report: Report, found: TaskResult) -> None:
    """Draw one task: bars with seeds and intervals, gains, the table, the sentences."""
    metric = found.metric
    better = "higher" if metric.higher_is_better else "lower"
    unit = f" in {metric.unit}" if metric.unit else ""
    labels = f" ({report_text.share(found.fraction)})" if found.fraction < 1 else ""
    parts.section(
        _capital(found.name),
        f"{metric.label}{unit} ({better} is better) on {found.num_test:,} test images, "
        f"{report_text.how_trained(found)}, {found.num_train:,} "
        f"labelled images{labels}. Lines are 95 % intervals, dots are seeds.",
    )
    drawn = report_plots.task_plot(found, report.arms)
    plots.svg(drawn, f"{found.name}: {metric.label}", width_px=_TASK_PX)
    others = [other for other, _ in found.others]
    head = [
        "arm",
        "seeds",
        report_text.measured_as(found, metric),
        *(other.label for other in others),
    ]
    head += [f"gain over {report.baseline}", "adjusted p", "effect"]
    compared = report_tables.comparisons_of(report)[found.name]
    rows = [
        _row(report, found, arm.name, compared.get(arm.name))
        for arm in report.arms
        if arm.name in found.means
    ]
    bases = [arm.is_baseline for arm in report.arms if arm.name in found.means]
    table(head, rows, marked=bases)
    _sentences(report_text.sentence(one) for one in found.comparisons)
    hint(
        f"Green and red: significantly better and worse than {report.baseline}; grey: no "
        f"significant difference. p is adjusted over {report_tables.families(report)}; effect is "
        "the mean gain in standard deviations, with Hedges' correction."
    )


def _row(report: Report, found: TaskResult, arm: str, compared: Comparison | None) -> list[str]:
    cells = [arm_name(report, arm), str(found.means[arm].n), _mean(found.means[arm], found.metric)]
    cells += [_mean(means.get(arm), other) for other, means in found.others]
    gain = compared.difference if compared is not None else None
    if compared is None or gain is None:
        return [*cells, "baseline" if arm == report.baseline else report_text.NONE, "", ""]
    amount = parts.escaped(found.metric.number(gain.mean, signed=True))
    spread = parts.escaped(report_text.interval(found.metric, gain, signed=True))
    mark = f'<span class="cc-mark-on cc-{compared.outcome}">{amount}</span><small>{spread}</small>'
    return [*cells, mark, parts.escaped(report_text.p_value(gain)), report_text.effect(gain)]


def _mean(found: Mean | None, metric: Metric) -> str:
    if found is None:
        return report_text.NONE
    spread = parts.escaped(report_text.interval(metric, found))
    return f"{parts.escaped(metric.number(found.mean))}<small>{spread}</small>"


def curves(report: Report) -> bool:
    """Draw score over labels and samples, and the factors saved; False if there are none."""
    draw = report_plots.curve_plot
    shown = [
        (task_, what, found)
        for task_ in report.tasks
        for what, found in (("labels", task_.curves), ("samples", task_.ladders))
        if found
    ]
    if not shown:
        return False
    arms(report, {arm for _, _, found in shown for arm in found})
    columns = st.columns(2, gap="large")
    for place, (task_, what, found) in enumerate(shown):
        with columns[place % 2]:
            title = f"{_capital(task_.name)}, by {what}"
            st.html(f'<div class="cc-rule">{parts.escaped(title)}</div>')
            plots.svg(draw(found, report.arms, task_.metric, what=what), title, width_px=_CURVE_PX)
    rows = [
        [arm_name(report, name), *(_gap(gap) for gap in gaps)]
        for name, gaps in report_tables.gap_rows(report)
    ]
    if rows:
        titles = [title for title, _ in report_tables.gap_columns(report)]
        table([f"times fewer than {report.baseline}", *titles], rows)
        _sentences(report_text.gap_sentence(gap) for gap in report_tables.asked_gaps(report))
        hint(report_text.GAPS_ARE)
    return True


def _gap(gap: Gap | None) -> str:
    if gap is None:
        return report_text.NONE
    amount = parts.escaped(report_text.factor(gap))
    spread = parts.escaped(report_text.factor_limit(gap))
    return f"<b>{amount}</b><small>{spread} n = {gap.efficiency.n}</small>"


def relative(report: Report) -> None:
    """Draw changes against the arm that the paper compares with, if the study has it."""
    tasks = [task_ for task_ in report.tasks if task_.relative]
    if not tasks:
        return
    parts.section(f"Against {report.mae}, as the paper reports it")
    rows = [
        [
            arm_name(report, arm.name),
            *(
                f"{parts.escaped(report_text.relative(task_.relative[arm.name]))}"
                f"<small>n = {task_.relative[arm.name].n}</small>"
                if arm.name in task_.relative
                else report_text.NONE
                for task_ in tasks
            ),
        ]
        for arm in report.arms
        if arm.name != report.mae
    ]
    table(["arm", *(f"{task_.name}, {task_.metric.label}" for task_ in tasks)], rows)
    hint(report_text.relative_is(report))


def learning(report: Report) -> bool:
    """Draw the loss of every seed; False if there is none."""
    if not report.learning:
        return False
    draw = report_plots.learning_plot
    arms(report, {arm for runs in report.learning.values() for arm in runs})
    columns = st.columns(2, gap="large")
    for place, (stage, runs) in enumerate(report.learning.items()):
        with columns[place % 2]:
            st.html(f'<div class="cc-rule">{parts.escaped(_capital(stage))}</div>')
            plots.svg(draw(runs, report.arms, stage), f"loss of {stage}", width_px=_LOSS_PX)
    hint("Losses of different objectives have different units: compare shapes, not heights.")
    return True


# -- images --------------------------------------------------------------------------------------


def pictures(report: Report, folder: Path) -> bool:
    """Draw the first test images with every arm's prediction; False if there are none."""
    shown = False
    for task_ in report.tasks:
        names = [
            arm.name
            for arm in report.arms
            if any(arm.name in picture.predictions for picture in task_.pictures)
        ]
        if not names:
            continue
        shown = True
        st.html(f'<div class="cc-rule">{parts.escaped(_capital(task_.name))}</div>')
        heads = ["picture", "truth", *(arm_name(report, name) for name in names)]
        cells = "".join(f"<span>{head}</span>" for head in heads)
        for picture in task_.pictures:
            files = [picture.image, picture.truth, *map(picture.predictions.get, names)]
            cells += "".join(_picture(folder, name) for name in files)
        style = f"grid-template-columns: repeat({len(heads)}, minmax(0, 1fr))"
        st.html(f'<div class="cc-samples" style="{style}">{cells}</div>')
    if shown:
        hint(f"The first test images, not hand-picked, with the runs of seed {report.seeds[0]}.")
    return shown


def _picture(folder: Path, name: str | None) -> str:
    """Return a PNG below the study's folder as HTML; a foreign study file may name other paths."""
    path = (folder / (name or "")).resolve()
    inside = path.is_relative_to(folder.resolve()) and path.suffix == ".png" and path.is_file()
    if not inside or path.stat().st_size > _MAX_PICTURE_BYTES:
        return "<i></i>"
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="" src="data:image/png;base64,{data}">'


# -- cost, and how it was made --------------------------------------------------------------------


def costs(report: Report) -> None:
    """Draw what each arm cost and how well its pretraining went."""
    none = report_text.NONE
    rows = [
        [
            arm_name(report, cost.arm),
            str(cost.samples.n) if cost.samples else none,
            f"{cost.samples.mean:,.0f}" if cost.samples else none,
            report_text.flops(cost.flops.mean) if cost.flops else none,
            duration(cost.seconds.mean) if cost.seconds else none,
            cost.hours or none,
            duration(cost.dense_seconds.mean) if cost.dense_seconds else none,
            *(_mean(means.get(cost.arm), metric) for metric, means in report.retrieval),
        ]
        for cost in report.costs
    ]
    head = ["arm", "runs", "samples seen", "FLOPs", "pretraining", "device time", "one dense run"]
    head += [metric.label for metric, _ in report.retrieval]
    table(head, rows, marked=[cost.arm == report.baseline for cost in report.costs])
    hint(f"{report_text.COSTS_ARE} {report_text.RETRIEVAL_IS if report.retrieval else ''}")
    if report.nets:
        head, rows = report_tables.net_table(report)
        shown = [[arm_name(report, name), *map(parts.escaped, rest)] for name, *rest in rows]
        table(head, shown, marked=[name == report.baseline for name, *_ in rows])
        hint(report_text.NETS_ARE)


def made(report: Report) -> None:
    """Draw the settings of the study, its tasks and its arms."""
    blocks = [("Study", report_tables.study_lines(report)), *report_tables.task_lines(report)]
    body = "".join(_lines(parts.escaped(_capital(name)), lines) for name, lines in blocks)
    body += "".join(
        _lines(arm_name(report, name), lines) for name, lines in report_tables.arm_lines(report)
    )
    st.html(f'<div class="cc-made">{body}</div>')


def _lines(head: str, lines: Sequence[tuple[str, str]]) -> str:
    rows = "".join(
        f"<dt>{parts.escaped(name)}</dt><dd>{parts.escaped(value)}</dd>" for name, value in lines
    )
    return f"<div><h3>{head}</h3><dl>{rows}</dl></div>"


# -- pieces ---------------------------------------------------------------------------------------


def arm_name(report: Report, name: str) -> str:
    """Return an arm's name with its colour, as HTML."""
    slot = report.arm(name).slot % report_plots.NUM_COLOURS
    return f'<i class="cc-arm cc-arm{slot}"></i>{parts.escaped(name)}'


def arms(report: Report, names: Iterable[str]) -> None:
    """Draw the colour legend of the arms."""
    wanted = set(names)
    spans = "".join(
        f"<span>{arm_name(report, arm.name)}</span>" for arm in report.arms if arm.name in wanted
    )
    st.html(f'<div class="cc-arms">{spans}</div>')


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, marked: Sequence[bool] = ()
) -> None:
    """Draw a table; `head` is text, cells are HTML made in this module."""
    heads = "".join(f"<th>{parts.escaped(name)}</th>" for name in head)
    body = ""
    for place, cells in enumerate(rows):
        kind = ' class="cc-base"' if place < len(marked) and marked[place] else ""
        body += f"<tr{kind}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    st.html(
        f'<div class="cc-study-scroll"><table class="cc-study"><tr>{heads}</tr>{body}</table></div>'
    )


def hint(text: str) -> None:
    """Draw a remark below a table or plot."""
    st.html(f'<p class="cc-hint">{parts.escaped(text)}</p>')


def _sentences(said: Iterable[str]) -> None:
    items = "".join(f"<li>{parts.escaped(line)}</li>" for line in said)
    st.html(f'<ul class="cc-sentences">{items}</ul>')


def _capital(word: str) -> str:
    return word[:1].upper() + word[1:]
