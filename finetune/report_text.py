"""What the numbers of a report say, in sentences. No winner is named inside noise.

A sentence never claims more than `finetune.stats.Difference.outcome` does, and every number in it
carries its interval and the number of seeds.
"""

from __future__ import annotations

from dataclasses import replace

from finetune.efficiency import Multiplier
from finetune.metrics import Metric
from finetune.report_values import Comparison, Gap, Report
from finetune.stats import (
    MAX_SEEDS_PLANNED,
    Difference,
    Mean,
    Relative,
    seeds_needed,
    smallest_detectable,
)

TIMES = "\u00d7"
NONE = "\u2013"
"""A cell of a table with nothing in it."""

COSTS_ARE = "Means over seeds: one pretraining, and one dense run on top of it."
RETRIEVAL_IS = (
    "Retrieval and zero-shot recognition of words are on held-out pairs of each arm's own version: "
    "they tell how pretraining went, and do not rank the captions."
)

_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")

_MINUTE, _HOUR = 60.0, 3600.0


def sentence(comparison: Comparison) -> str:
    """One comparison in one sentence."""
    gain, missing = comparison.difference, _missing(comparison)
    both = f"{comparison.arm} and {comparison.reference}"
    if gain is None:
        return f"Nothing to compare: {both} have no seed in common{missing}."
    if gain.low is None or gain.high is None:
        told, seeds = _signed(comparison.metric, gain.mean), f"{_seeds(gain.n)}{missing}"
        head = f"{comparison.arm} against {comparison.reference}: {told}, {seeds}"
        if gain.n == 1:
            return f"{head}, so there is no interval and no verdict."
        if gain.mean == 0:
            return f"{both} gave the same numbers ({seeds}): they are the same runs."
        return f"{head}, the same for each: the seed does not reach these runs, nothing is told."
    if gain.outcome == "unclear":
        return _unclear(comparison, gain)
    return _won(comparison, gain)


def _won(comparison: Comparison, gain: Difference) -> str:
    metric, won = comparison.metric, gain.outcome == "better"
    verb, shown = ("beats", gain) if won else ("is worse than", _turned(gain))
    less = "" if metric.higher_is_better else " (less is better)"
    told = f"{metric.amount(shown.mean)} {interval(metric, shown)}{less}"
    tail = f"{_seeds(gain.n)}{_missing(comparison)}"
    return f"{comparison.arm} {verb} {comparison.reference} by {told}, {tail}."


def _unclear(comparison: Comparison, gain: Difference) -> str:
    metric, tail = comparison.metric, f"{_seeds(gain.n)}{_missing(comparison)}"
    head = f"{_signed(metric, gain.mean)} {interval(metric, gain, signed=True)}, {tail}"
    among = ""
    if gain.excludes_zero and gain.p_adjusted is not None:
        among = (
            f"; alone it would be one, among {gain.num_compared} comparisons it is not "
            f"(adjusted p = {gain.p_adjusted:.2f})"
        )
    names = f"{comparison.arm} and {comparison.reference}"
    return f"No difference can be told between {names}: {head}{among}{_plan(comparison, gain)}."


def _plan(comparison: Comparison, gain: Difference) -> str:
    """What more seeds would show."""
    assert gain.sd is not None
    metric, alpha = comparison.metric, comparison.alpha
    needed = seeds_needed(gain.mean, gain.sd, alpha=alpha)
    least = smallest_detectable(gain.sd, gain.n, alpha=alpha)
    seen = f"{_seeds(gain.n)} show {metric.amount(least)} or more"
    if least >= max(map(abs, (*comparison.pairs.first, *comparison.pairs.second))):
        seen = f"{_seeds(gain.n)} are too few to show anything"
    if needed is None:
        return f"; {seen}, for so small a difference {MAX_SEEDS_PLANNED:,} are not enough"
    size = metric.number(abs(gain.mean))
    if needed <= gain.n:  # luck of the draw: planned with 80 % power, and this was the other 20 %
        return f"; {seen}"
    return f"; {seen}, {needed:,} seeds would show {size}"


def _missing(comparison: Comparison) -> str:
    parts = [
        f"{arm} has no seed {', '.join(map(str, seeds))}"
        for arm, seeds in (
            (comparison.arm, comparison.pairs.only_second),
            (comparison.reference, comparison.pairs.only_first),
        )
        if seeds
    ]
    return f" ({'; '.join(parts)})" if parts else ""


