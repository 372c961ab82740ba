"""Draw docs/images/reference.png: what captions are worth, from the reference study.

    python -m benchmarks.reference_picture STUDY docs/images/reference.png

On the left the score of segmentation over the share of right alt texts, on the right over the
labels. A dot is a tower, a line goes through the means of the seeds.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from finetune.report.build import build_report
from finetune.report.stats import mean_of

SIZE_IN, DPI = (9.6, 4.0), 200
INK, GREY, LINE = "#1f2328", "#59636e", "#d1d9e0"
SHOWN = {
    "true captions": "#116329",
    "recaptioned": "#0969da",
    "detailed captions": "#8250df",
    "alt text, 37 % right": "#bc4c00",
    "masked images": "#59636e",
    "random": "#8c959f",
}
"""Arm -> colour."""

LINES = ("recaptioned", "detailed captions", "masked images")
"""The arms that are lines beside the rates of right alt texts."""

_RATE = re.compile(r"alt text, (\d+) % right")
Curve = Mapping[float, Mapping[int, float]]


def _towers(axes: Axes, curve: Curve, colour: str, *, scale: float) -> tuple[float, float]:
    """Draw the towers and the line of their means; return its last point."""
    amounts = sorted(curve)
    for amount in amounts:
        values = [value * scale for value in curve[amount].values()]
        axes.scatter([amount] * len(values), values, s=9, color=colour, alpha=0.35, linewidth=0)
    means = [mean_of(list(curve[amount].values())).mean * scale for amount in amounts]
    axes.plot(amounts, means, color=colour, linewidth=1.8, marker="o", markersize=4)
    return amounts[-1], means[-1]


def draw(figure: Figure, study: Path) -> None:
    """Draw both panels."""
    report = build_report(study)
    task = next(one for one in report.tasks if one.name == "segmentation")
    scale = task.metric.scale
    dose, labels = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.25))
    rates = {float(found[1]): arm for arm in task.values if (found := _RATE.fullmatch(arm))}
    _towers(dose, {rate: task.values[arm] for rate, arm in rates.items()}, INK, scale=scale)
    for arm in LINES:
        height = mean_of(list(task.values[arm].values())).mean * scale
        dose.axhline(height, color=SHOWN[arm], linewidth=1.2, linestyle=(0, (4, 3)))
        dose.text(1, height + 0.8, arm, color=SHOWN[arm], fontsize=8.5)
    dose.set_xlim(0, 100)
    dose.set_xlabel("alt texts that are right, %")
    dose.set_ylabel(task.metric.heading)
    ends = {}
    for arm, colour in SHOWN.items():
        if arm in task.curves:
            _, ends[arm] = _towers(labels, task.curves[arm], colour, scale=scale)
    labels.set_xscale("log")
    labels.set_xlim(0.008, 8)
    labels.set_xticks([amount for amount in sorted(task.curves[report.baseline])])
    labels.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share * 100:g} %"))
    labels.xaxis.set_minor_locator(NullLocator())
    labels.set_xlabel(f"labels, of {task.num_train:,} images")
    _named(labels, 1.15, ends)
    for axes in (dose, labels):
        axes.set_ylim(0, 90)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(LINE)
        axes.tick_params(color=LINE, labelcolor=GREY)
        axes.grid(axis="y", color=LINE, linewidth=0.6)
        axes.set_axisbelow(True)


def _named(axes: Axes, at: float, heights: Mapping[str, float]) -> None:
    """Write the names at the ends of their lines, moved apart where they would touch."""
    below = float("inf")
    for arm, height in sorted(heights.items(), key=lambda one: -one[1]):
        below = min(height, below - 4.5)
        axes.annotate(
            arm, (at, below), xytext=(3, 0), textcoords="offset points", color=SHOWN[arm],
            va="center", fontsize=8.5,
        )  # fmt: skip


def main() -> None:
    """Draw the picture of a finished study."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("study", type=Path)
    options.add_argument("out", type=Path)
    asked = options.parse_args()
    with rc_context({"font.family": "DejaVu Sans", "font.size": 9, "axes.labelcolor": GREY}):
        figure = Figure(figsize=SIZE_IN, layout="constrained")
        draw(figure, asked.study)
        figure.savefig(asked.out, dpi=DPI)


if __name__ == "__main__":
    main()
