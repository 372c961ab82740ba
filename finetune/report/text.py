"""Write the results of a report as sentences. No winner is named when noise explains the gap.

No sentence claims more than `finetune.report.stats.Difference.outcome`, and every number comes with
its interval and its number of seeds.
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
"""Shown in an empty table cell."""

COSTS_ARE = "Means over seeds, of one pretraining and of one dense run on top of it."
NETS_ARE = (
    "FLOPs of an image are those of its evaluation; those of training leave out the backbone where "
    "its features were computed once for several runs. Hours are of training and evaluation, times "
    "the GPUs or CPU threads that worked."
)
RETRIEVAL_IS = (
    "Retrieval and zero-shot word recognition use held-out pairs of each arm's own version: "
    "they show how well pretraining worked and do not rank the captions."
)

SAME_COMPUTE = 0.1
"""Differences in text length alone change FLOPs by about 5 %."""
_SAME = 0.01  # arms may differ by one batch

_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def sentence(comparison: Comparison) -> str:
    """Return one comparison as a sentence."""
    gain, gone = comparison.difference, missing(comparison)
    both = f"{comparison.arm} and {comparison.reference}"
    if gain is None:
        return f"Nothing to compare: {both} have no seed in common{gone}."
    if gain.low is None or gain.high is None:
        told = _signed(comparison.metric, gain.mean)
        number = f"{seeds(gain.n)}{gone}{_protocol(comparison)}"
        head = f"{comparison.arm} against {comparison.reference}: {told}, {number}"
        if gain.n == 1:
            return f"{head}, so there is no interval and no verdict."
        if gain.mean == 0:
            return f"{both} gave the same numbers ({number}): they are the same runs."
        return f"{head}, the same for every seed: the seed does not affect these runs."
    if gain.outcome == "unclear":
        return _unclear(comparison, gain)
    return _won(comparison, gain)


def _won(comparison: Comparison, gain: Difference) -> str:
    metric, won = comparison.metric, gain.outcome == "better"
    verb, shown = ("beats", gain) if won else ("is worse than", turned(gain))
    less = "" if metric.higher_is_better else " (lower is better)"
    told = f"{metric.amount(shown.mean)} {interval(metric, shown)}{less}"
    tail = f"{seeds(gain.n)}{missing(comparison)}{_protocol(comparison)}"
    return f"{comparison.arm} {verb} {comparison.reference} by {told}, {tail}."


def _unclear(comparison: Comparison, gain: Difference) -> str:
    metric = comparison.metric
    tail = f"{seeds(gain.n)}{missing(comparison)}{_protocol(comparison)}"
    head = f"{_signed(metric, gain.mean)} {interval(metric, gain, signed=True)}, {tail}"
    among = ""
    if gain.excludes_zero and gain.p_adjusted is not None and not gain.is_significant:
        among = (
            f"; significant on its own, but not among {gain.num_compared} comparisons "
            f"(adjusted p = {gain.p_adjusted:.2f})"
        )
    names = f"{comparison.arm} and {comparison.reference}"
    return f"No significant difference between {names}: {head}{among}{_plan(comparison, gain)}."


def _plan(comparison: Comparison, gain: Difference) -> str:
    """Say how many seeds would detect the difference, with 80 % power."""
    assert gain.sd is not None
    metric, alpha = comparison.metric, comparison.alpha
    needed = seeds_needed(gain.mean, gain.sd, alpha=alpha, fewest=gain.fewest)
    least = smallest_detectable(gain.sd, gain.n, alpha=alpha)
    seen = f"{seeds(gain.n)} detect {metric.amount(least)} or more"
    if gain.n < gain.fewest:
        seen = f"a winner needs {gain.fewest} seeds"
    elif least >= max(map(abs, (*comparison.pairs.first, *comparison.pairs.second))):
        seen = f"{seeds(gain.n)} are too few to detect anything"
    if needed is None:
        return f"; {seen}, and {MAX_SEEDS_PLANNED:,} are too few for a difference this small"
    size = metric.number(abs(gain.mean))
    if needed <= gain.n:  # planned with 80 % power, and this is one of the other 20 %
        return f"; {seen}"
    return f"; {seen}, {needed:,} seeds would detect {size}"


def missing(comparison: Comparison) -> str:
    """Return ` (v2 has no seed 3)`, or ""."""
    parts = [
        f"{arm} has no seed {', '.join(map(str, seeds))}"
        for arm, seeds in (
            (comparison.arm, comparison.pairs.only_second),
            (comparison.reference, comparison.pairs.only_first),
        )
        if seeds
    ]
    return f" ({'; '.join(parts)})" if parts else ""


def _protocol(comparison: Comparison) -> str:
    return f" ({comparison.protocol})" if comparison.protocol else ""


def seeds(n: int) -> str:
    """Return `1 seed` or `4 seeds`."""
    return "1 seed" if n == 1 else f"{n:,} seeds"


def _signed(metric: Metric, gain: float) -> str:
    """Return a gain with its sign; with "better" where lower is better, as a plus would mislead."""
    if metric.higher_is_better:
        return f"{metric.number(gain, signed=True)} {metric.label}"
    return f"{metric.amount(abs(gain))} {'better' if gain >= 0 else 'worse'}"


def turned(gain: Difference) -> Difference:
    """Return the same gain from the other arm's side."""
    low = None if gain.high is None else -gain.high
    high = None if gain.low is None else -gain.low
    return replace(gain, mean=-gain.mean, low=low, high=high)