def _seeds(n: int) -> str:
    return "1 seed" if n == 1 else f"{n:,} seeds"


def _signed(metric: Metric, gain: float) -> str:
    """A gain with its sign; "better" where less is better, as a plus would mislead."""
    if metric.higher_is_better:
        return f"{metric.number(gain, signed=True)} {metric.label}"
    return f"{metric.amount(abs(gain))} {'better' if gain >= 0 else 'worse'}"


def _turned(gain: Difference) -> Difference:
    """The same gain seen from the other arm."""
    assert gain.low is not None
    assert gain.high is not None
    return replace(gain, mean=-gain.mean, low=-gain.high, high=-gain.low)


def interval(metric: Metric, found: Mean | Difference, *, signed: bool = False) -> str:
    """`[1.4, 2.8]`, or nothing where there is none."""
    if found.low is None or found.high is None:
        return ""
    low, high = (metric.number(value, signed=signed) for value in (found.low, found.high))
    return f"[{low}, {high}]"


# -- sideways ------------------------------------------------------------------------------------


def multiplier(found: Multiplier) -> str:
    """`2.4x`, `≥ 33x` or `< 1x`."""
    mark = {"=": "", ">=": "≥ ", "<": "< "}[found.bound]
    return f"{mark}{_times(found.value)}{TIMES}"


def _times(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}"  # noqa: PLR2004 - two digits tell all


def multiplier_interval(gap: Gap) -> str:
    """`[1.9x, ≥ 4x]`, or nothing below three seeds."""
    low, high = gap.efficiency.low, gap.efficiency.high
    return f"[{multiplier(low)}, {multiplier(high)}]" if low and high else ""


def gap_sentence(gap: Gap) -> str:
    """How much less one arm needs, in one sentence."""
    found, what = gap.efficiency, "labels" if gap.what == "labels" else "pretraining samples"
    target = gap.metric.amount(found.target)
    spread = f" {told}" if (told := multiplier_interval(gap)) else ""
    tail = f"{spread}, {_seeds(found.n)}"
    amount = found.multiplier
    all_of_them = f"{gap.reference} reaches with all of its {what}"
    if amount.bound == "<":
        return f"{gap.arm} does not reach the {target} that {all_of_them}: < 1{TIMES}{tail}."
    if amount.bound == ">=":
        return (
            f"{gap.arm} is at the {target} that {all_of_them} with the fewest that were tried: "
            f"at least {_times(amount.value)} times fewer{tail}."
        )
    return (
        f"{gap.arm} needs {_times(amount.value)} times fewer {what} for the {target} that "
        f"{all_of_them}{tail}."
    )


# -- shown in tables -----------------------------------------------------------------------------


def relative(found: Relative) -> str:
    """`+12.1 % [+10.0, +14.3]`."""
    text = f"{found.change * 100:+.1f} %"
    if found.low is not None and found.high is not None:
        text += f" [{found.low * 100:+.1f}, {found.high * 100:+.1f}]"
    return text.replace("-", "\u2212")


def p_value(gain: Difference) -> str:
    """The adjusted p, as three decimals or less than that."""
    p = gain.p if gain.p_adjusted is None else gain.p_adjusted
    if p is None:
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"  # noqa: PLR2004 - what three decimals can tell


def effect(gain: Difference) -> str:
    """The effect size, to one decimal."""
    return NONE if gain.effect is None else f"{gain.effect:.1f}".replace("-", "\u2212")


def duration(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / _MINUTE:.0f} min" if seconds < 2 * _HOUR else f"{seconds / _HOUR:.1f} h"


def flops(number: float) -> str:
    """`7.7 · 10¹³`."""
    mantissa, _, exponent = f"{number:.1e}".partition("e")
    return f"{mantissa} · 10{str(int(exponent)).translate(_RAISED)}"


def share(fraction: float) -> str:
    """`3 %`."""
    return f"{fraction * 100:g} %"


def headline(report: Report) -> list[tuple[str, str]]:
    """(task, sentence) of every comparison that answers the question."""
    return [(task, sentence(comparison)) for task, comparison in report.verdict]
