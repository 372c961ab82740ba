"""The charts of the page that compares two versions.

Versions have the colours of `curator diff --html`, actions those of the other pages.

Altair through Streamlit, which brings Vega along: nothing is loaded from elsewhere. Labels are
drawn as text, so a source named by a stranger does nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import altair as alt
import polars as pl
import streamlit as st

from curator.compare.stats import LengthStats, length_shares
from curator.compare.text import histograms
from curator.compare.values import Diff, ScoreShift
from curator.ratings.stats import WinRate
from curator.store.versions import ACTIONS

_MAX_SCORE_BARS = 72
_HEIGHT_PX = 260
_ROW_PX = 42
_LEGEND_AND_AXIS_PX = 115


Chart = alt.Chart | alt.LayerChart | alt.FacetChart


class Colors(NamedTuple):
    """Those of the older and the newer version, of what stands back, and of the actions."""

    old: str
    new: str
    muted: str
    actions: tuple[str, ...]


_LIGHT = Colors("#94846c", "#2b59c3", "#686c74", ("#3b6fd4", "#2f9e6e", "#d9822b", "#c0392b"))
_DARK = Colors("#b8a78b", "#82a6ff", "#9a9ea6", ("#7fa5f5", "#5cc799", "#eba35c", "#f07a6c"))


def colors() -> Colors:
    """For the light or dark theme that the reader has on."""
    return _DARK if st.context.theme.type == "dark" else _LIGHT


def scores(shift: ScoreShift, names: tuple[str, str]) -> Chart:
    """The score distributions of both versions over each other; dashed lines are the means."""
    low, step, old, new = histograms(shift, _MAX_SCORE_BARS)
    bars = _bars(low, step, (old, new), names)
    means = {
        name: found.mean
        for name, found in zip(names, (shift.old, shift.new), strict=True)
        if found.mean is not None
    }
    return _overlay(bars, names, "score", means=means)


def lengths(old: LengthStats, new: LengthStats, names: tuple[str, str]) -> Chart:
    """The words a text in both versions over each other."""
    width, before, after = length_shares(old, new)
    bars = _bars(-0.5, width, (before, after), names)
    return _overlay(bars, names, "words a text", means={})


def _bars(
    low: float, step: float, shares: tuple[Sequence[float], Sequence[float]], names: tuple[str, str]
) -> list[dict[str, object]]:
    return [
        {
            "version": name,
            "from": round(low + step * place, 6),
            "to": round(low + step * (place + 1), 6),
            "share": share,
        }
        for name, bins in zip(names, shares, strict=True)
        for place, share in enumerate(bins)
    ]


def _overlay(
    bars: list[dict[str, object]],
    names: tuple[str, str],
    title: str,
    *,
    means: Mapping[str, float],
) -> Chart:
    tones = colors()
    color = alt.Color(
        "version:N",
        scale=alt.Scale(domain=list(names), range=[tones.old, tones.new]),
        legend=alt.Legend(title=None, orient="top", symbolOpacity=1),
    )
    base = alt.Chart(pl.DataFrame(bars)).encode(color=color)
    x = alt.X("from:Q", title=title, scale=alt.Scale(zero=False, nice=False))
    y = alt.Y("share:Q", title="share of texts", stack=None, axis=alt.Axis(format="%", tickCount=4))
    filled = base.mark_bar(opacity=0.3, binSpacing=0).encode(
        x=x.bin("binned"),
        x2="to:Q",
        y=y,
        tooltip=[
            alt.Tooltip("version:N"),
            alt.Tooltip("from:Q", format=".3~f"),
            alt.Tooltip("to:Q", format=".3~f"),
            alt.Tooltip("share:Q", format=".1%"),
        ],
    )
    outline = base.mark_line(interpolate="step-after", strokeWidth=1.6).encode(x=x, y=y)
    layers: list[alt.Chart] = [filled, outline]
    if means:
        values = [{"version": name, "mean": mean} for name, mean in means.items()]
        layers.append(
            alt.Chart(pl.DataFrame(values))
            .mark_rule(strokeDash=[5, 4], strokeWidth=1.4)
            .encode(
                x="mean:Q",
                color=color,
                tooltip=[alt.Tooltip("version:N"), alt.Tooltip("mean:Q", format=".3f")],
            )
        )
    return alt.layer(*layers).properties(height=_HEIGHT_PX)


def flows(diff: Diff) -> Chart:
    """What became of the samples of each action: one bar an action of the older version."""
    rows = [
        {
            "before": f"{before} ({sum(became.values()):,})",
            "after": after,
            "samples": count,
            "order": ACTIONS.index(after),
        }
        for before, became in diff.transitions.items()
        for after, count in became.items()
    ]
    order = [str(row["before"]) for row in rows]
    chart: Chart = (
        alt.Chart(pl.DataFrame(rows))
        .mark_bar(height={"band": 0.6})
        .encode(
            x=alt.X("samples:Q", stack="normalize", title=None, axis=alt.Axis(format="%")),
            y=alt.Y("before:N", title=None, sort=list(dict.fromkeys(order))),
            color=alt.Color(
                "after:N",
                title=f"in {diff.new.name}",
                scale=alt.Scale(domain=list(ACTIONS), range=list(colors().actions)),
                legend=alt.Legend(orient="top"),
            ),
            order="order:Q",
            tooltip=[
                alt.Tooltip("before:N", title=diff.old.name),
                alt.Tooltip("after:N", title=diff.new.name),
                alt.Tooltip("samples:Q", format=","),
            ],
        )
        .properties(height=_LEGEND_AND_AXIS_PX + _ROW_PX * max(len(set(order)), 1))
    )
    return chart


def win_rate(found: WinRate, names: tuple[str, str]) -> Chart:
    """The win rate of the newer version with its 95 % interval, on a line from 0 to 1."""
    tones = colors()
    values = [{"rate": found.rate, "low": found.low, "high": found.high}]
    axis = alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1])
    x = alt.X(
        "low:Q",
        scale=alt.Scale(domain=[0, 1]),
        axis=axis,
        title=f"{names[0]} is better  ←    win rate of {names[1]}    →  {names[1]} is better",
    )
    base = alt.Chart(pl.DataFrame(values))
    middle = alt.Chart(pl.DataFrame([{"even": 0.5}])).mark_rule(
        color=tones.muted, strokeDash=[4, 4]
    )
    return alt.layer(
        middle.encode(x=alt.X("even:Q")),
        base.mark_rule(color=tones.new, strokeWidth=3, strokeCap="round").encode(x=x, x2="high:Q"),
        base.mark_point(color=tones.new, filled=True, size=140, opacity=1).encode(
            x="rate:Q",
            tooltip=[
                alt.Tooltip("rate:Q", format=".1%"),
                alt.Tooltip("low:Q", format=".1%"),
                alt.Tooltip("high:Q", format=".1%"),
            ],
        ),
    ).properties(height=110)
