"""The cells of a study, each with a digest of everything that its outcome depends on. Torch-free.

A cell is one pretraining (arm, seed, size), one sweep of learning rates (arm, task) or one dense
run (arm, seed, size, task, fraction). Its digest covers the version of the captions, the recipe,
the labels, the options and, through the digests of the cells it builds on, everything below them.
So a changed recipe makes new cells, while renaming or adding an arm leaves the other cells
unchanged.

Everything that needs models goes through `Runner`; the real one is
`finetune.study.runner.ModelRunner`, and tests have their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from curator.core import hashing
from curator.core.stopping import StopRequest
from finetune.cell_files import DenseResult, Sweep
from finetune.metrics import RETRIEVAL_METRICS
from finetune.options import parse_options
from finetune.study.recipe import TaskSettings
from pretrain.run_files import RunSummary

_DIGEST_LENGTH = 20
_RETRIEVAL = frozenset(metric.name for metric in RETRIEVAL_METRICS)

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PretrainOutcome:
    """The outcome of one pretraining: its whole summary, and the log of its loop.

    `device` and `num_devices` are those of `finetune.cell_files.DenseResult`.
    """

    summary: RunSummary
    history: list[Json]
    device: str = ""
    num_devices: int = 1

    @property
    def metrics(self) -> dict[str, float]:
        """Those of `RETRIEVAL_METRICS` that were measured on the held-out pairs."""
        found = self.summary.retrieval | self.summary.zero_shot
        return {name: value for name, value in found.items() if name in _RETRIEVAL}

    def to_json(self) -> Json:
        """Return the fields of the summary and the others: the record of the cell."""
        own = {"metrics": self.metrics, "history": self.history}
        where = {"device": self.device, "num_devices": self.num_devices}
        return {**self.summary.to_json(), **own, **where}


@dataclass(frozen=True, kw_only=True)
class PretrainCell:
    """One pretraining. `budget` is its step on the ladder of pretraining sizes, in samples."""

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
    """The source of a dense run's weights: a cell, or `spec` as for `load_backbone`."""

    cell: PretrainCell | None
    spec: str = ""

    @property
    def config(self) -> str:
        """The value that represents it in the digest of a dense cell."""
        return self.spec if self.cell is None else self.cell.digest


@dataclass(frozen=True, kw_only=True)
class SweepCell:
    """One sweep of learning rates, for an arm and a task, with the first seed and most samples."""

    arm: str
    seed: int
    task: TaskSettings
    labels: Json
    backbone: BackboneSource

    kind = "sweep"

    @property
    def options(self) -> Json:
        """The options of its runs, all but the learning rate."""
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
            "protocol": parse_options(self.options).protocol_digest,
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
        """The options of the run, without the learning rate if that comes from a sweep."""
        lr = self.task.lrs[0] if self.task.lrs and self.sweep is None else None
        swept = () if self.sweep is None else tuple(sorted(self.task.lrs))
        options = self.task.dense_options(
            seed=self.seed, fraction=self.fraction, lr=lr, swept=swept
        )
        return options.model_dump(mode="json")

    @property
    def protocol(self) -> str:
        """The protocol as it is printed beside the result."""
        return parse_options(self.options).protocol_name

    @property
    def protocol_digest(self) -> str:
        """The digest of every setting that defines the protocol."""
        return parse_options(self.options).protocol_digest

    @property
    def config(self) -> Json:
        """All that the outcome depends on."""
        return {
            "kind": self.kind,
            "backbone": self.backbone.config,
            "labels": self.labels,
            "options": self.options,
            "sweep": None if self.sweep is None else self.sweep.digest,
            "protocol": self.protocol_digest,
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
    """Everything that a study needs from models."""

    def recipe(self, name: str, options: Mapping[str, Any]) -> Json:
        """Return a pretraining recipe with all fields filled in; raises UsageError."""

    def source(self, data: str, *, text: bool) -> Json:
        """Return `id`, `name` and counts of a version; `text`: whether texts are needed."""

    def labels(self, task: TaskSettings, seeds: Sequence[int]) -> Json:
        """Describe a labelled folder, without its path.

        Raises UsageError if there are no labels to learn from, to choose a rate on or to evaluate
        on.
        """

    def flops_per_sample(self, data: str, recipe: Json) -> float:
        """Return the FLOPs of one training step on `data`, per sample."""

    def rough_seconds(self, cell: Cell) -> float:
        """Return roughly how long a cell takes, from a few passes through its tower."""

    def pretrain(self, cell: PretrainCell, folder: Path, stop: StopRequest) -> PretrainOutcome:
        """Pretrain into `folder`, or resume there."""

    def sweep(self, cell: SweepCell, backbone: str, folder: Path, stop: StopRequest) -> Sweep:
        """Try the learning rates on the validation images."""

    def finetune(
        self, cell: DenseCell, backbone: str, options: Json, folder: Path, stop: StopRequest
    ) -> DenseResult:
        """Train on a dense task and evaluate on test; `options` are the cell's, with its lr."""


def digest_of(config: Json) -> str:
    """Return the name of the cell with this config."""
    return hashing.digest(config)[:_DIGEST_LENGTH]
