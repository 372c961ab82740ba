"""List what a reader must know before believing a report; shown at its top in plain sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

from finetune.protocols import PROTOCOLS
from finetune.report.text import SAME_COMPUTE
from finetune.report.values import ArmCuts, Report
from finetune.study.files import Json
from finetune.study.results import metric_of
from pretrain.data.cuts import Cuts

FEW_SEEDS = 5


def warnings_of(report: Report, records: Mapping[str, Json]) -> list[str]:
    """Return all warnings, the most serious first."""
    return [
        *_unfinished(report),
        *_labels(report),
        *_impossible(report, records),
        *_seeds(report),
        *_compute(report),
        *_cut_texts(report),
        *_learning_rates(report, records),
        *_solved(report, records),
        *_circles(report),
    ]


def _unfinished(report: Report) -> Iterator[str]:
    if report.failures:
        which = "1 run" if len(report.failures) == 1 else f"{len(report.failures)} runs"
        yield f"{which} failed; the reasons are at the end. Means are over the seeds that finished."
    waiting = report.num_cells - report.num_done - len(report.failures)
    if waiting:
        yield (
            f"{waiting:,} of {report.num_cells:,} runs are not done: run the same study command "
            "again to continue."
        )


def _labels(report: Report) -> Iterator[str]:
    """Yield what `finetune.labels` found in the folders of labels."""
    for task, labels in report.plan["labels"].items():
        for warning in labels.get("warnings", ()):
            yield f"Labels of {task}: {warning}"


def _impossible(report: Report, records: Mapping[str, Json]) -> Iterator[str]:
    """Yield tasks whose records hold a score for an empty test set, as earlier versions wrote."""
    found = {
        (str(cell["task"]), name)
        for cell in report.plan["cells"]
        if cell["kind"] == "dense"
        for name, value in (records.get(cell["digest"], {}).get("outcome") or {})
        .get("metrics", {})
        .items()
        if not metric_of(name).is_possible(value)
    }
    for task, name in sorted(found):
        yield f"{name} of {task} is left out: its test images contain no object to find."


def _seeds(report: Report) -> Iterator[str]:
    n = len(report.seeds)
    if n == 1:
        yield "One seed: there is no interval, and no difference can be separated from chance."
    elif n < FEW_SEEDS:
        yield f"{n} seeds: intervals are wide, and only large differences can be detected."


def _compute(report: Report) -> Iterator[str]:
    base = next((cost for cost in report.costs if cost.arm == report.baseline), None)
    if base is None or base.flops is None or base.samples is None or not base.flops.mean:
        return
    for cost in report.costs:
        if cost.flops is None or cost.samples is None:
            continue
        flops, samples = (
            cost.flops.mean / base.flops.mean,
            cost.samples.mean / base.samples.mean,
        )
        on = "equally many" if f"{samples:.2f}" == "1.00" else f"{samples:.2f} times the"
        if abs(flops - 1) > SAME_COMPUTE:
            instead = " (the study can match FLOPs instead)" if report.match == "samples" else ""
            yield (
                f"Compute is not matched: {cost.arm} was pretrained with {flops:.2f} times the "
                f"FLOPs of {base.arm}, on {on} samples{instead}."
            )
        elif report.match == "samples" and on != "equally many":
            yield f"Samples are not matched: {cost.arm} saw {samples:.2f} times as many."


def cuts_of(plan: Json, records: Mapping[str, Json]) -> dict[str, ArmCuts]:
    """Return cut captions by arm, over finished pretrainings; arms without text are absent."""
    found: dict[str, ArmCuts] = {}
    for arm, kind in plan["kinds"].items():
        cells = [c for c in plan["cells"] if c["kind"] == "pretrain" and c["arm"] == arm]
        done = [records.get(digest, {}) for digest in {cell["digest"]: None for cell in cells}]
        texts = [one["outcome"].get("texts") for one in done if one.get("status") == "done"]
        counted = [Cuts(**one) for one in texts if one]
        if kind in ("captions", "control"):
            total = sum(counted[1:], counted[0]) if counted else None
            found[arm] = ArmCuts(total=total, num_unknown=len(texts) - len(counted))
    return found


def _cut_texts(report: Report) -> Iterator[str]:
    """Yield arms whose captions were cut to the context of the text tower."""
    for arm, found in report.cuts.items():
        if found.total is not None and found.total.num_cut:
            yield (
                f"Captions of {arm} were cut: {found.total.sentence()}, so nothing was learned "
                "from the removed parts. Results of this arm say nothing about the full captions."
            )
    unknown = [arm for arm, found in report.cuts.items() if found.num_unknown]
    if unknown:
        yield (
            "How many captions were cut to the text tower's context is unknown for some runs "
            f"of {', '.join(unknown)}: an earlier version of this tool did not count them."
        )


def _learning_rates(report: Report, records: Mapping[str, Json]) -> Iterator[str]:
    for task in report.plan["study"]["task"]:
        name = task["name"] or task["task"]
        if "lr" in PROTOCOLS[task["protocol"]].unused:
            continue
        if len(task["lrs"]) <= 1:
            yield f"The learning rate of {name} is the same for all arms; none was swept."
            continue
        ends = []
        for cell in report.plan["cells"]:
            outcome = records.get(cell["digest"], {}).get("outcome")
            if cell["kind"] == "sweep" and cell["task"] == name and outcome is not None:
                rates = [rate for rate, _ in outcome["tried"]]
                if outcome["lr"] in (min(rates), max(rates)) and len(rates) > 2:  # noqa: PLR2004 - two rates have no middle
                    ends.append(cell["arm"])
        if ends:
            yield (
                f"The best learning rate of {name} is at the end of the range for "
                f"{', '.join(ends)}: a wider sweep may change the result."
            )


def _solved(report: Report, records: Mapping[str, Json]) -> Iterator[str]:
    """Yield tasks whose solved probes did not reach the optimum, or the end of the strengths."""
    for task in report.plan["study"]["task"]:
        name = task["name"] or task["task"]
        found = [
            certificate
            for cell in report.plan["cells"]
            if cell["kind"] == "dense" and cell["task"] == name
            for certificate in [
                (records.get(cell["digest"], {}).get("outcome") or {}).get("certificate")
            ]
            if certificate is not None
        ]
        for key, told in (
            ("hit_cap", "stopped before the gradient was small enough"),
            ("at_edge", "chose the last strength of the range that is allowed"),
        ):
            if number := sum(one[key] for one in found):
                yield f"The probe of {name} {told} in {number} of {len(found)} runs."


def _circles(report: Report) -> Iterator[str]:
    """Yield pairs of a scorer that chose texts and a model that may be related to it."""
    recipes, study = report.plan["recipes"], report.plan["study"]
    starts = {str(recipe["init"]) for recipe in recipes.values() if recipe.get("init")}
    starts |= {arm["backbone"] for arm in study["arm"] if arm["backbone"]}
    pairs = set()
    for source in report.plan["sources"].values():
        scorers = source.get("scorers", ())
        pairs |= {(*two, "wrote some") for two in product(scorers, source.get("captioners", ()))}
        pairs |= {(*two, "provided the initial weights") for two in product(scorers, starts)}
    for scorer, other, part in sorted(pairs):
        if shared := _words(scorer) & _words(other):
            yield (
                f"Captions were chosen by {scorer}, and {other} {part}: both names contain "
                f"{', '.join(sorted(shared))}. If the two are related, the scorer is not "
                "independent."
            )


_COMMON = frozenset(
    (
        "clip", "openclip", "open", "hf", "hub", "timm", "local", "dir", "vit", "rn50", "base",
        "large", "small", "tiny", "patch16", "patch32", "short", "long", "detailed", "vlm",
        "random", "model", "pretrain", "coca", "siglip",
    )
)  # fmt: skip


def _words(name: str) -> set[str]:
    """Return the words of a model's name, without those about its size or role."""
    for mark in "/:_.":
        name = name.replace(mark, "-")
    words = {word for word in name.casefold().split("-") if len(word) > 3}  # noqa: PLR2004 - b, 16, l14
    return {word for word in words - _COMMON if not word.isdigit()}
