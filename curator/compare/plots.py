"""Draw the plots of a comparison: scores and lengths of both versions, and the raters' win rate.

The page of `curator diff --html` and the dashboard use the same plots.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from curator.compare.stats import MAX_WORDS_SHOWN, LengthStats, length_shares
from curator.compare.svg import draw_svg, quiet
from curator.compare.text import histograms
from curator.compare.values import ScoreShift

if TYPE_CHECKING:
    from curator.ratings.stats import WinRate  # imports statsmodels, which takes a second

_OLD, _NEW, _MUTED, _LINE = "#0a0001", "#0a0002", "#0a0003", "#0a0004"
_VARIABLES = {_OLD: "--old", _NEW: "--new", _MUTED: "--muted", _LINE: "--line"}
_SIZE_IN = (7.2, 3.1)


def score_plot(scores: ScoreShift) -> str:
    """Draw histograms of the scores of both versions, as shares of their texts."""
    low, step, old, new = histograms(scores, max_bars=72)
    edges = [low + step * number for number in range(len(old) + 1)]

    def draw(axes: Axes) -> None:
        _steps(axes, edges, old, new)
        for found, color in ((scores.old, _OLD), (scores.new, _NEW)):
            if found.mean is not None:
                axes.axvline(found.mean, color=color, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.xaxis.set_major_locator(MaxNLocator(8))

    return _svg("score", "histogram of the scores before and after", draw)


def length_plot(old: LengthStats, new: LengthStats) -> str:
    """Draw histograms of the words per text of both versions, as shares of their texts."""
    width, before, after = length_shares(old, new)
    edges = [number * width - 0.5 for number in range(len(before) + 1)]

    def draw(axes: Axes) -> None:
        _steps(axes, edges, before, after)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(_words_label))

    return _svg("length", "histogram of the words per text before and after", draw)


def win_rate_plot(found: WinRate, names: tuple[str, str]) -> str:
    """Draw the win rate of the newer version, with 95 % interval, on a line from 0 to 1."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axvline(0.5, color=_MUTED, linewidth=1, linestyle=(0, (4, 4)))
        if found.low is not None and found.high is not None:
            axes.plot([found.low, found.high], [0, 0], color=_NEW, linewidth=3)
        if found.rate is not None:
            axes.plot([found.rate], [0], marker="o", markersize=10, color=_NEW)
        axes.set_xlim(0, 1)
        axes.set_yticks([])
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:.0%}"))
        quiet(axes, muted=_MUTED, line=_LINE, grid="x")
        older, newer = names
        axes.set_xlabel(
            f"{older} is better  \u2190    win rate of {newer}    \u2192  {newer} is better",
            color=_MUTED,
        )

    label = "win rate of the newer version, with 95 % interval"
    return draw_svg(draw, salt="win", label=label, size_in=(7.2, 1.3), variables=_VARIABLES)


def _words_label(value: float, _position: int) -> str:
    return f"{MAX_WORDS_SHOWN}+" if value >= MAX_WORDS_SHOWN else f"{value:g}"


def _steps(axes: Axes, edges: Sequence[float], old: Sequence[float], new: Sequence[float]) -> None:
    for shares, color, alpha in ((old, _OLD, 0.28), (new, _NEW, 0.22)):
        axes.stairs(shares, edges, color=color, fill=True, alpha=alpha, linewidth=0)
        axes.stairs(shares, edges, color=color, linewidth=1.6)


def _svg(salt: str, label: str, draw: Callable[[Axes], None]) -> str:
    def draw_figure(figure: Figure) -> None:
        axes = figure.subplots()
        draw(axes)
        axes.margins(x=0.01)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share * 100:.3g} %"))
        quiet(axes, muted=_MUTED, line=_LINE)

    return draw_svg(draw_figure, salt=salt, label=label, size_in=_SIZE_IN, variables=_VARIABLES)
