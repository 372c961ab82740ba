"""The values of a report, ready to be shown. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune.metrics import Metric
from finetune.report.efficiency import Curve, Efficiency
from finetune.report.stats import Difference, Mean, PairedValues, Relative
from pretrain.data.cuts import Cuts

Values = Mapping[int, float]
"""Seed -> value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportArm:
    """One arm; `slot` is its colour: 0 for the baseline, 1 for the verdict's first arm."""

    name: str
    kind: str
    slot: int
    is_baseline: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One arm against the baseline. `difference` is None if they have no seed in common.

    `alpha` is the level for planning seeds: 5 % divided by the comparisons of the family, which is
    Holm's threshold for the smallest p-value, so more seeds than planned are never needed.
    `protocol` is printed behind the numbers.
    """

    arm: str
    reference: str
    metric: Metric
    pairs: PairedValues
    difference: Difference | None
    alpha: float
    protocol: str = ""

    @property
    def outcome(self) -> str:
        """The verdict: better, worse or unclear."""
        return "unclear" if self.difference is None else self.difference.outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """How many times less one arm needs than the baseline.

    `what` is "labels", or, for pretraining, "samples", or "compute" if the study matches FLOPs.
    """

    arm: str
    reference: str
    what: str
    metric: Metric
    efficiency: Efficiency


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportImage:
    """One test image: file names in the study folder; predictions are by arm."""

    image: str
    truth: str
    predictions: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """One task at its largest fraction of labels and largest pretraining.

    `values` and `means` are by arm, of the metric that decides; `others` by metric. `curves` are
    over label fractions, `ladders` over samples seen in pretraining, both by arm and only for two
    amounts or more. `kind` is segmentation, depth or detection. `protocol` is printed beside the
    numbers; `protocol_digest` is of every setting that defines it.
    """

    name: str
    kind: str
    protocol: str
    protocol_digest: str
    metric: Metric
    fraction: float
    num_train: int
    num_test: int
    values: dict[str, dict[int, float]]
    means: dict[str, Mean]
    others: list[tuple[Metric, dict[str, Mean]]]
    comparisons: list[Comparison]
    relative: dict[str, Relative]
    curves: dict[str, Curve]
    ladders: dict[str, Curve]
    gaps: list[Gap]
    pictures: list[ReportImage]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The cost of one arm, means over its seeds; None if it was not pretrained here.

    `hours` is the time of a pretraining as printed, with what worked: "0.4 CPU-hours".
    """

    arm: str
    samples: Mean | None
    flops: Mean | None
    seconds: Mean | None
    dense_seconds: Mean | None
    hours: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """The net that an arm has in a task, and what one run of it cost, at the largest fraction.

    Attributes:
        backbone, parameters: numbers of parameters, of the backbone and of the whole net.
        image_flops: of evaluating one test image, with all its windows.
        train_flops: of training the net; those of the backbone are left out where its features were
            computed once for several runs.
        hours: of training and evaluation as printed, with what worked: "0.4 CPU-hours".
    """

    arm: str
    task: str
    backbone: int
    parameters: int
    image_flops: int
    train_flops: float
    hours: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmCuts:
    """Cuts of an arm's captions, over all of its pretrainings that counted them.

    `num_unknown` pretrainings did not count: an earlier version of this tool ran them.
    """

    total: Cuts | None
    num_unknown: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A cell that failed, and why."""

    label: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A whole report. `verdict` holds the comparisons that answer the question, by task.

    `cuts` is by arm, for arms that read text. `learning` is by stage ("pretraining" or a task),
    then by arm: the loss of each seed by step.
    """

    name: str
    description: str
    arms: list[ReportArm]
    seeds: tuple[int, ...]
    baseline: str
    mae: str | None
    tasks: list[TaskResult]
    verdict: list[tuple[str, Comparison]]
    retrieval: list[tuple[Metric, dict[str, Mean]]]
    warnings: list[str]
    notes: tuple[str, ...]
    costs: list[Cost]
    nets: list[Net]
    cuts: dict[str, ArmCuts]
    learning: dict[str, dict[str, list[list[tuple[float, float]]]]]
    failures: list[Failure]
    num_cells: int
    num_done: int
    total_seconds: float
    match: str
    plan: Mapping[str, Any]
    tool_version: str

    def arm(self, name: str) -> ReportArm:
        """Return the arm of this name."""
        return next(arm for arm in self.arms if arm.name == name)
