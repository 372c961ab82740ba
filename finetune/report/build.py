"""Compute the values of a report from the folder of a study. Torch-free; 1 s for 300 cells.

Correction for multiple comparisons: the arms named by `verdict`, on the deciding metric of every
task, are one family and all other arms a second one, so that controls do not cost the question its
power. Without `verdict` all arms are one family. Claims about fewer labels or samples form two
families in the same way, with limits that hold simultaneously. Everything else (other metrics,
relative changes) has uncorrected intervals.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from finetune.metrics import RETRIEVAL, Metric
from finetune.report.decision import decide
from finetune.report.efficiency import Curve, efficiency
from finetune.report.stats import (
    ALPHA,
    MIN_PAIRS,
    Mean,
    Relative,
    difference,
    fewest_pairs,
    holm,
    mean_of,
    pair,
    relative_change,
)
from finetune.report.text import device_hours
from finetune.report.values import (
    Comparison,
    Cost,
    Failure,
    Gap,
    Net,
    Progress,
    Report,
    ReportArm,
    ReportImage,
    TaskResult,
)
from finetune.report.warnings import cuts_of, warnings_of
from finetune.study.costs import Times, cells_of_a_seed
from finetune.study.files import Json, read_cells, read_plan, rows_of
from finetune.study.results import metric_of, primary_metric

_MIN_AMOUNTS = 2
_MAX_PICTURES = 4


def build_report(folder: Path) -> Report:
    """Compute everything that a report shows; the study need not be finished.

    Raises:
        UsageError: no study, or no finished dense cell. DamageError: a damaged file.
    """
    plan, records = read_plan(folder), read_cells(folder)
    study, rows = plan["study"], rows_of(plan, records)
    arms = arms_of(plan)
    tasks = [
        _task(study, task, [row for row in rows if row["task"] == _title(task)], plan, records)
        for task in study["task"]
        if any(row["task"] == _title(task) for row in rows)
    ]
    tasks = correct_gaps(correct(tasks, study["verdict"]), study["verdict"])
    digests = list(dict.fromkeys(cell["digest"] for cell in plan["cells"]))
    labels = {cell["digest"]: cell["label"] for cell in plan["cells"]}
    failures = [
        Failure(label=labels[digest], message=records[digest]["error"]["message"])
        for digest in digests
        if records.get(digest, {}).get("status") == "failed"
    ]
    candidates = study["verdict"] or [name for name in _names(study) if name != study["baseline"]]
    report = Report(
        name=study["name"],
        description=study["description"],
        arms=arms,
        seeds=tuple(study["seeds"]),
        baseline=study["baseline"],
        mae=study["mae"],
        tasks=tasks,
        decision=decide(
            tasks,
            asked={_title(task): _run_on(task, study) for task in study["task"]},
            baseline=study["baseline"],
            candidates=candidates,
            progress=_progress(plan, records, candidates),
        ),
        verdict=[
            (task.name, comparison)
            for task in tasks
            for comparison in task.comparisons
            if comparison.arm in candidates
        ],
        retrieval=_retrieval(rows),
        warnings=[],
        notes=tuple(study["notes"]),
        costs=_costs(arms, plan, records),
        nets=_nets(arms, plan, records),
        cuts=cuts_of(plan, records),
        learning=_learning(plan, records),
        failures=failures,
        num_cells=len(digests),
        num_done=sum(records.get(digest, {}).get("status") == "done" for digest in digests),
        total_seconds=sum(records[digest]["seconds"] for digest in digests if digest in records),
        match=study["match"],
        plan=plan,
        tool_version=plan["tool_version"],
    )
    return replace(report, warnings=warnings_of(report, records))


def arms_of(plan: Json) -> list[ReportArm]:
    """Return all arms with their colours: baseline first, then the verdict's, then the others."""
    study, kinds = plan["study"], plan["kinds"]
    first = [study["baseline"], *study["verdict"]]
    order = first + [name for name in _names(study) if name not in first]
    return [
        ReportArm(
            name=name,
            kind=kinds[name],
            slot=order.index(name),
            is_baseline=name == study["baseline"],
        )
        for name in _names(study)
    ]


