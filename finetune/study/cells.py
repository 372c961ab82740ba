"""The cells of a study, each with a digest of all that its outcome depends on. Torch-free.

A cell is one pretraining (arm, seed, size), one sweep of learning rates (arm, task) or one dense
run (arm, seed, size, task, fraction). Its digest covers the version of the captions, the recipe,
the labels, the options and, through the digests of the cells it builds on, everything below them.
So a changed recipe makes new cells, and an arm that was renamed or added changes no other.

What a study needs from the world of models comes through `Runner`; the real one is
`finetune.study.runner.ModelRunner`, tests bring their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from curator.core import hashing
from curator.core.stopping import StopRequest
from finetune.cell_files import DenseResult, Sweep
from finetune.study.recipe import TaskSettings

_DIGEST_LENGTH = 20

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainOutcome:
    """What one pretraining gave; `metrics` are those of the held-out pairs, `flops` in total.

    `texts` is `pretrain.data.cuts.Cuts` of what it was trained on, `held_out_texts` of those pairs;
    empty where there is no text.
    """

    samples: int
    flops: float
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict)
    history: list[Json] = field(default_factory=list)
    texts: dict[str, int] = field(default_factory=dict)
    held_out_texts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PretrainCell:
    """One pretraining. `budget` is the rung of the ladder that it stands for, in samples."""

    arm: str
    seed: int
    budget: int
    data: str
    source_id: str
    reference: str | None
    reference_id: str | None
    held_out: int | None
    recipe: Json

    kind = "pretrain"

    @property
    def config(self) -> Json:
        """All that the outcome depends on."""
        return {
            "kind": self.kind,
            "source": self.source_id,
            "reference": self.reference_id,
            "held_out": self.held_out,
            "recipe": {key: value for key, value in self.recipe.items() if key != "name"},
        }

    @cached_property
    def digest(self) -> str:
        """The name of the cell."""
        return digest_of(self.config)

    @property
    def label(self) -> str:
        """The cell in words."""
        return f"pretraining, {self.arm}, seed {self.seed}, {self.budget:,} samples"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneSource:
    """Where a dense run takes its weights from: a cell, or `spec` as `load_backbone` reads it."""

    cell: PretrainCell | None
    spec: str = ""

    @property
    def config(self) -> str:
        """What stands for it in the digest of a dense cell."""
        return self.spec if self.cell is None else self.cell.digest


@dataclass(frozen=True, kw_only=True)
class SweepCell:
    """The rates of one arm and task, tried with the first seed, most labels and samples."""

    arm: str
    seed: int
    task: TaskSettings
    labels: Json
    backbone: BackboneSource

    kind = "sweep"

    @property
    def options(self) -> Json:
        """The options of its runs, all but the rate."""
        options = self.task.dense_options(seed=self.seed, fraction=max(self.task.fractions))
        return options.model_dump(mode="json")

    @property
    def config(self) -> Json:
        """All that the outcome depends on."""
        return {
            "kind": self.kind,
            "backbone": self.backbone.config,
            "labels": self.labels,
            "options": self.options,
            "lrs": sorted(self.task.lrs),
            **_rules(self.options),
        }

    @cached_property
    def digest(self) -> str:
        """The name of the cell."""
        return digest_of(self.config)

    @property
    def label(self) -> str:
        """The cell in words."""
        return f"learning rates, {self.task.title}, {self.arm}"


@dataclass(frozen=True, kw_only=True)
class DenseCell:
    """One dense run. `budget` is None for arms without a pretraining of their own."""

    arm: str
    seed: int
    budget: int | None
    fraction: float
    task: TaskSettings
    labels: Json
    backbone: BackboneSource
    sweep: SweepCell | None

    kind = "dense"

    @property
    def options(self) -> Json:
        """The options of the run; its rate is missing if it comes from a sweep."""
        lr = self.task.lrs[0] if self.task.lrs and self.sweep is None else None
        options = self.task.dense_options(seed=self.seed, fraction=self.fraction, lr=lr)
        return options.model_dump(mode="json")

    @property
    def config(self) -> Json:
        """All that the outcome depends on."""
        return {
            "kind": self.kind,
            "backbone": self.backbone.config,
            "labels": self.labels,
            "options": self.options,
            "sweep": None if self.sweep is None else self.sweep.digest,
            **_rules(self.options),
        }

    @cached_property
    def digest(self) -> str:
        """The name of the cell."""
        return digest_of(self.config)

    @property
    def label(self) -> str:
        """The cell in words."""
        size = f", {self.budget:,} samples" if self.budget is not None else ""
        share = f"{self.fraction * 100:g} % of the labels"
        return f"{self.task.title}, {self.arm}, seed {self.seed}{size}, {share}"


Cell = PretrainCell | SweepCell | DenseCell


class Runner(Protocol):
    """What a study needs from the world of models."""

    def recipe(self, name: str, options: Mapping[str, Any]) -> Json:
        """A pretraining recipe with every field settled; raises UsageError."""

    def source(self, data: str, *, text: bool) -> Json:
        """`id`, `name` and counts of a dataset version; whether texts are needed."""

    def labels(self, task: TaskSettings, seeds: Sequence[int]) -> Json:
        """What is in a labelled folder, without its path; raises UsageError where there is nothing
        to learn, to choose a rate on or to evaluate on.
        """

    def flops_per_sample(self, data: str, recipe: Json) -> float:
        """Floating point operations of one training step on `data`, for each sample."""

    def pretrain(self, cell: PretrainCell, folder: Path, stop: StopRequest) -> PretrainOutcome:
        """Pretrain into `folder`, or go on there."""

    def sweep(self, cell: SweepCell, backbone: str, folder: Path, stop: StopRequest) -> Sweep:
        """Try the rates on val."""

    def finetune(
        self, cell: DenseCell, backbone: str, options: Json, folder: Path, stop: StopRequest
    ) -> DenseResult:
        """Train on a dense task, evaluate on test; `options` are those of the cell with its lr."""


def _rules(options: Json) -> Json:
    """What changed in the meaning of options: cells from before are other ones, not their pairs.

    A `layer_decay` that is written down was one of timm's groups, 45 in MCi2, and is one of blocks
    or stages.
    """
    return {} if options["freeze"] else {"layer_groups": "blocks or stages"}


def digest_of(config: Json) -> str:
    """The name of the cell with this config."""
    return hashing.digest(config)[:_DIGEST_LENGTH]
