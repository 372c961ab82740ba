"""Small plots as HTML: bars in rows, a histogram, what became of samples.

Plain boxes with sizes: no script, nothing to load, the colours of the page in either light.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from curator.store.versions import ACTIONS
from ui.shared.parts import escaped


def outcome_html(counts: Mapping[str, int], *, legend: bool = False) -> str:
    """One bar cut into what became of the samples; `legend` names the parts with their counts."""
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
    """What the colours of an outcome mean."""
    names = "".join(
        f'<span><i style="background:var(--cc-{action})"></i>{action}</span>' for action in ACTIONS
    )
    return f'<div class="cc-legend">{names}</div>'


def rows_html(rows: Sequence[tuple[str, float, str]], *, color: str = "captioned") -> str:
    """Bars one below the other: (name, share from 0 to 1, what is written behind it)."""
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
    """Bars side by side with labels below, from left to right.

    Args:
        counts: height of each bar.
        labels: spread evenly below the bars.
        inside: bars from the first up to before the second are in colour, the others grey.
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
