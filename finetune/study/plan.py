"""Plan a study: list its cells in the order they run. Torch-free.

The order is seed by seed, so that a study that is stopped early has complete pairs to compare.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from curator.core.errors import UsageError
from finetune.study.cells import (
    BackboneSource,
    Cell,
    DenseCell,
    Json,
    PretrainCell,
    Runner,
    SweepCell,
)
from finetune.study.recipe import RANDOM, Arm, Study, TaskSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPlan:
    """All cells of a study in the order they run, seed by seed."""

    study: Study
    cells: tuple[Cell, ...]
    sources: dict[str, Json]
    labels: dict[str, Json]
    recipes: dict[str, Json]

    def to_json(self) -> Json:
        """Return what a report needs to know besides the outcomes."""
        return {
            "study": self.study.model_dump(mode="json"),
            "sources": self.sources,
            "labels": self.labels,
            "recipes": self.recipes,
            "kinds": {arm.name: arm.kind for arm in self.study.arm},
            "cells": [_cell_json(cell) for cell in self.cells],
        }


def make_plan(study: Study, runner: Runner) -> StudyPlan:
    """Look up everything that cells depend on, and list the cells.

    Raises:
        CuratorError: a version, folder or recipe is missing or does not fit; nothing has been run
            yet.
    """
    recipes = {
        arm.name: runner.recipe(study.pretrain.recipe, _options(study, arm))
        for arm in study.arm
        if arm.data is not None
    }
    labels = {task.title: runner.labels(task, study.seeds) for task in study.task}
    sources: dict[str, Json] = {}
    for arm in study.arm:
        if arm.data is not None:
            sources[arm.name] = runner.source(arm.data, text=arm.kind != "images")
            if arm.reference is not None:
                sources[arm.name]["reference"] = runner.source(arm.reference, text=True)
    model = str(runner.recipe(study.pretrain.recipe, study.pretrain.options)["model"])
    samples = _samples(study, recipes, runner)
    cells: list[Cell] = []
    sweeps: dict[tuple[str, str], SweepCell] = {}
    for seed in study.seeds:
        backbones: dict[str, list[tuple[int | None, BackboneSource]]] = {}
        for arm in study.arms_of(seed):
            if arm.backbone is not None:
                spec = f"{RANDOM}:{model}" if arm.backbone == RANDOM else arm.backbone
                backbones[arm.name] = [(None, BackboneSource(cell=None, spec=spec))]
                continue
            made = [
                _pretrain_cell(study, arm, seed, budget, recipes[arm.name] | seen, sources)
                for budget, seen in samples[arm.name]
            ]
            cells += made
            backbones[arm.name] = [(cell.budget, BackboneSource(cell=cell)) for cell in made]
        for task in study.task:
            for name, rungs in backbones.items():
                if task.arms and name not in task.arms:
                    continue
                key = (name, task.title)
                if len(task.lrs) > 1 and key not in sweeps:
                    sweeps[key] = SweepCell(
                        arm=name,
                        seed=seed,
                        task=task,
                        labels=labels[task.title],
                        backbone=rungs[0][1],
                    )
                    cells.append(sweeps[key])
                cells += _dense_cells(rungs, name, seed, task, labels[task.title], sweeps.get(key))
    return StudyPlan(
        study=study, cells=tuple(cells), sources=sources, labels=labels, recipes=recipes
    )


def _options(study: Study, arm: Arm) -> Json:
    options = {**study.pretrain.options, **arm.options}
    for key in ("control", "objective"):
        if getattr(arm, key) is not None:
            options[key] = getattr(arm, key)
    return options


def _samples(
    study: Study, recipes: Mapping[str, Json], runner: Runner
) -> dict[str, list[tuple[int, Json]]]:
    """Return arm -> (budget, samples as a recipe field), the largest first."""
    if study.match == "flops" and study.baseline not in recipes:
        raise UsageError(
            "`match` = 'flops' needs a baseline that is pretrained in the study",
            where=study.name,
            hint=f"{study.baseline!r} has no `data`",
            reason="study.invalid",
        )
    factors = dict.fromkeys(recipes, 1.0)
    if study.match == "flops":
        flops = {
            arm.name: runner.flops_per_sample(arm.data, recipes[arm.name])
            for arm in study.arm
            if arm.data is not None
        }
        factors = {name: flops[study.baseline] / flops[name] for name in recipes}
    found = {}
    for name, recipe in recipes.items():
        budgets = study.pretrain.samples_seen or (int(recipe["samples_seen"]),)
        found[name] = [
            (budget, {"samples_seen": max(1, round(budget * factors[name]))})
            for budget in sorted(budgets, reverse=True)
        ]
    return found


def _pretrain_cell(
    study: Study, arm: Arm, seed: int, budget: int, recipe: Json, sources: Mapping[str, Json]
) -> PretrainCell:
    assert arm.data is not None
    found = sources[arm.name]
    return PretrainCell(
        arm=arm.name,
        seed=seed,
        budget=budget,
        data=arm.data,
        source_id=found["id"],
        reference=arm.reference,
        reference_id=found["reference"]["id"] if arm.reference is not None else None,
        held_out=study.pretrain.held_out,
        recipe={**recipe, "seed": seed},
    )


def _dense_cells(
    rungs: list[tuple[int | None, BackboneSource]],
    arm: str,
    seed: int,
    task: TaskSettings,
    labels: Json,
    sweep: SweepCell | None,
) -> Iterator[DenseCell]:
    """Return the dense cells: all label fractions for the largest pretraining, else all labels."""
    for place, (budget, backbone) in enumerate(rungs):
        every = sorted(task.fractions, reverse=True)
        for fraction in every if place == 0 else every[:1]:
            yield DenseCell(
                arm=arm,
                seed=seed,
                budget=budget,
                fraction=fraction,
                task=task,
                labels=labels,
                backbone=backbone,
                sweep=sweep,
            )


def _cell_json(cell: Cell) -> Json:
    found: Json = {
        "kind": cell.kind,
        "digest": cell.digest,
        "label": cell.label,
        "arm": cell.arm,
        "seed": cell.seed,
    }
    if isinstance(cell, PretrainCell):
        return found | {"budget": cell.budget}
    found |= {"task": cell.task.title}
    found["pretrain"] = None if cell.backbone.cell is None else cell.backbone.cell.digest
    if isinstance(cell, SweepCell):
        return found
    found["sweep"] = None if cell.sweep is None else cell.sweep.digest
    found |= {"protocol": cell.protocol, "protocol_digest": cell.protocol_digest}
    return found | {"budget": cell.budget, "fraction": cell.fraction}
