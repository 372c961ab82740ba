"""What the numbers of a report say, in sentences. No winner is named inside noise.

A sentence never claims more than `finetune.report.stats.Difference.outcome` does, and every number
in it carries its interval and the number of seeds.
"""

from __future__ import annotations

import math
from dataclasses import replace

from finetune.metrics import Metric
from finetune.report.stats import (
    MAX_SEEDS_PLANNED,
    Difference,
    Gain,
    Mean,
    Relative,
    seeds_needed,
    smallest_detectable,
)
from finetune.report.values import Comparison, Gap, Report, TaskResult

TIMES = "\u00d7"
NONE = "\u2013"
"""A cell of a table with nothing in it."""

COSTS_ARE = "Means over seeds: one pretraining, and one dense run on top of it."
RETRIEVAL_IS = (
    "Retrieval and zero-shot recognition of words are on held-out pairs of each arm's own version: "
    "they tell how pretraining went, and do not rank the captions."
)

SAME_COMPUTE = 0.1
"""Texts of other lengths alone make some 5 % of the FLOPs."""
_SAME = 0.01  # a batch more or less

_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


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

NOT_TOLD = "cannot be told"
GAPS_ARE = (
    "A factor is told only between amounts that were tried, and only where an arm with less is "
    "better than the baseline with all of it while the baseline with as little is worse, both "
    "beyond noise; else it cannot be told. Nothing is read off between the points: to tell a "
    "factor of two takes a point at a half. All limits of a family hold together in 95 % of "
    "studies."
)
"""What the table of efficiency shows, for every page that has it."""


def factor(gap: Gap) -> str:
    """`≥ 10x`, `< 1x`, or that it cannot be told."""
    found = gap.efficiency
    if found.claimed is not None:
        return f"≥ {_times(found.claimed)}{TIMES}"
    return f"< 1{TIMES}" if found.less_than == 1 else NOT_TOLD


def factor_limit(gap: Gap) -> str:
    """`< 33x`: the other limit of a factor, or nothing."""
    limit = gap.efficiency.less_than
    return "" if limit is None or limit == 1 else f"< {_times(limit, up=True)}{TIMES}"


def _times(value: float, *, up: bool = False) -> str:
    """Two digits, rounded away from what would claim more than holds."""
    unit = 10 if value < 10 else 1  # noqa: PLR2004 - two digits tell all
    whole = math.ceil(value * unit - 1e-9) if up else math.floor(value * unit + 1e-9)
    return f"{whole / unit:,.1f}".removesuffix(".0")


def gap_sentence(gap: Gap) -> str:
    """How much less one arm needs, in one sentence."""
    found, arm, reference = gap.efficiency, gap.arm, gap.reference
    fewer = "less" if gap.what == "compute" else "fewer"
    whole = _amount(gap, found.amounts[-1])
    tail = f"{_seeds(found.n)}."
    if found.claimed is not None:
        place = -found.num_enough
        what = f"{arm} with {_amount(gap, found.amounts[place])} of {_noun(gap)}"
        at_most = found.amounts[found.num_lacking]
        because = ""
        if at_most < found.amounts[-1]:
            because = (
                f", and {reference} is not told to gain from more than {_amount(gap, at_most)}"
            )
        limit = "" if (told := factor_limit(gap)) == "" else f" ({told})"
        return (
            f"{what} beats {reference} with {whole} by {_gained(gap, found.ours[place])}{because}: "
            f"at least {_times(found.claimed)} times {fewer} {_word(gap)}{limit}, {tail}"
        )
    if found.less_than == 1:
        return (
            f"{arm} with {whole} of {_noun(gap)} is worse than {reference} with as many by "
            f"{_gained(gap, found.ours[-1], turned=True)}: it does not need {fewer}, {tail}"
        )
    limit = "" if (told := factor_limit(gap)) == "" else f" (but {told})"
    return (
        f"How many times {fewer} {_word(gap)} {arm} needs than {reference} {NOT_TOLD}{limit}: "
        f"{_why(gap)}, {tail}"
    )


def _why(gap: Gap) -> str:
    """Why no factor is told."""
    found, arm, reference = gap.efficiency, gap.arm, gap.reference
    whole = _amount(gap, found.amounts[-1])
    if not found.is_testable:
        return "there is no interval" if found.n == 1 else "the seed does not reach these runs"
    if not found.num_enough:
        return f"with {whole} they are not told apart ({_signed_gain(gap, found.ours[-1])})"
    enough = found.amounts[-found.num_enough]
    if found.num_lacking < len(found.theirs) and enough >= found.amounts[found.num_lacking]:
        lacking = found.theirs[found.num_lacking]
        return (
            f"{reference} with {_amount(gap, found.amounts[found.num_lacking])} is not told from "
            f"{reference} with {whole} ({_signed_gain(gap, lacking)})"
        )
    place = -found.num_enough - 1
    gain, less = found.ours[place], f"{arm} with {_amount(gap, found.amounts[place])}"
    is_worse = gain.is_told(found.alpha, better=False)
    how = "is worse than" if is_worse else "is not told to be better than"
    return f"{less} {how} {reference} with {whole} ({_signed_gain(gap, gain)})"


