"""The decision sentence: every form, with numbers worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from finetune.report.build import build_report, comparisons_of, correct
from finetune.report.decision import decide
from finetune.report.html import render_html
from finetune.report.markdown import render_markdown
from finetune.report.values import Decision, Progress, TaskResult
from finetune.study.results import metric_of
from tests.kit.study import SMALL, FakeRunner, run, study

FINISHED = Progress(num_needed=8, num_waiting=0, seconds_left=0.0, seconds_per_seed=3600.0)

Scores = Mapping[str, Sequence[float] | Mapping[int, float]]
"""Arm -> its scores, by seed; mIoU in percent, RMSE in metres."""


def task(metric: str, scores: Scores) -> TaskResult:
    found = metric_of(metric)
    values = {
        arm: {seed: value / found.scale for seed, value in enumerate(by_seed)}
        if isinstance(by_seed, Sequence)
        else {seed: value / found.scale for seed, value in by_seed.items()}
        for arm, by_seed in scores.items()
    }
    return TaskResult(
        name="segmentation" if metric == "mIoU" else "depth", kind="",
        protocol="", protocol_digest="", metric=found,
        fraction=1.0, num_train=240, num_test=120, values=values, means={}, others=[],
        comparisons=comparisons_of(values, "v1", found, list(scores)),
        relative={}, curves={}, ladders={}, gaps=[], pictures=[],
    )  # fmt: skip


def decided(
    *tasks: TaskResult,
    arms: Sequence[str] = ("v2",),
    at: Progress = FINISHED,
    failed: Sequence[str] = (),
    not_asked: Sequence[str] = (),
) -> Decision:
    """The decision on v1; `failed` are tasks without a finished run, `not_asked` those that are
    not run on v2.
    """
    names = [*(one.name for one in tasks), *failed]
    return decide(
        correct(tasks, arms),
        asked={
            name: ["v1", *(arm for arm in arms if arm != "v2" or name not in not_asked)]
            for name in names
        },
        baseline="v1",
        candidates=arms,
        progress=at,
    )


def said(*tasks: TaskResult, arms: Sequence[str] = ("v2",), at: Progress = FINISHED) -> str:
    return decided(*tasks, arms=arms, at=at).sentence


# Gains over this baseline are exact: t(0.975, 3) = 3.182446, so four differences a, b, a, b with
# b = a + 1 have a mean of a + 0.5, sd 0.57735, and an interval of plus or minus 0.9187.
V1 = [50.0, 51.0, 49.0, 50.5]
DEEP = [2.00, 2.10, 1.90, 2.05]


def miou(*gains: float) -> list[float]:
    return [value + gain for value, gain in zip(V1, gains, strict=False)]


def rmse(*gains: float) -> list[float]:
    return [value - gain for value, gain in zip(DEEP, gains, strict=False)]


# -- one candidate ---------------------------------------------------------------------------------


def test_it_is_better() -> None:
    found = decided(task("mIoU", {"v1": V1, "v2": miou(9, 10, 9, 10)}))
    assert (found.choice, found.arms) == ("use", ("v2",))
    assert found.sentence == "Use v2: +9.5 mIoU [8.6, 10.4] over v1, 4 seeds."


def test_it_is_better_in_both_tasks() -> None:
    # 0.1 to 0.2 m less: mean 0.15, plus or minus 0.0919.
    assert said(
        task("mIoU", {"v1": V1, "v2": miou(9, 10, 9, 10)}),
        task("RMSE", {"v1": DEEP, "v2": rmse(0.2, 0.3, 0.2, 0.3)}),
    ) == (
        "Use v2: +9.5 mIoU [8.6, 10.4] in segmentation and 0.250 m RMSE [0.158, 0.342] lower in "
        "depth over v1, 4 seeds."
    )


def test_better_in_one_task_and_unseen_in_the_other() -> None:
    # Gains of -0.1, 0.1, 0.2, 0 m: sd 0.129099. Two comparisons: 2.7160 sd are seen with 80 %
    # power at 2.5 %: 0.351 m.
    assert said(
        task("mIoU", {"v1": V1, "v2": miou(9, 10, 9, 10)}),
        task("RMSE", {"v1": DEEP, "v2": rmse(-0.1, 0.1, 0.2, 0.0)}),
    ) == (
        "Use v2: +9.5 mIoU [8.6, 10.4] in segmentation over v1; no difference is seen in depth "
        "(under 0.351 m RMSE none could be), 4 seeds."
    )


def test_tasks_disagree() -> None:
    found = decided(
        task("mIoU", {"v1": V1, "v2": miou(9, 10, 9, 10)}),
        task("RMSE", {"v1": DEEP, "v2": rmse(-0.2, -0.3, -0.2, -0.3)}),
    )
    assert (found.choice, found.arms) == ("by task", ("v2",))
    assert found.sentence == (
        "Choose by task: v2 is better, +9.5 mIoU [8.6, 10.4] in segmentation, and worse, "
        "0.250 m RMSE [0.158, 0.342] higher in depth (against v1, 4 seeds)."
    )


def test_the_baseline_is_best() -> None:
    found = decided(task("mIoU", {"v1": V1, "v2": miou(-9, -10, -9, -10)}))
    assert (found.choice, found.arms) == ("keep", ("v1",))
    assert found.sentence == (
        "Keep v1: v2 is worse, \u22129.5 mIoU [\u221210.4, \u22128.6], 4 seeds."
    )


def test_nothing_is_seen() -> None:
    # Gains of -1, 1, 2, 0: mean 0.5, sd 1.29099. Four pairs see 2.12795 sd (statsmodels'
    # TTestPower says the same): 2.7 mIoU. Half of it needs ten pairs: six more, an hour each.
    unclear = task("mIoU", {"v1": V1, "v2": miou(-1, 1, 2, 0)})
    found = decided(unclear)
    assert (found.choice, found.arms) == ("none", ())
    assert found.sentence == (
        "Do not decide on this: differences under 2.7 mIoU cannot be seen with 4 seeds; 6 more "
        "seeds (6.0 h of runs) would show 1.4 mIoU."
    )
    unknown = replace(FINISHED, seconds_per_seed=None)
    assert said(unclear, at=unknown).endswith("6 more seeds would show 1.4 mIoU.")
    # Of two comparisons each is tested at 2.5 %: 2.7160 sd are 3.5 mIoU, and 0.351 m as above;
    # half of them needs eight pairs.
    assert said(unclear, task("RMSE", {"v1": DEEP, "v2": rmse(-0.1, 0.1, 0.2, 0.0)})) == (
        "Do not decide on this: differences under 3.5 mIoU in segmentation and 0.351 m RMSE in "
        "depth cannot be seen with 4 seeds; 4 more seeds (4.0 h of runs) would show half of that."
    )


def test_spreads_larger_than_the_scores() -> None:
    # 2.12795 times an sd of 51.6 is more than any mIoU of these arms.
    wild = task("mIoU", {"v1": V1, "v2": miou(-40, 40, 40, -40)})
    assert said(wild) == "Do not decide on this: 4 seeds are too few to see any difference."


def test_one_seed() -> None:
    assert said(task("mIoU", {"v1": V1[:1], "v2": miou(9)})) == (
        "Do not decide on this: 1 seed cannot tell a difference from chance; 3 can at the least, "
        "so 2 more seeds (2.0 h of runs) would be needed."
    )


def test_two_seeds_name_no_winner() -> None:
    # An interval of two pairs may exclude zero: 9.5 +- 12.706 * 0.0707 / sqrt(2).
    found = task("mIoU", {"v1": V1[:2], "v2": miou(9.45, 9.55)})
    (one,) = correct([found], ["v2"])[0].comparisons
    assert one.difference is not None
    assert one.difference.excludes_zero
    assert one.difference.is_significant
    assert "2 seeds cannot tell a difference from chance; 3 can at the least" in said(found)


def test_seeds_that_change_nothing() -> None:
    assert said(task("mIoU", {"v1": V1, "v2": miou(1, 1, 1, 1)})) == (
        "Do not decide on this: the seed does not affect these runs, so they say nothing about "
        "others."
    )


def test_failed_runs_leave_fewer_seeds() -> None:
    four = dict(enumerate(miou(9, 10, 9, 10)))
    assert said(task("mIoU", {"v1": [*V1, 50.0], "v2": four})) == (
        "Use v2: +9.5 mIoU [8.6, 10.4] over v1, 4 seeds (v2 has no seed 4)."
    )
    assert said(task("mIoU", {"v1": {0: 50.0}, "v2": {1: 50.0}})) == (
        "Do not decide on this: no seed is finished for both v1 and v2; the same study command "
        "runs what failed again."
    )


def test_a_task_that_failed_is_named() -> None:
    won = task("mIoU", {"v1": V1, "v2": miou(9, 10, 9, 10)})
    assert decided(won, failed=["depth"]).sentence == (
        "Use v2: +9.5 mIoU [8.6, 10.4] in segmentation over v1, 4 seeds; no seed of depth is "
        "finished for both v1 and v2."
    )
    # It was not to be run on v2.
    assert decided(won, failed=["depth"], not_asked=["depth"]).sentence == (
        "Use v2: +9.5 mIoU [8.6, 10.4] in segmentation over v1, 4 seeds."
    )
    # Its runs of one candidate alone.
    part = task("RMSE", {"v1": DEEP, "v3": rmse(0.2, 0.3, 0.2, 0.3)})
    lost = task("mIoU", {"v1": V1, "v2": miou(-9, -10, -9, -10), "v3": miou(-9, -9, -10, -10)})
    assert decided(lost, part, arms=("v2", "v3")).sentence.endswith(
        "; v2 is worse; no seed of depth is finished for both v1 and v2)."
    )


def test_before_the_end() -> None:
    half = Progress(num_needed=8, num_waiting=3, seconds_left=5400.0, seconds_per_seed=3600.0)
    won = task("mIoU", {"v1": V1, "v2": miou(9, 10, 9, 10)})
    assert said(won, at=half) == (
        "Do not decide yet: 5 of the 8 dense runs it needs are finished, about 90 min of runs are "
        "left."
    )
    none = Progress(num_needed=8, num_waiting=8, seconds_left=None, seconds_per_seed=None)
    assert said(at=none) == "Do not decide yet: no dense run is finished."


def test_one_arm() -> None:
    assert said(arms=()) == "Nothing to decide: v1 is the only arm."


# -- several candidates ----------------------------------------------------------------------------

BOTH = ("v2", "v3")


def test_two_are_better_and_not_told_apart() -> None:
    # v2 over v3: 0, 1, -1, 0.
    won = task("mIoU", {"v1": V1, "v2": miou(9, 10, 9, 10), "v3": miou(9, 9, 10, 10)})
    found = decided(won, arms=BOTH)
    assert (found.choice, found.arms) == ("use", BOTH)
    assert found.sentence == (
        "Use v2 or v3: over v1, v2 +9.5 mIoU [8.6, 10.4] and v3 +9.5 mIoU [8.6, 10.4]; which of "
        "them is better cannot be told, 4 seeds."
    )


def test_those_behind_are_named_last() -> None:
    # v2 over v4: 6, 6, 5, 7; v3 over v4: 6, 5, 6, 7.
    scores = {"v2": miou(9, 10, 9, 10), "v3": miou(9, 9, 10, 10), "v4": miou(3, 4, 4, 3)}
    found = decided(task("mIoU", {"v1": V1, **scores}), arms=(*BOTH, "v4"))
    assert (found.choice, found.arms) == ("use", BOTH)
    assert found.sentence == (
        "Use v2 or v3: over v1, v2 +9.5 mIoU [8.6, 10.4] and v3 +9.5 mIoU [8.6, 10.4]; which of "
        "them is better cannot be told; v4 is better too, but behind, 4 seeds."
    )


def test_one_of_two_is_best() -> None:
    # v3 over v2: 4, 5, 5, 4.
    won = task("mIoU", {"v1": V1, "v2": miou(9, 10, 9, 10), "v3": miou(13, 15, 14, 14)})
    found = decided(won, arms=BOTH)
    assert (found.choice, found.arms) == ("use", ("v3",))
    # Gains of 13, 15, 14, 14: mean 14, sd 0.8165: plus or minus 1.299.
    assert found.sentence == (
        "Use v3: +14.0 mIoU [12.7, 15.3] over v1 and +4.5 mIoU [3.6, 5.4] over v2, 4 seeds."
    )


def test_two_are_better_each_in_its_task() -> None:
    found = decided(
        task("mIoU", {"v1": V1, "v2": miou(9, 10, 9, 10), "v3": miou(3, 4, 4, 3)}),
        task(
            "RMSE",
            {"v1": DEEP, "v2": rmse(0.2, 0.3, 0.2, 0.3), "v3": rmse(0.6, 0.7, 0.7, 0.6)},
        ),
        arms=BOTH,
    )
    assert (found.choice, found.arms) == ("use", BOTH)
    # v2 over v3: 6, 6, 5, 7 mIoU: mean 6, sd 0.8165; v3 over v2 0.4, 0.4, 0.5, 0.3 m.
    assert found.sentence.endswith(
        "; of them v2 beats v3, +6.0 mIoU [4.7, 7.3] in segmentation and v3 beats v2, 0.400 m "
        "RMSE [0.270, 0.530] lower in depth, 4 seeds."
    )


def test_the_rest_is_named() -> None:
    every = ("v2", "v3", "v4")
    won = task(
        "mIoU",
        {
            "v1": V1,
            "v2": miou(9, 10, 9, 10),
            "v3": miou(-9, -10, -9, -10),
            "v4": miou(-1, 1, 2, 0),
        },
    )
    assert said(won, arms=every) == (
        "Use v2: +9.5 mIoU [8.6, 10.4] over v1, 4 seeds; v3 is worse; v4 does not differ "
        "significantly."
    )
    # Without v2 there is nothing to use, and v4 is still open; of two comparisons half the least
    # difference needs eight pairs, as above.
    assert said(won, arms=("v3", "v4")) == (
        "Do not decide on this: differences under 3.5 mIoU cannot be seen with 4 seeds; 4 more "
        "seeds (4.0 h of runs) would show 1.8 mIoU; v3 is worse."
    )


def test_three_seeds_are_too_few_for_two_candidates() -> None:
    won = task("mIoU", {"v1": V1[:3], "v2": miou(9, 10, 9), "v3": miou(9, 9, 10)})
    assert said(won, arms=BOTH) == (
        "Do not decide on this: 3 seeds cannot tell a difference from chance; 4 can at the least, "
        "so 1 more seed (60 min of runs) would be needed."
    )


# -- where it stands -------------------------------------------------------------------------------


def test_a_report_opens_with_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(study(SMALL, seeds="4"), out)
    report = build_report(out)
    sentence = report.decision.sentence
    assert sentence.startswith("Use b: 0.0")
    assert sentence.endswith("lower over a, 4 seeds.")
    assert render_markdown(report).splitlines()[2] == f"**{sentence}**".replace("[", "\\[").replace(
        "]", "\\]"
    )
    page = render_html(report, out)
    assert page.index(f'<p class="decision">{sentence}</p>') < page.index('<p class="verdict">')


def test_unfinished_and_failed_runs(tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = study(SMALL, seeds="4")
    run(made, out, pretrain_only=True)
    assert build_report(out).decision.sentence == "Do not decide yet: no dense run is finished."
    # A run that failed is not waited for, nor one whose pretraining failed.
    run(made, out, FakeRunner(fails=("depth, b, seed 1",)))
    assert "3 seeds (b has no seed 1)" in build_report(out).decision.sentence
    # A run that is missing is: each is as long as the others, 8 dense runs of one length.
    records = sorted((out / "cells").glob("*.json"))
    dense = [path for path in records if json.loads(path.read_bytes())["config"]["kind"] == "dense"]
    gone = next(p for p in dense if json.loads(p.read_bytes())["status"] == "done")
    gone.unlink()
    assert build_report(out).decision.sentence.startswith(
        "Do not decide yet: 7 of the 8 dense runs it needs are finished, about 0 s of runs"
    )


@pytest.mark.parametrize("arms", [("v2",), BOTH, ("v2", "v3", "v4")])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_every_sentence_is_one(arms: Sequence[str], n: int) -> None:
    scores = {"v1": V1[:n]} | {
        arm: miou(*(place * seed for seed in range(n))) for place, arm in enumerate(arms)
    }
    sentence = said(task("mIoU", scores), arms=arms)
    assert sentence.endswith(".")
    assert ". " not in sentence
    assert "  " not in sentence