def interval(metric: Metric, found: Mean | Difference, *, signed: bool = False) -> str:
    """Return `[1.4, 2.8]`, or "" if there is no interval."""
    if found.low is None or found.high is None:
        return ""
    low, high = (metric.number(value, signed=signed) for value in (found.low, found.high))
    return f"[{low}, {high}]"


# -- sideways ------------------------------------------------------------------------------------

NOT_TOLD = "undetermined"
GAPS_ARE = (
    "A factor is given only between amounts that were run, and only where an arm with the smaller "
    "amount beats the baseline with the full amount while the baseline with the smaller amount is "
    "worse than with the full one, both significantly; otherwise it is undetermined. Nothing is "
    "interpolated: to show a factor of two, run a point at one half. All limits of a family hold "
    "together in 95 % of studies."
)
"""Explains the table of efficiency, on every page that has it."""


def factor(gap: Gap) -> str:
    """Return `≥ 10x`, `< 1x`, or that the factor is undetermined."""
    found = gap.efficiency
    if found.claimed is not None:
        return f"≥ {_times(found.claimed)}{TIMES}"
    return f"< 1{TIMES}" if found.less_than == 1 else NOT_TOLD


def factor_limit(gap: Gap) -> str:
    """Return the upper limit of a factor, `< 33x`, or ""."""
    limit = gap.efficiency.less_than
    return "" if limit is None or limit == 1 else f"< {_times(limit, up=True)}{TIMES}"


def _times(value: float, *, up: bool = False) -> str:
    """Format with two digits, rounded in the direction that claims less."""
    unit = 10 if value < 10 else 1  # noqa: PLR2004 - two digits
    whole = math.ceil(value * unit - 1e-9) if up else math.floor(value * unit + 1e-9)
    return f"{whole / unit:,.1f}".removesuffix(".0")


def gap_sentence(gap: Gap) -> str:
    """Say in one sentence how much less data or compute an arm needs."""
    found, arm, reference = gap.efficiency, gap.arm, gap.reference
    fewer = "less" if gap.what == "compute" else "fewer"
    whole = _amount(gap, found.amounts[-1])
    tail = f"{seeds(found.n)}."
    if found.claimed is not None:
        place = -found.num_enough
        what = f"{arm} with {_amount(gap, found.amounts[place])} of {_noun(gap)}"
        at_most = found.amounts[found.num_lacking]
        because = ""
        if at_most < found.amounts[-1]:
            because = (
                f", and {reference} does not measurably gain from more than {_amount(gap, at_most)}"
            )
        limit = "" if (told := factor_limit(gap)) == "" else f" ({told})"
        return (
            f"{what} beats {reference} with {whole} by {_gained(gap, found.ours[place])}{because}: "
            f"at least {_times(found.claimed)} times {fewer} {_word(gap)}{limit}, {tail}"
        )
    if found.less_than == 1:
        return (
            f"{arm} with {whole} of {_noun(gap)} is worse than {reference} with the same amount by "
            f"{_gained(gap, found.ours[-1], turned=True)}: it does not need {fewer}, {tail}"
        )
    limit = "" if (told := factor_limit(gap)) == "" else f" (but {told})"
    return (
        f"How many times {fewer} {_word(gap)} {arm} needs than {reference} is {NOT_TOLD}{limit}: "
        f"{_why(gap)}, {tail}"
    )


def _why(gap: Gap) -> str:
    """Say why a factor is undetermined."""
    found, arm, reference = gap.efficiency, gap.arm, gap.reference
    whole = _amount(gap, found.amounts[-1])
    if not found.is_testable:
        return "there is no interval" if found.n == 1 else "the seed does not affect these runs"
    if found.n < found.fewest:
        return f"{found.fewest} seeds are the least that tell a difference from chance"
    if not found.num_enough:
        return (
            f"with {whole} the difference is not significant ({_signed_gain(gap, found.ours[-1])})"
        )
    enough = found.amounts[-found.num_enough]
    if found.num_lacking < len(found.theirs) and enough >= found.amounts[found.num_lacking]:
        lacking = found.theirs[found.num_lacking]
        return (
            f"{reference} with {_amount(gap, found.amounts[found.num_lacking])} does not differ "
            f"significantly from {reference} with {whole} ({_signed_gain(gap, lacking)})"
        )
    place = -found.num_enough - 1
    gain, less = found.ours[place], f"{arm} with {_amount(gap, found.amounts[place])}"
    is_worse = gain.is_told(found.alpha, better=False)
    how = "is worse than" if is_worse else "is not significantly better than"
    return f"{less} {how} {reference} with {whole} ({_signed_gain(gap, gain)})"


