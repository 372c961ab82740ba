"""Draw matplotlib figures as inline SVG that follows the page's light or dark colours.

matplotlib has no CSS variables: it draws in stand-in colours, which are then replaced by variables.
The same numbers give the same bytes.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Mapping
from typing import Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure


def draw_svg(
    draw: Callable[[Figure], None],
    *,
    salt: str,
    label: str,
    size_in: tuple[float, float],
    variables: Mapping[str, str],
) -> str:
    """Return the figure that `draw` fills as an SVG element without prolog, size, colours and font.

    `salt` makes the ids inside differ from those of other figures on the page; `variables` maps
    stand-in colours (`#0a0001`) to CSS variables (`--old`).
    """
    # No math mode in texts: a name from a file may contain dollar signs.
    with mpl.rc_context(
        {"svg.hashsalt": salt, "svg.fonttype": "none", "font.size": 9, "text.parse_math": False}
    ):
        figure = Figure(figsize=size_in, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return _inline(out.getvalue(), label, variables)


def quiet(axes: Axes, *, muted: str, line: str, grid: Literal["x", "y", "both"] = "y") -> None:
    """Style axes discreetly: a thin grid, one line at the bottom, small grey numbers."""
    axes.tick_params(length=0, colors=muted, pad=5)
    axes.grid(axis=grid, color=line, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(line)


def _inline(svg: str, label: str, variables: Mapping[str, str]) -> str:
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", body, count=1)
    body = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", body, count=1)
    body = re.sub(r' (?:xmlns(?::xlink)?)="[^"]*"', "", body)
    body = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", body)
    for stand_in, variable in variables.items():
        body = body.replace(stand_in, f"var({variable})")
    # The SVG goes into the page unescaped, and the label may contain a name from a file.
    return body.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1).strip()
