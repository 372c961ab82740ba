"""The two pictures of a comparison; `curator.compare.svg` puts them into the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from curator.compare.stats import MAX_WORDS_SHOWN, LengthStats, length_shares
from curator.compare.svg import draw_svg, quiet
from curator.compare.text import histograms
from curator.compare.values import ScoreShift

_OLD, _NEW, _MUTED, _LINE = "#0a0001", "#0a0002", "#0a0003", "#0a0004"
_VARIABLES = {_OLD: "--old", _NEW: "--new", _MUTED: "--muted", _LINE: "--line"}
_SIZE_IN = (7.2, 3.1)


def score_plot(scores: ScoreShift) -> str:
    """Histograms of the scores of both versions, as shares of their texts."""
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
    """Histograms of the words a text in both versions, as shares of their texts."""
    width, before, after = length_shares(old, new)
    edges = [number * width - 0.5 for number in range(len(before) + 1)]

    def draw(axes: Axes) -> None:
        _steps(axes, edges, before, after)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(_words_label))

    return _svg("length", "histogram of the words a text before and after", draw)


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