def _progress(plan: Json, records: Mapping[str, Json], candidates: Sequence[str]) -> Progress:
    """Return what is left of the runs that the decision compares; failed ones are not waited for.

    A run whose pretraining or sweep failed counts as failed.
    """
    asked = [plan["study"]["baseline"], *candidates]
    cells = {cell["digest"]: cell for cell in plan["cells"]}
    states = {digest: records.get(digest, {}).get("status", "waiting") for digest in cells}
    top = max((cell["budget"] or 0 for cell in cells.values() if "budget" in cell), default=0)
    most = {_title(task): max(task["fractions"]) for task in plan["study"]["task"]}
    needed = [
        cell
        for cell in cells.values()
        if cell["kind"] == "dense" and cell["arm"] in asked
        and cell["budget"] in (None, top) and cell["fraction"] == most[cell["task"]]
    ]  # fmt: skip

    def chain(cell: Json) -> list[str]:
        return [cell["digest"], *(cell[key] for key in ("pretrain", "sweep") if cell[key])]

    waiting = [
        cell
        for cell in needed
        if states[cell["digest"]] == "waiting"
        and all(states[digest] != "failed" for digest in chain(cell))
    ]
    left = {digest for cell in waiting for digest in chain(cell) if states[digest] != "done"}
    times = Times(plan, records)
    return Progress(
        num_needed=len(needed),
        num_waiting=len(waiting),
        seconds_left=times.total(cells[digest] for digest in left),
        seconds_per_seed=times.total(cells_of_a_seed(plan, asked)),
    )


def _title(task: Json) -> str:
    return str(task["name"] or task["task"])


def _task(
    study: Json, task: Json, rows: Sequence[Json], plan: Json, records: Mapping[str, Json]
) -> TaskResult:
    deciding = primary_metric(list(dict.fromkeys(row["metric"] for row in rows)))
    metric = metric_of(deciding)
    budget = max((row["budget_samples"] or 0 for row in rows), default=0)
    fraction = max(row["fraction"] for row in rows)

    def is_top(row: Json) -> bool:
        return row["budget_samples"] in (None, budget)

    top = [row for row in rows if is_top(row) and row["fraction"] == fraction]
    values = _by_arm(row for row in top if row["metric"] == deciding)
    decide = [row for row in rows if row["metric"] == deciding]
    curves = _curves((row for row in decide if is_top(row)), "fraction")
    ladders = _curves((row for row in decide if row["fraction"] == fraction), "budget_samples")
    # If FLOPs are matched, arms of one budget have seen different numbers of samples.
    effort = "compute" if study["match"] == "flops" else "samples"
    # A fraction of few labels is rounded; the number of labels used is compared.
    used = {row["fraction"]: row["num_train"] for row in decide if is_top(row)}
    by_count = {
        arm: {float(used[share]): by_seed for share, by_seed in sorted(curve.items())}
        for arm, curve in curves.items()
    }
    found: dict[str, dict[str, dict[int, float]]] = {
        name: _by_arm(row for row in top if row["metric"] == name)
        for name in dict.fromkeys(row["metric"] for row in top)
        if name != deciding
    }
    return TaskResult(
        name=_title(task),
        kind=task["task"],
        protocol=top[0]["protocol"],
        protocol_digest=top[0]["protocol_digest"],
        metric=metric,
        fraction=fraction,
        num_train=max((row["num_train"] for row in top), default=0),
        num_test=max((row["num_test"] for row in top), default=0),
        values=values,
        means=_means(values),
        others=[(metric_of(name), _means(by_arm)) for name, by_arm in found.items()],
        comparisons=comparisons_of(
            values,
            study["baseline"],
            metric,
            _run_on(task, study),
            protocol=top[0]["protocol"],
        ),
        relative=_relative(values, study["mae"]),
        curves=curves,
        ladders=ladders,
        gaps=_gaps(by_count, "labels", metric, study) + _gaps(ladders, effort, metric, study),
        pictures=_pictures(_title(task), plan, records),
    )


def _names(study: Json) -> list[str]:
    return [arm["name"] for arm in study["arm"]]


def _run_on(task: Json, study: Json) -> list[str]:
    """Return the arms of a task; older studies ran all arms on every task."""
    return task.get("arms") or _names(study)


def _by_arm(rows: Iterable[Json]) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for row in rows:
        found[row["arm"]][row["seed"]] = row["value"]
    return dict(found)


def _means(values: Mapping[str, Mapping[int, float]]) -> dict[str, Mean]:
    return {arm: mean_of(list(by_seed.values())) for arm, by_seed in values.items()}


