"""The dense task port: an objective that can also be judged, and the table of all tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from curator.core.registry import Registry, Spec
from curator.core.stopping import StopRequest
from finetune.feeding import DenseBatch, Kept
from finetune.layouts import LabelledImage, Split
from pretrain.loop.loop import ParamGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How good a task is on a split.

    Attributes:
        metrics: over the split; names and directions are in `finetune.options.METRICS`.
        per_image: picture -> its own metrics; empty where the task has none (detection).
        per_class: class that occurs -> its IoU or box AP; empty for depth.
    """

    metrics: dict[str, float]
    per_image: dict[str, dict[str, float]] = field(default_factory=dict)
    per_class: dict[str, float] = field(default_factory=dict)


class DenseTask(Protocol):
    """A module made of a backbone and heads: also an objective of `pretrain.loop.loop`."""

    def features(self, images_B3hw: torch.Tensor) -> Sequence[torch.Tensor]:
        """uint8 pictures of `image_px` -> the backbone's maps; without gradients when frozen."""
        ...

    @property
    def layer_decay(self) -> float | None:
        """The decay of rates towards the first layers; None where the backbone is frozen."""
        ...

    def losses(self, batch: DenseBatch) -> dict[str, torch.Tensor]:
        """`loss` is minimised, the others are logged."""
        ...

    def groups(self) -> list[ParamGroup]:
        """What is trained, with learning rates that fall towards the first layers."""
        ...

    def evaluate(
        self, split: Split, *, kept: Sequence[Kept] | None, stop: StopRequest
    ) -> Evaluation:
        """Judge on whole pictures at their own size; `kept` are the split's feature maps."""
        ...

    def pictures(self, item: LabelledImage) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The picture, the truth and what is predicted, (3, H, W) uint8 each."""
        ...


# A builder: (backbone, options, DenseSet, the training pictures) -> the task, on the CPU.
TASKS = Registry(
    "task",
    {
        "segmentation": Spec("finetune.tasks.segmentation:Segmentation"),
        "depth": Spec("finetune.tasks.depth:Depth"),
        "detection": Spec("finetune.tasks.detection:Detection"),
    },
)
