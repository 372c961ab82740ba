"""Draw the plots of a report as inline SVG: bars with seeds and gains, curves, losses.

An arm has the same colour in all of them. Bars start at zero; the panel beside them shows the gains
over the baseline, in which small differences are visible.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from curator.compare.svg import draw_svg, quiet
from finetune.metrics import Metric
from finetune.report.efficiency import Curve
from finetune.report.stats import mean_of
from finetune.report.values import ReportArm, TaskResult

NUM_COLOURS = 8
"""Arms beyond the eighth reuse colours, with dashed lines."""

_ARMS = [f"#0b000{slot}" for slot in range(NUM_COLOURS)]
_INK, _MUTED, _LINE, _CARD = "#0b0010", "#0b0011", "#0b0012", "#0b0013"
_VARIABLES = {
    **{stand_in: f"--arm{slot}" for slot, stand_in in enumerate(_ARMS)},
    _INK: "--ink",
    _MUTED: "--muted",
    _LINE: "--line",
    _CARD: "--card",
}
_WIDTH_IN = 10.4
_ROW_IN = 0.36
_MARKERS = "os^DvPX*"


def _colour(arm: ReportArm) -> str:
    return _ARMS[arm.slot % NUM_COLOURS]


def _dashes(arm: ReportArm) -> str:
    return "-" if arm.slot < NUM_COLOURS else "--"


def task_plot(task: TaskResult, arms: Sequence[ReportArm]) -> str:
    """Draw a bar per arm with its interval and seeds (left), and the gains over the baseline."""
    shown = [arm for arm in arms if arm.name in task.means]

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.15, 1))
        _bars(left, task, shown)
        _gains(right, task, shown)
        left.set_ylim(len(shown) - 0.4, -0.6)  # the first arm on top

    height = 0.75 + _ROW_IN * len(shown)
    label = f"{task.metric.label} of {len(shown)} arms, and their gains over the baseline"
    return _svg(draw, f"task-{task.name}", label, (_WIDTH_IN, height))


def _bars(axes: Axes, task: TaskResult, arms: Sequence[ReportArm]) -> None:
    scale = task.metric.scale
    for row, arm in enumerate(arms):
        mean, colour = task.means[arm.name], _colour(arm)
        axes.barh(row, mean.mean * scale, height=0.56, color=colour, alpha=0.32, linewidth=0)
        if mean.low is not None and mean.high is not None:
            limits = [mean.low * scale, mean.high * scale]
            axes.plot(limits, [row, row], color=colour, linewidth=2, solid_capstyle="butt")
        values = [value * scale for value in task.values[arm.name].values()]
        _seeds(axes, values, row, colour)
    axes.set_xlim(left=0)
    axes.set_yticks(range(len(arms)), [arm.name for arm in arms])
    _finish(axes, _axis_label(task.metric), grid="x")
    axes.tick_params(axis="y", labelcolor=_INK, labelsize=10)


def _gains(axes: Axes, task: TaskResult, arms: Sequence[ReportArm]) -> None:
    scale, sign = task.metric.scale, 1 if task.metric.higher_is_better else -1
    by_arm = {comparison.arm: comparison for comparison in task.comparisons}
    axes.axvline(0, color=_MUTED, linewidth=1)
    for row, arm in enumerate(arms):
        found = by_arm.get(arm.name)
        if found is None or found.difference is None:
            continue
        gain, colour, pairs = found.difference, _colour(arm), found.pairs
        if gain.low is not None and gain.high is not None:
            axes.plot([gain.low * scale, gain.high * scale], [row, row], color=colour, linewidth=2)
        each = zip(pairs.first, pairs.second, strict=True)
        _seeds(axes, [sign * (one - other) * scale for one, other in each], row, colour)
        axes.plot([gain.mean * scale], [row], marker="D", markersize=5.5, color=colour)
    baseline = next((arm.name for arm in arms if arm.is_baseline), "the baseline")
    unit = f"{task.metric.unit} {task.metric.label}".strip()
    less = "" if task.metric.higher_is_better else f" (less {task.metric.label} counts up)"
    axes.xaxis.set_major_locator(MaxNLocator(5))
    _finish(axes, f"gain over {baseline}, {unit}{less}", grid="x")
    axes.tick_params(axis="y", labelleft=False)


def _seeds(axes: Axes, values: Sequence[float], row: float, colour: str) -> None:
    """Draw one dot per seed, spread out a little so that none hides another."""
    fan = np.linspace(-0.15, 0.15, len(values)) if len(values) > 1 else [0.0]
    axes.scatter(
        values,
        [row + offset for offset in fan],
        s=13,
        facecolor=_CARD,
        edgecolor=colour,
        linewidth=0.9,
        zorder=3,
    )


def curve_plot(
    curves: Mapping[str, Curve], arms: Sequence[ReportArm], metric: Metric, *, what: str
) -> str:
    """Draw scores over the labels ("labels") or the samples seen ("samples"), on a log axis."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        amounts = sorted({amount for curve in curves.values() for amount in curve})
        for arm in arms:
            if arm.name in curves:
                _curve(axes, curves[arm.name], arm, metric)
        axes.set_xscale("log")
        axes.set_xticks(amounts)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(_share if what == "labels" else _count))
        axes.yaxis.set_major_locator(MaxNLocator(6))
        _keep_means_apart(axes, curves, metric)
        name = "labels used in training" if what == "labels" else "samples seen in pretraining"
        _finish(axes, name, grid="both")
        axes.set_ylabel(_axis_label(metric), color=_MUTED)

    label = f"{metric.label} over the amount of {what}"
    return _svg(draw, f"curve-{what}-{metric.name}", label, (5.6, 3.5))