def comparisons_of(
    values: Mapping[str, Mapping[int, float]],
    baseline: str,
    metric: Metric,
    names: Sequence[str],
    *,
    protocol: str = "",
) -> list[Comparison]:
    """Compare every arm of `names` with the baseline, before any correction."""
    found = []
    for name in names:
        if name == baseline:
            continue
        pairs = pair(values.get(name, {}), values.get(baseline, {}))
        gain = difference(pairs, higher_is_better=metric.higher_is_better) if pairs.seeds else None
        found.append(
            Comparison(
                arm=name,
                reference=baseline,
                metric=metric,
                pairs=pairs,
                difference=gain,
                alpha=ALPHA,
                protocol=protocol,
            )
        )
    return found


def correct(tasks: Sequence[TaskResult], verdict: Sequence[str]) -> list[TaskResult]:
    """Apply Holm's correction over the families; see the module."""
    every = [comparison for task in tasks for comparison in task.comparisons]
    corrected: dict[int, Comparison] = {}
    for asked in (True, False):
        family = [
            one
            for one in every
            if one.difference is not None and (not verdict or one.arm in verdict) is asked
        ]
        adjusted = holm([one.difference for one in family if one.difference is not None])
        # Controls explain a result and win nothing: many of them need no more seeds.
        fewest = fewest_pairs(len({one.arm for one in family}) or 1) if asked else MIN_PAIRS
        for one, gain in zip(family, adjusted, strict=True):
            alpha = ALPHA / max(gain.num_compared, 1)
            told = replace(gain, fewest=fewest)
            corrected[id(one)] = replace(one, difference=told, alpha=alpha)
    return [
        replace(task, comparisons=[corrected.get(id(one), one) for one in task.comparisons])
        for task in tasks
    ]


def correct_gaps(tasks: Sequence[TaskResult], verdict: Sequence[str]) -> list[TaskResult]:
    """Set limits that hold simultaneously for all gaps of a family; see the module."""
    families = {
        asked: [
            gap
            for task in tasks
            for gap in task.gaps
            if gap.efficiency.is_testable and (not verdict or gap.arm in verdict) is asked
        ]
        for asked in (True, False)
    }

    def corrected(gap: Gap) -> Gap:
        asked = not verdict or gap.arm in verdict
        family = families[asked]
        fewest = fewest_pairs(len({one.arm for one in family}) or 1) if asked else MIN_PAIRS
        told = replace(gap.efficiency, num_compared=max(len(family), 1), fewest=fewest)
        return replace(gap, efficiency=told)

    return [replace(task, gaps=[corrected(gap) for gap in task.gaps]) for task in tasks]


def _relative(
    values: Mapping[str, Mapping[int, float]], reference: str | None
) -> dict[str, Relative]:
    if reference is None:
        return {}
    found = {}
    for name, by_seed in values.items():
        change = relative_change(pair(by_seed, values.get(reference, {})))
        if name != reference and change is not None:
            found[name] = change
    return found