def _word(gap: Gap) -> str:
    return "labels" if gap.what == "labels" else f"pretraining {gap.what}"


def _noun(gap: Gap) -> str:
    """What an amount is of: counts are out of all that the baseline had, compute is a share."""
    whole = gap.efficiency.amounts[-1]
    return "the pretraining compute" if gap.what == "compute" else f"{whole:,.0f} {_word(gap)}"


def _amount(gap: Gap, amount: float) -> str:
    if gap.what == "compute":
        return f"{amount / gap.efficiency.amounts[-1] * 100:.3g} %"
    return f"{amount:,.0f}"


def _gained(gap: Gap, gain: Gain, *, turned: bool = False) -> str:
    """`1.4 mIoU [0.3, 2.5]`, at the level of the family."""
    low, high = gain.interval(gap.efficiency.alpha)
    assert low is not None
    assert high is not None
    mean, low, high = (-gain.mean, -high, -low) if turned else (gain.mean, low, high)
    less = "" if gap.metric.higher_is_better else " (less is better)"
    return f"{gap.metric.amount(mean)} [{gap.metric.number(low)}, {gap.metric.number(high)}]{less}"


def _signed_gain(gap: Gap, gain: Gain) -> str:
    low, high = gain.interval(gap.efficiency.alpha)
    if low is None or high is None:
        return f"{_signed(gap.metric, gain.mean)} for every seed"
    low_, high_ = (gap.metric.number(limit, signed=True) for limit in (low, high))
    return f"{_signed(gap.metric, gain.mean)} [{low_}, {high_}]"


# -- shown in tables -----------------------------------------------------------------------------


_PAPERS = {"mIoU": "+12.1 % mIoU", "RMSE": "\u221211.5 % RMSE"}


def relative_is(report: Report) -> str:
    """What the table of relative changes shows, with the paper's figures for the same metrics."""
    metrics = [task.metric.name for task in report.tasks if task.relative]
    printed = [_PAPERS[name] for name in dict.fromkeys(metrics) if name in _PAPERS]
    paper = ""
    if printed:
        paper = (
            f" \u201cCLIP with Quality Captions\u201d (Vasu et al. 2024) prints "
            f"{' and '.join(printed)} against MAE, for a ViT-B/16 and data of its own."
        )
    return (
        f"Relative change of the score itself.{paper} Means of the logarithms over seeds, with "
        "95 % intervals, each of its own; where one holds 0, or there is none, no change can be "
        "told."
    )


def how_trained(found: TaskResult) -> str:
    """What was trained on the labels."""
    if found.mode != "probe":
        return "everything finetuned"
    if found.kind == "detection":
        return "heads on frozen features"
    return "a linear probe on frozen features"


def matched(report: Report) -> str:
    """What all pretrained arms have alike, by their costs and not by what was asked for."""
    by_flops = report.match == "flops"
    spent = [cost.flops if by_flops else cost.samples for cost in report.costs]
    means = [one.mean for one in spent if one is not None]
    alike = bool(means) and max(means) <= min(means) * (1 + (SAME_COMPUTE if by_flops else _SAME))
    what = "FLOPs" if by_flops else "samples"
    return f"equal {what} in all arms" if alike else f"{what} differ between arms, see the costs"


def relative(found: Relative) -> str:
    """`+12.1 % [+10.0, +14.3]`; says so where no change can be told."""
    text = f"{found.change * 100:+.1f} %"
    if found.low is not None and found.high is not None:
        text += f" [{found.low * 100:+.1f}, {found.high * 100:+.1f}]"
    told = "" if found.is_told else f", {NOT_TOLD}"
    return text.replace("-", "\u2212") + told


def p_value(gain: Difference) -> str:
    """The adjusted p, as three decimals or less than that."""
    p = gain.p if gain.p_adjusted is None else gain.p_adjusted
    if p is None:
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"  # noqa: PLR2004 - what three decimals can tell


def effect(gain: Difference) -> str:
    """The effect size, to one decimal."""
    return NONE if gain.effect is None else f"{gain.effect:.1f}".replace("-", "\u2212")


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