def _curve(axes: Axes, curve: Curve, arm: ReportArm, metric: Metric) -> None:
    amounts = sorted(curve)
    means = [mean_of(list(curve[amount].values())) for amount in amounts]
    colour = _colour(arm)
    low = [(mean.mean if mean.low is None else mean.low) * metric.scale for mean in means]
    high = [(mean.mean if mean.high is None else mean.high) * metric.scale for mean in means]
    axes.fill_between(amounts, low, high, color=colour, alpha=0.13, linewidth=0)
    axes.plot(
        amounts,
        [mean.mean * metric.scale for mean in means],
        color=colour,
        linewidth=1.7,
        linestyle=_dashes(arm),
        marker=_MARKERS[arm.slot % len(_MARKERS)],
        markersize=4.5,
    )


def _keep_means_apart(axes: Axes, curves: Mapping[str, Curve], metric: Metric) -> None:
    """Clip wide bands, which would flatten all curves, as intervals of two seeds can do."""
    means = [
        mean_of(list(by_seed.values())).mean * metric.scale
        for curve in curves.values()
        for by_seed in curve.values()
    ]
    reach = max(means) - min(means)
    low, high = axes.get_ylim()
    if reach > 0:
        axes.set_ylim(max(low, min(means) - reach), min(high, max(means) + reach))


def learning_plot(
    runs: Mapping[str, Sequence[Sequence[tuple[float, float]]]],
    arms: Sequence[ReportArm],
    stage: str,
) -> str:
    """Draw the loss of every seed over the steps."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for arm in arms:
            for points in runs.get(arm.name, ()):
                steps, losses = zip(*points, strict=True)
                dashes, colour = _dashes(arm), _colour(arm)
                axes.plot(steps, losses, dashes, color=colour, linewidth=0.9, alpha=0.75)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        _finish(axes, "step", grid="y")
        axes.set_ylabel("loss", color=_MUTED)

    return _svg(draw, f"learning-{stage}", f"loss of {stage} over steps", (4.3, 2.7))


def _finish(axes: Axes, label: str, *, grid: Literal["x", "y", "both"]) -> None:
    quiet(axes, muted=_MUTED, line=_LINE, grid=grid)
    axes.set_xlabel(label, color=_MUTED, labelpad=6)


def _axis_label(metric: Metric) -> str:
    return f"{metric.label}, {metric.unit}" if metric.unit else metric.label


def _share(value: float, _position: int) -> str:
    return f"{value * 100:g} %"


def _count(value: float, _position: int) -> str:
    return f"{value:,.0f}"


def _svg(
    draw: Callable[[Figure], None], salt: str, label: str, size_in: tuple[float, float]
) -> str:
    return draw_svg(draw, salt=salt, label=label, size_in=size_in, variables=_VARIABLES)