def _curves(rows: Iterable[Json], amount: str) -> dict[str, Curve]:
    """Return arm -> amount -> seed -> value, of the arms with two amounts or more."""
    found: dict[str, dict[float, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        if row[amount] is not None:
            found[row["arm"]][row[amount]][row["seed"]] = row["value"]
    return {arm: curve for arm, curve in found.items() if len(curve) >= _MIN_AMOUNTS}


def _gaps(curves: Mapping[str, Curve], what: str, metric: Metric, study: Json) -> list[Gap]:
    reference, found = study["baseline"], []
    for name in _names(study):
        if name == reference or name not in curves or reference not in curves:
            continue
        better = metric.higher_is_better
        told = efficiency(curves[name], curves[reference], higher_is_better=better)
        if told is not None:
            gap = Gap(arm=name, reference=reference, what=what, metric=metric, efficiency=told)
            found.append(gap)
    return found


def _pictures(task: str, plan: Json, records: Mapping[str, Json]) -> list[ReportImage]:
    """Return the same test images with the prediction of every arm that has them."""
    by_arm: dict[str, list[dict[str, str]]] = {}
    for cell in plan["cells"]:
        if cell.get("task") == task and cell["kind"] == "dense":
            kept = records.get(cell["digest"], {}).get("outcome", {}).get("pictures")
            if kept:
                by_arm.setdefault(cell["arm"], kept)
    if not by_arm:
        return []
    first = next(iter(by_arm.values()))
    return [
        ReportImage(
            image=shown["image"],
            truth=shown["truth"],
            predictions={
                arm: kept[place]["prediction"] for arm, kept in by_arm.items() if place < len(kept)
            },
        )
        for place, shown in enumerate(first[:_MAX_PICTURES])
    ]


def _retrieval(rows: Sequence[Json]) -> list[tuple[Metric, dict[str, Mean]]]:
    budget = max((row["budget_samples"] or 0 for row in rows), default=0)
    own = [row for row in rows if row["task"] == RETRIEVAL and row["budget_samples"] == budget]
    names = dict.fromkeys(row["metric"] for row in own)
    return [
        (metric_of(name), _means(_by_arm(row for row in own if row["metric"] == name)))
        for name in names
    ]


def _costs(arms: Sequence[ReportArm], plan: Json, records: Mapping[str, Json]) -> list[Cost]:
    """Return the costs of the largest pretraining; dense seconds are those of one dense run."""
    top = max((cell["budget"] or 0 for cell in plan["cells"] if "budget" in cell), default=0)
    found = []
    for arm in arms:
        spent: dict[str, dict[str, list[float]]] = {"pretrain": defaultdict(list)}
        spent["dense"] = defaultdict(list)
        pretrained: list[Json] = []
        for cell in plan["cells"]:
            outcome = records.get(cell["digest"], {}).get("outcome")
            wanted = cell["arm"] == arm.name and cell.get("budget") in (None, top)
            if outcome is None or cell["kind"] not in spent or not wanted:
                continue
            for key in ("samples_seen", "flops", "seconds", "num_devices"):
                if key in outcome:
                    spent[cell["kind"]][key].append(outcome[key])
            if cell["kind"] == "pretrain":
                pretrained.append(outcome)
        before = {key: mean_of(values) for key, values in spent["pretrain"].items()}
        dense = spent["dense"].get("seconds")
        found.append(
            Cost(
                arm=arm.name,
                samples=before.get("samples_seen"),
                flops=before.get("flops"),
                seconds=before.get("seconds"),
                dense_seconds=mean_of(dense) if dense else None,
                hours=_hours(pretrained),
            )
        )
    return found


def _hours(outcomes: Sequence[Json]) -> str:
    """Return the device hours of one run; nothing for records that do not say what worked."""
    if not outcomes or any(not outcome.get("num_devices") for outcome in outcomes):
        return ""
    hours = mean_of([one["seconds"] * one["num_devices"] for one in outcomes]).mean / 3600
    return device_hours(hours, "CPU" if outcomes[0]["device"] == "cpu" else "GPU")


def _nets(arms: Sequence[ReportArm], plan: Json, records: Mapping[str, Json]) -> list[Net]:
    """Return the net of every arm and task, of the runs of the table; older ones counted none."""
    top = max((cell["budget"] or 0 for cell in plan["cells"] if "budget" in cell), default=0)
    runs: dict[tuple[str, str], list[Json]] = defaultdict(list)
    for task in plan["study"]["task"]:
        for cell in plan["cells"]:
            if cell["kind"] != "dense" or cell["task"] != _title(task):
                continue
            outcome = records.get(cell["digest"], {}).get("outcome")
            is_top = cell["budget"] in (None, top) and cell["fraction"] == max(task["fractions"])
            if outcome is not None and is_top and outcome.get("parameters"):
                runs[_title(task), cell["arm"]].append(outcome)
    found = []
    for (task_name, arm), own in sorted(
        runs.items(), key=lambda one: [named.name for named in arms].index(one[0][1])
    ):
        first = own[0]
        found.append(
            Net(
                arm=arm,
                task=task_name,
                backbone=first["parameters"]["backbone"],
                parameters=first["parameters"]["all"],
                image_flops=first["image_flops"],
                train_flops=mean_of([one["flops"] for one in own]).mean,
                hours=_hours(own),
            )
        )
    return found


def _learning(
    plan: Json, records: Mapping[str, Json]
) -> dict[str, dict[str, list[list[tuple[float, float]]]]]:
    """Return the losses over steps of the runs in the table: largest pretraining, most labels."""
    top = max((cell["budget"] or 0 for cell in plan["cells"] if "budget" in cell), default=0)
    most = {_title(task): max(task["fractions"]) for task in plan["study"]["task"]}
    found: dict[str, dict[str, list[list[tuple[float, float]]]]] = {}
    for cell in plan["cells"]:
        outcome = records.get(cell["digest"], {}).get("outcome")
        if outcome is None or cell["kind"] == "sweep" or cell["budget"] not in (None, top):
            continue
        if cell["kind"] == "dense" and cell["fraction"] != most[cell["task"]]:
            continue
        points = [
            (point["step"], point["loss"])
            for point in outcome["history"]
            if point.get("loss") is not None
        ]
        stage = "pretraining" if cell["kind"] == "pretrain" else cell["task"]
        if points:
            found.setdefault(stage, {}).setdefault(cell["arm"], []).append(points)
    return found
