"""Plots: bars, histograms and outcomes as HTML, and the plots of reports as SVG.

The HTML is plain boxes with sizes: no script, nothing to load, in the page's colours for light and
dark. The SVGs (`curator.compare.plots`, `finetune.report.plots`) are those of the HTML reports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st

from curator.store.versions import ACTIONS
from ui.shared.parts import escaped

_ARMS = {
    "light": "#94846c #2b59c3 #17806a #b8602a #7d4fa3 #6b6f78 #b03a63 #6f7d1f",
    "dark": "#b8a78b #82a6ff #4fc3a5 #eb9a62 #c095e8 #a2a7b0 #ee86a6 #bcca66",
}
"""Colours of a report by slot; the first two are also the older and the newer version."""

_GROUND = {
    "light": "--ink:#1c2026;--muted:#5f646d;--line:#dfe2e7;--card:#ffffff",
    "dark": "--ink:#e6e8ec;--muted:#9aa0aa;--line:#333944;--card:#14171c",
}
_SANS = 'system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif'


def outcome_html(counts: Mapping[str, int], *, legend: bool = False) -> str:
    """Return one bar divided by outcome; `legend` names the parts with their counts."""
    total = max(sum(counts.get(action, 0) for action in ACTIONS), 1)
    parts = "".join(
        f'<span style="width:{100 * counts[action] / total:.3f}%;background:var(--cc-{action})" '
        f'title="{counts[action]:,} {action}"></span>'
        for action in ACTIONS
        if counts.get(action)
    )
    bar = f'<div class="cc-bar">{parts}</div>'
    if not legend:
        return bar
    names = "".join(
        f'<span><i style="background:var(--cc-{action})"></i>{counts.get(action, 0):,} {action}'
        "</span>"
        for action in ACTIONS
        if counts.get(action)
    )
    return f'{bar}<div class="cc-legend">{names}</div>'


def actions_html() -> str:
    """Return the colour legend of outcomes."""
    names = "".join(
        f'<span><i style="background:var(--cc-{action})"></i>{action}</span>' for action in ACTIONS
    )
    return f'<div class="cc-legend">{names}</div>'


def rows_html(rows: Sequence[tuple[str, float, str]], *, color: str = "captioned") -> str:
    """Return bars one below the other: (name, fraction from 0 to 1, text behind the bar)."""
    cells = "".join(
        f'<span class="cc-label">{escaped(name)}</span>'
        f'<div class="cc-bar"><span style="width:{100 * min(max(share, 0.0), 1.0):.2f}%;'
        f'background:var(--cc-{color})"></span></div>'
        f'<span class="cc-number">{escaped(behind)}</span>'
        for name, share, behind in rows
    )
    return f'<div class="cc-rows">{cells}</div>'


def histogram_html(
    counts: Sequence[int], *, labels: Sequence[str], inside: tuple[int, int] | None = None
) -> str:
    """Return vertical bars with labels below.

    Args:
        counts: height of each bar.
        labels: spaced evenly below the bars.
        inside: bars from the first index up to before the second are coloured, the others grey.
    """
    highest = max([1, *counts])
    first, last = inside or (0, len(counts))
    kinds = ["" if first <= number < last else "cc-out" for number in range(len(counts))]
    bars = "".join(
        f'<i class="{kind}" style="height:{max(100 * count / highest, 3 * (count > 0)):.1f}%"></i>'
        for kind, count in zip(kinds, counts, strict=True)
    )
    axis = "".join(f"<span>{escaped(label)}</span>" for label in labels)
    return f'<div class="cc-hist">{bars}</div><div class="cc-axis">{axis}</div>'


def flows_html(transitions: Mapping[str, Mapping[str, int]]) -> str:
    """Return one bar per action of the older version, divided by the outcome in the newer."""
    rows = "".join(
        f'<span class="cc-label">{before}</span>{outcome_html(became)}'
        f'<span class="cc-number">{sum(became.values()):,}</span>'
        for before, became in transitions.items()
        if became
    )
    return f'<div class="cc-rows">{rows}</div>{actions_html()}'


def svg(drawn: str, about: str, *, width_px: int) -> None:
    """Draw a report's SVG, at most `width_px` wide.

    It is embedded as an image, which cannot see the page's CSS, so it includes its colours.
    """
    kind = st.context.theme.type or "light"
    slots = _ARMS[kind].split()
    rules = "".join(f"--arm{slot}:{colour};" for slot, colour in enumerate(slots)) + _GROUND[kind]
    rules += f";--old:{slots[0]};--new:{slots[1]};--sans:{_SANS}"
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    whole = drawn.replace("<svg", f"<svg {spaces}", 1)
    start = whole.index(">") + 1
    style = f"<style>:root{{{rules}}}</style>"
    st.image(whole[:start] + style + whole[start:], width=width_px, alt=about)
