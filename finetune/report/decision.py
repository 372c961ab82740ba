"""Say in one sentence what to do after a study.

Candidates are the arms of `verdict` (all but the baseline by default). A candidate is better or
worse in a task where `Difference.outcome` says so, after the correction over all tasks and
candidates:

    use       it is better in at least one task and worse in none
    by task   it is better in one task and worse in another
    keep      every candidate is worse in a task, and none is better in any
    none      anything else: no difference was seen, or the study is not finished

Several candidates that are better than the baseline are compared with each other in every task,
paired by seed; these comparisons are a family of their own (Holm, 5 %). Only one that is better
than all others somewhere, and worse than none anywhere, is named alone. Otherwise those are named
that no other one is ahead of; the rest is told to be behind.

The least visible difference of a task is the one that a paired t test over its n seeds finds with
80 % power, two-sided, at 5 % divided by the comparisons of the family: sd * delta(n), where delta
solves P(F(1, n - 1; n delta^2) > t^2) = 0.8 with the t quantile of that level, and sd is the
standard deviation of the differences between paired seeds, pooled over the candidates. delta does
not depend on the task, so one number of seeds halves the least difference of all; its hours are
those of one measured seed times the seeds to add.

Looking again after adding seeds is a second test: docs/results/2026-11-30-aa.md has its price.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations

from curator.core.clock import duration
from finetune.metrics import Metric
from finetune.report import text
from finetune.report.stats import (
    ALPHA,
    difference,
    fewest_pairs,
    holm,
    pair,
    pooled_sd,
    seeds_to_halve,
    smallest_detectable,
)
from finetune.report.values import Comparison, Decision, Progress, TaskResult

Told = Sequence[tuple[str, Comparison]]
"""(task, comparison) pairs; the comparisons have a difference."""


def decide(
    tasks: Sequence[TaskResult],
    *,
    asked: Mapping[str, Sequence[str]],
    baseline: str,
    candidates: Sequence[str],
    progress: Progress,
) -> Decision:
    """Return the decision over the tasks of these names.

    `tasks` are those with a finished run, after the correction for multiple comparisons. `asked`
    has every task of the study with the arms that it is run on.
    """
    if not candidates:
        return _none(f"Nothing to decide: {baseline} is the only arm.")
    if progress.num_waiting:
        return _none(f"Do not decide yet: {_waiting(progress)}.")
    found = {
        arm: [
            (task.name, one)
            for task in tasks
            for one in task.comparisons
            if one.arm == arm and one.difference is not None
        ]
        for arm in candidates
    }
    kinds = {arm: _kind(told) for arm, told in found.items()}
    gone = _gone(found, asked, baseline)
    several = len(asked) > 1
    if better := [arm for arm in candidates if kinds[arm] == "better"]:
        return _use(tasks, better, found, kinds, gone, several=several)
    if mixed := [arm for arm in candidates if kinds[arm] == "mixed"]:
        each = [
            f"{arm} is better, {_gains(_only(found[arm], 'better'), several=several)}, and worse, "
            f"{_gains(_only(found[arm], 'worse'), several=several)}"
            for arm in mixed
        ]
        tail = f"{_seeds(found, mixed)}{_others(kinds, mixed)}{gone}"
        said = f"{_join(each)} (against {baseline}, {tail})"
        return Decision(choice="by task", arms=tuple(mixed), sentence=f"Choose by task: {said}.")
    if set(kinds.values()) == {"worse"}:
        each = [
            f"{arm} is worse, {_gains(_only(told, 'worse'), several=several)}"
            for arm, told in found.items()
        ]
        said = f"Keep {baseline}: {_join(each)}, {_seeds(found, candidates)}{gone}."
        return Decision(choice="keep", arms=(baseline,), sentence=said)
    unclear = [arm for arm in candidates if kinds[arm] == "unclear"]
    told = [one for arm in unclear for one in found[arm]]
    why = _why_unclear(told, _join(unclear, "or"), baseline, progress, several=several)
    gone = gone if told else ""  # said in `why`
    return _none(f"Do not decide on this: {why}{_others(kinds, unclear)}{gone}.")


def _none(sentence: str) -> Decision:
    return Decision(choice="none", arms=(), sentence=sentence)


def _waiting(progress: Progress) -> str:
    finished = progress.num_needed - progress.num_waiting
    if not finished:
        return "no dense run is finished"
    left = progress.seconds_left
    about = "" if left is None else f", about {duration(left)} of runs are left"
    return f"{finished:,} of the {progress.num_needed:,} dense runs it needs are finished{about}"


def _kind(told: Told) -> str:
    """Return better, worse, mixed or unclear, over all tasks."""
    outcomes = {one.outcome for _, one in told} - {"unclear"}
    return "mixed" if len(outcomes) > 1 else next(iter(outcomes), "unclear")


def _only(told: Told, outcome: str) -> Told:
    return [(task, one) for task, one in told if one.outcome == outcome]


# -- which one ------------------------------------------------------------------------------------


def _use(
    tasks: Sequence[TaskResult],
    better: Sequence[str],
    found: Mapping[str, Told],
    kinds: Mapping[str, str],
    gone: str,
    *,
    several: bool,
) -> Decision:
    between = _between(tasks, better)
    tail = f"{_seeds(found, better)}{_others(kinds, better)}{gone}"

    def gains(arm: str) -> str:
        return _gains(_only(found[arm], "better"), several=several)

    reference = found[better[0]][0][1].reference
    for arm in better:
        others = [other for other in better if other != arm]
        if all(_kind(between[arm, other]) == "better" for other in others):
            over = [f"{gains(arm)} over {reference}"]
            for other in others:
                won = _only(between[arm, other], "better")
                over.append(f"{_gains(won, several=several)} over {other}")
            unseen = _unseen(_only(found[arm], "unclear"))
            return Decision(
                choice="use", arms=(arm,), sentence=f"Use {arm}: {_join(over)}{unseen}, {tail}."
            )
    first = _first(better, between)
    wins = [
        f"{arm} beats {other}, {_gains(won, several=several)}"
        for (arm, other), told in between.items()
        if arm in first and other in first and (won := _only(told, "better"))
    ]
    how = f"of them {_join(wins)}" if wins else "which of them is better cannot be told"
    if behind := [arm for arm in better if arm not in first]:
        how += f"; {_join(behind)} {'is' if len(behind) == 1 else 'are'} better too, but behind"
    each = _join([f"{arm} {gains(arm)}" for arm in first])
    return Decision(
        choice="use",
        arms=tuple(first),
        sentence=f"Use {_join(first, 'or')}: over {reference}, {each}; {how}, {tail}.",
    )


def _first(arms: Sequence[str], between: Mapping[tuple[str, str], Told]) -> Sequence[str]:
    """Return the arms that no other one is ahead of: better somewhere and worse nowhere.

    All of them if that leaves fewer than two: one that is not ahead of each other one is not named
    alone, and three may be ahead of each other in a circle.
    """
    ahead = {arm for (arm, other), told in between.items() if _kind(told) == "better"}
    first = [
        arm
        for arm in arms
        if not any(_kind(between[other, arm]) == "better" for other in ahead - {arm})
    ]
    return first if len(first) > 1 else arms


def _between(tasks: Sequence[TaskResult], arms: Sequence[str]) -> dict[tuple[str, str], Told]:
    """Return the comparisons of arms with each other; every pair of arms is there both ways."""
    every = [
        (task.name, Comparison(
            arm=arm, reference=other, metric=task.metric, pairs=pairs, alpha=ALPHA,
            difference=difference(pairs, higher_is_better=task.metric.higher_is_better),
        ))
        for task in tasks
        for arm, other in combinations(arms, 2)
        if (pairs := pair(task.values.get(arm, {}), task.values.get(other, {}))).seeds
    ]  # fmt: skip
    corrected = holm([one.difference for _, one in every if one.difference is not None])
    fewest = fewest_pairs(max(len(arms) - 1, 1))
    found: dict[tuple[str, str], list[tuple[str, Comparison]]]
    found = {both: [] for both in permutations(arms, 2)}
    for (task, one), gain in zip(every, corrected, strict=True):
        there = replace(gain, fewest=fewest)
        found[one.arm, one.reference].append((task, replace(one, difference=there)))
        back = replace(one, arm=one.reference, reference=one.arm, difference=text.turned(there))
        found[back.arm, back.reference].append((task, back))
    return {both: list(told) for both, told in found.items()}


# -- none of them ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Visible:
    """The least visible difference of a task; see the module. `largest` is its largest score."""

    task: str
    metric: Metric
    n: int
    alpha: float
    least: float
    largest: float


def _visible(told: Told) -> list[_Visible]:
    """Return the least visible difference of every task in which a spread was measured."""
    found = []
    for task in dict.fromkeys(task for task, _ in told):
        here = [
            (one, gain)
            for name, one in told
            if name == task and (gain := one.difference) is not None and gain.p is not None
        ]
        if here:
            (first, _), n = here[0], min(gain.n for _, gain in here)
            sd, _ = pooled_sd([gain for _, gain in here])
            found.append(
                _Visible(
                    task=task,
                    metric=first.metric,
                    n=n,
                    alpha=first.alpha,
                    least=smallest_detectable(sd, n, alpha=first.alpha),
                    largest=max(
                        abs(score)
                        for one, _ in here
                        for score in (*one.pairs.first, *one.pairs.second)
                    ),
                )
            )
    return found


def _why_unclear(told: Told, who: str, baseline: str, progress: Progress, *, several: bool) -> str:
    gains = [one.difference for _, one in told if one.difference is not None]
    if not gains:
        return (
            f"no seed is finished for both {baseline} and {who}; the same study command runs what "
            "failed again"
        )
    most, fewest = max(gain.n for gain in gains), max(gain.fewest for gain in gains)
    if most < fewest:
        more = _more(fewest - most, progress)
        return (
            f"{text.seeds(most)} cannot tell a difference from chance; {fewest} can at the least, "
            f"so {more} would be needed"
        )
    seen = _visible(told)
    if not seen:
        return "the seed does not affect these runs, so they say nothing about others"
    n = min(one.n for one in seen)
    possible = [one for one in seen if one.least < one.largest]
    if n < fewest or not possible:
        return f"{text.seeds(n)} are too few to see any difference"
    under = _join([_amount(one, one.least, several=several) for one in possible])
    first = possible[0]
    needed = seeds_to_halve(n, alpha=first.alpha, fewest=fewest)
    if needed is None:
        return f"differences under {under} cannot be seen with {text.seeds(n)}"
    half = "half of that"
    if len(possible) == 1:
        half = first.metric.amount(first.least / 2)
    return (
        f"differences under {under} cannot be seen with {text.seeds(n)}; "
        f"{_more(needed - n, progress)} would show {half}"
    )


def _more(seeds: int, progress: Progress) -> str:
    """Return `4 more seeds (5 h of runs)`."""
    more = f"{seeds:,} more {'seed' if seeds == 1 else 'seeds'}"
    per_seed = progress.seconds_per_seed
    return more if per_seed is None else f"{more} ({duration(seeds * per_seed)} of runs)"


def _amount(one: _Visible, least: float, *, several: bool) -> str:
    return f"{one.metric.amount(least)}{f' in {one.task}' if several else ''}"


# -- parts of sentences ---------------------------------------------------------------------------


def _join(parts: Iterable[str], word: str = "and") -> str:
    """Return `a`, `a and b` or `a, b and c`."""
    *most, last = parts
    return f"{', '.join(most)} {word} {last}" if most else last


def _gains(told: Told, *, several: bool) -> str:
    """Return `+9.6 mIoU [6.3, 13.0] and 0.190 m RMSE [0.080, 0.310] lower`.

    Each with its task if the study has several.
    """
    parts = []
    for task, one in told:
        gain, metric = one.difference, one.metric
        assert gain is not None, "a comparison without a difference has no gain"
        if metric.higher_is_better:
            amount = f"{metric.number(gain.mean, signed=True)} {metric.label}"
            said = f"{amount} {text.interval(metric, gain)}"
        else:
            shown, way = (gain, "lower") if gain.mean > 0 else (text.turned(gain), "higher")
            said = f"{metric.amount(shown.mean)} {text.interval(metric, shown)} {way}"
        parts.append(f"{said} in {task}" if several else said)
    return _join(parts)


def _unseen(told: Told) -> str:
    """Name the tasks in which no difference was seen, and how large it would have to be."""
    least = {one.task: one for one in _visible(told)}
    parts = []
    for task, _ in told:
        one = least.get(task)
        bound = "" if one is None else f" (under {one.metric.amount(one.least)} none could be)"
        parts.append(f"{task}{bound}")
    return f"; no difference is seen in {_join(parts)}" if parts else ""


def _seeds(found: Mapping[str, Told], arms: Sequence[str]) -> str:
    """Return `4 seeds`, or `3 to 4 seeds (v2 has no seed 3)`."""
    told = [one for arm in arms for _, one in found[arm]]
    counts = {one.difference.n for one in told if one.difference is not None}
    number = text.seeds(max(counts))
    if len(counts) > 1:
        number = f"{min(counts)} to {number}"
    missing = "".join(dict.fromkeys(text.missing(one) for one in told))
    return f"{number}{missing}"


def _gone(found: Mapping[str, Told], asked: Mapping[str, Sequence[str]], baseline: str) -> str:
    """Name the tasks in which runs failed, so that a candidate was not compared at all."""
    said = []
    for task, run_on in asked.items():
        arms = [
            arm
            for arm, told in found.items()
            if arm in run_on and task not in {name for name, _ in told}
        ]
        if arms:
            said.append(f"; no seed of {task} is finished for both {baseline} and {_join(arms)}")
    return "".join(said)


_SAID = {
    "worse": "is worse",
    "mixed": "is better in one task and worse in another",
    "unclear": "does not differ significantly",
}


def _others(kinds: Mapping[str, str], named: Sequence[str]) -> str:
    """Say in a few words what became of the candidates that the sentence does not name."""
    return "".join(f"; {arm} {_SAID[kind]}" for arm, kind in kinds.items() if arm not in named)
