"""Build the tables of a report as plain cells, for the page, the Markdown and the dashboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finetune.report import text
from finetune.report.values import Comparison, Gap, Report
from pretrain.data.cuts import percent

Lines = list[tuple[str, str]]
"""(label, value) pairs, one per row."""


def families(report: Report) -> str:
    """Say which comparisons are corrected together."""
    asked = {comparison.arm for _, comparison in report.verdict}
    sizes = {True: 0, False: 0}
    for task in report.tasks:
        for comparison in task.comparisons:
            gain = comparison.difference
            sizes[comparison.arm in asked] += gain is not None and gain.p is not None
    if not sizes[False]:
        return f"all {sizes[True]} comparisons of this page"
    return f"the {sizes[True]} of {', '.join(sorted(asked))}, and over the {sizes[False]} others"


def comparisons_of(report: Report) -> dict[str, dict[str, Comparison]]:
    """Return the comparisons by task and arm."""
    return {task.name: {one.arm: one for one in task.comparisons} for task in report.tasks}


def gap_columns(report: Report) -> list[tuple[str, dict[str, Gap]]]:
    """Return (title, gap by arm) of every column of the efficiency table."""
    found = []
    for task in report.tasks:
        for what in dict.fromkeys(gap.what for gap in task.gaps):
            gaps = {gap.arm: gap for gap in task.gaps if gap.what == what}
            if gaps:
                found.append((f"{task.name} ({task.protocol}), {what}", gaps))
    return found


def gap_rows(report: Report) -> list[tuple[str, list[Gap | None]]]:
    """Return (arm, gaps in column order) of the arms that have any."""
    columns = gap_columns(report)
    rows = [(arm.name, [gaps.get(arm.name) for _, gaps in columns]) for arm in report.arms]
    return [(name, gaps) for name, gaps in rows if any(gaps)]


def asked_gaps(report: Report) -> list[Gap]:
    """Return the gaps that the study asks about, for sentences."""
    asked = {comparison.arm for _, comparison in report.verdict}
    return [gap for task in report.tasks for gap in task.gaps if gap.arm in asked]


def net_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of the table of nets: size, arithmetic and time by task."""
    head = [
        "arm",
        "task",
        "backbone",
        "whole net",
        "FLOPs an image",
        "FLOPs to train",
        "device time",
    ]
    rows = [
        [
            net.arm,
            net.task,
            text.parameters(net.backbone),
            text.parameters(net.parameters),
            text.flops(net.image_flops),
            text.flops(net.train_flops),
            net.hours,
        ]
        for net in report.nets
    ]
    return head, rows


# -- how it was made -----------------------------------------------------------------------------


def study_lines(report: Report) -> Lines:
    """Return the study's settings as (label, value) pairs."""
    study = report.plan["study"]
    matched = "FLOPs" if report.match == "flops" else "samples seen"
    lines = [
        ("seeds", ", ".join(map(str, report.seeds))),
        ("matched", matched),
        ("baseline", report.baseline),
        ("recipe", study["pretrain"]["recipe"]),
    ]
    common = _common(list(report.plan["recipes"].values()))
    return lines + [(key, plain(value)) for key, value in sorted(common.items())]


def _common(recipes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the set values that all recipes share; the study's own keys are shown elsewhere."""
    if not recipes:
        return {}
    return {
        key: value
        for key, value in recipes[0].items()
        if value not in (None, "")
        and key not in ("name", "description", "seed", "samples_seen")
        and all(other.get(key) == value for other in recipes)
    }


def task_lines(report: Report) -> list[tuple[str, Lines]]:
    """Return (task, its options and labels as pairs)."""
    found = []
    for task in report.plan["study"]["task"]:
        name = task["name"] or task["task"]
        lines = [("task", f"{task['task']}, protocol {task['protocol']}")]
        lines.append(("labels", ", ".join(map(text.share, sorted(task["fractions"])))))
        if task["lrs"]:
            lines.append(("learning rates", " or ".join(f"{rate:g}" for rate in task["lrs"])))
        lines += [(key, plain(value)) for key, value in sorted(task["options"].items())]
        lines += [
            (key.replace("_", " "), plain(value))
            for key, value in report.plan["labels"].get(name, {}).items()
            if key in ("layout", "classes", "num_train", "num_val", "num_test", "notes") and value
        ]
        found.append((name, lines))
    return found


def arm_lines(report: Report) -> list[tuple[str, Lines]]:
    """Return (arm, the origin of its captions or weights as pairs)."""
    found = []
    common = _common(list(report.plan["recipes"].values()))
    for arm in report.plan["study"]["arm"]:
        recipe = report.plan["recipes"].get(arm["name"], {})
        source = report.plan["sources"].get(arm["name"], {})
        lines = [
            ("kind", report.plan["kinds"][arm["name"]]),
            *((key, plain(arm[key])) for key in ("backbone", "control", "reference") if arm[key]),
            *(
                (key.replace("_", " "), _without_folders(plain(value)))
                for key, value in source.items()
                if value not in (None, "", [], {}) and key != "reference"
            ),
            *(
                (key, plain(value))
                for key, value in sorted(recipe.items())
                if key not in common
                and key not in ("name", "description", "seed", "samples_seen", "control")
                and value is not None
            ),
        ]
        cuts = report.cuts.get(arm["name"])
        if cuts is not None and cuts.total is not None:
            lines.append(("captions cut", percent(cuts.total.share)))
        found.append((arm["name"], lines))
    return found


def _without_folders(name: str) -> str:
    """`/data/photos/shards@v2` -> `shards@v2`: pages are shared, local paths mean nothing there."""
    return "@".join(part.rstrip("/").rpartition("/")[2] for part in name.split("@"))


def plain(value: object) -> str:
    """Format a recipe value as people write it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(inner)}" for key, inner in sorted(value.items()))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(plain, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)