def _word(gap: Gap) -> str:
    return "labels" if gap.what == "labels" else f"pretraining {gap.what}"


def _noun(gap: Gap) -> str:
    """Say what an amount is out of: the baseline's total count, or its compute."""
    whole = gap.efficiency.amounts[-1]
    return "the pretraining compute" if gap.what == "compute" else f"{whole:,.0f} {_word(gap)}"


def _amount(gap: Gap, amount: float) -> str:
    if gap.what == "compute":
        return f"{amount / gap.efficiency.amounts[-1] * 100:.3g} %"
    return f"{amount:,.0f}"


def _gained(gap: Gap, gain: Gain, *, turned: bool = False) -> str:
    """Return `1.4 mIoU [0.3, 2.5]`, at the level of the family."""
    low, high = gain.interval(gap.efficiency.alpha)
    assert low is not None
    assert high is not None
    mean, low, high = (-gain.mean, -high, -low) if turned else (gain.mean, low, high)
    less = "" if gap.metric.higher_is_better else " (lower is better)"
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
    """Explain the table of relative changes, with the paper's figures for the same metrics."""
    metrics = [task.metric.name for task in report.tasks if task.relative]
    printed = [_PAPERS[name] for name in dict.fromkeys(metrics) if name in _PAPERS]
    paper = ""
    if printed:
        paper = (
            f" \u201cCLIP with Quality Captions\u201d (Vasu et al. 2024) reports "
            f"{' and '.join(printed)} against MAE, with a ViT-B/16 on its own data."
        )
    return (
        f"Relative change of the score itself.{paper} Geometric means over seeds with 95 % "
        "intervals, not adjusted for multiple comparisons; where an interval contains 0 or is "
        "missing, the change is undetermined."
    )


def how_trained(found: TaskResult) -> str:
    """Say by which protocol the labels were used, with the digest of its settings."""
    return f"protocol {found.protocol} [{found.protocol_digest}]"


def measured_as(found: TaskResult, metric: Metric) -> str:
    """Return a metric's heading with the protocol that it was measured by: "mIoU, solved"."""
    return f"{metric.label}, {found.protocol}"


def matched(report: Report) -> str:
    """Say which budget pretrained arms share, by what they used rather than what was asked for."""
    by_flops = report.match == "flops"
    spent = [cost.flops if by_flops else cost.samples for cost in report.costs]
    means = [one.mean for one in spent if one is not None]
    alike = bool(means) and max(means) <= min(means) * (1 + (SAME_COMPUTE if by_flops else _SAME))
    what = "FLOPs" if by_flops else "samples"
    return f"equal {what} in all arms" if alike else f"{what} differ between arms, see the costs"


def relative(found: Relative) -> str:
    """Return `+12.1 % [+10.0, +14.3]`, or that the change is undetermined."""
    text = f"{found.change * 100:+.1f} %"
    if found.low is not None and found.high is not None:
        text += f" [{found.low * 100:+.1f}, {found.high * 100:+.1f}]"
    told = "" if found.is_told else f", {NOT_TOLD}"
    return text.replace("-", "\u2212") + told


def p_value(gain: Difference) -> str:
    """Return the adjusted p with three decimals, or `< 0.001`."""
    p = gain.p if gain.p_adjusted is None else gain.p_adjusted
    if p is None:
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"  # noqa: PLR2004 - three decimals


def effect(gain: Difference) -> str:
    """Return the effect size with one decimal."""
    return NONE if gain.effect is None else f"{gain.effect:.1f}".replace("-", "\u2212")


def flops(number: float) -> str:
    """Return FLOPs as `7.7 · 10¹³`."""
    mantissa, _, exponent = f"{number:.1e}".partition("e")
    return f"{mantissa} · 10{str(int(exponent)).translate(_RAISED)}"


def parameters(number: int) -> str:
    """Return a number of parameters as `85.8 M` or `6.63 k`, with three digits."""
    size, unit = (1e6, "M") if number >= 1e6 else (1e3, "k")  # noqa: PLR2004 - a million
    return f"{number / size:.3g} {unit}"


def device_hours(hours: float, device: str) -> str:
    """Return `0.42 GPU-hours`, with two digits."""
    return f"{float(f'{hours:.2g}'):,g} {device}-hours"


def share(fraction: float) -> str:
    """Return a fraction as `3 %`."""
    return f"{fraction * 100:g} %"


def headline(report: Report) -> list[tuple[str, str]]:
    """Return (task, sentence) of every comparison that answers the study's question."""
    return [(task, sentence(comparison)) for task, comparison in report.verdict]
