"""A report as one HTML page: pictures inside, no script, no request, light and dark, printable.

Names of arms and messages of errors come from files: the template escapes everything, and a content
security policy forbids all but inline styles and `data:` pictures. The same cells give the same
bytes.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from finetune.report import text
from finetune.report.plots import NUM_COLOURS, curve_plot, learning_plot, task_plot
from finetune.report.values import Comparison, Gap, Report
from pretrain.data.cuts import percent


def render_html(report: Report, folder: Path) -> str:
    """The whole page; sample predictions are read from `folder`, the study's."""
    return _environment().get_template("report.html").render(
        report=report,
        headline=text.headline(report),
        none_=text.NONE,
        costs_are=text.COSTS_ARE,
        gaps_are=text.GAPS_ARE,
        relative_is=text.relative_is(report),
        matched=text.matched(report),
        retrieval_is=text.RETRIEVAL_IS,
        slot=lambda name: report.arm(name).slot % NUM_COLOURS,
        families=families(report),
        comparisons=comparisons_of(report),
        baseline_cost=next(cost for cost in report.costs if cost.arm == report.baseline),
        total_seconds=report.total_seconds,
        task_plots={task.name: task_plot(task, report.arms) for task in report.tasks},
        curve_plots=_curve_plots(report),
        curve_arms={arm for task in report.tasks for arm in (*task.curves, *task.ladders)},
        gap_columns=gap_columns(report),
        gap_rows=gap_rows(report),
        told_gaps=told_gaps(report),
        relative_tasks=[task for task in report.tasks if task.relative],
        samples=_samples(report, folder),
        learning_plots=[
            (stage, learning_plot(runs, report.arms, stage))
            for stage, runs in report.learning.items()
        ],
        learning_arms={arm for runs in report.learning.values() for arm in runs},
        study_lines=study_lines(report),
        task_lines=task_lines(report),
        arm_lines=arm_lines(report),
    )  # fmt: skip


def _environment() -> Environment:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("finetune.report"), PackageLoader("curator.compare")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": lambda value: f"{value:,.0f}",
        "duration": text.duration,
        "effect": text.effect,
        "flops": text.flops,
        "gap_sentence": text.gap_sentence,
        "interval": lambda found, metric, signed=False: text.interval(metric, found, signed=signed),
        "how_trained": text.how_trained,
        "factor": text.factor,
        "factor_limit": text.factor_limit,
        "p_value": text.p_value,
        "relative": text.relative,
        "sentence": text.sentence,
        "share": text.share,
    }
    # Jinja's own `capitalize` makes the other letters small.
    environment.filters["capitalize"] = lambda word: word[:1].upper() + word[1:]
    return environment


def families(report: Report) -> str:
    """Which comparisons are corrected together, in words."""
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
    """By task and arm."""
    return {task.name: {one.arm: one for one in task.comparisons} for task in report.tasks}


def _curve_plots(report: Report) -> list[tuple[str, str]]:
    plots = []
    for task in report.tasks:
        for what, curves in (("labels", task.curves), ("samples", task.ladders)):
            if curves:
                title = f"{task.name[:1].upper()}{task.name[1:]}, by {what}"
                plots.append((title, curve_plot(curves, report.arms, task.metric, what=what)))
    return plots


def gap_columns(report: Report) -> list[tuple[str, dict[str, Gap]]]:
    """(title, gap by arm) of every table column on efficiency."""
    found = []
    for task in report.tasks:
        for what in dict.fromkeys(gap.what for gap in task.gaps):
            gaps = {gap.arm: gap for gap in task.gaps if gap.what == what}
            if gaps:
                found.append((f"{task.name}, {what}", gaps))
    return found


def gap_rows(report: Report) -> list[tuple[str, list[Gap | None]]]:
    """(arm, gaps in the order of the columns) of the arms that have any."""
    columns = gap_columns(report)
    rows = [(arm.name, [gaps.get(arm.name) for _, gaps in columns]) for arm in report.arms]
    return [(name, gaps) for name, gaps in rows if any(gaps)]


def told_gaps(report: Report) -> list[Gap]:
    """The gaps that the question is about, for sentences."""
    asked = {comparison.arm for _, comparison in report.verdict}
    return [gap for task in report.tasks for gap in task.gaps if gap.arm in asked]


Samples = list[tuple[str, list[str], list[list[str | None]]]]


def _samples(report: Report, folder: Path) -> Samples:
    """(task, arms, rows of `data:` pictures: image, truth, an arm each)."""
    found: Samples = []
    for task in report.tasks:
        names = [
            arm.name
            for arm in report.arms
            if any(arm.name in picture.predictions for picture in task.pictures)
        ]
        rows = [
            [
                _uri(folder, path)
                for path in (
                    picture.image,
                    picture.truth,
                    *(picture.predictions.get(name) for name in names),
                )
            ]
            for picture in task.pictures
        ]
        if rows:
            found.append((task.name, names, rows))
    return found


def _uri(folder: Path, name: str | None) -> str | None:
    """A picture of the study as a `data:` URI; None if it is gone or was never there."""
    if name is None or not (folder / name).is_file():
        return None
    return "data:image/png;base64," + base64.b64encode((folder / name).read_bytes()).decode()


# -- how it was made -----------------------------------------------------------------------------

Lines = list[tuple[str, str]]


def study_lines(report: Report) -> Lines:
    """The study in (label, value) pairs."""
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
    """What all recipes agree on and is set; the study's own keys are told elsewhere."""
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
    """(task, its options and labels) in pairs."""
    found = []
    for task in report.plan["study"]["task"]:
        name = task["name"] or task["task"]
        lines = [("task", f"{task['task']}, {task['mode']}")]
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
    """(arm, where its captions or weights come from) in pairs."""
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
    """`/data/photos/shards@v2` -> `shards@v2`: a page travels, where data lie does not."""
    return "@".join(part.rstrip("/").rpartition("/")[2] for part in name.split("@"))


def plain(value: object) -> str:
    """A value of a recipe as people write it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(inner)}" for key, inner in sorted(value.items()))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(plain, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)
