"""The dense task port: its contract, and the table of all tasks.

A task is an objective that can also be evaluated. A new task is a class in a file of its own and a
row in `TASKS` (docs/extend/dense_task.md). The row holds everything that options, command line,
studies, results and reports need to know about it, so no other code names the task. Torch-free: the
class is imported when a task is built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from curator.core.registry import Registry, Spec
from finetune.metrics import Metric, percent

if TYPE_CHECKING:
    import torch

    from curator.core.stopping import StopRequest
    from finetune.feeding import DenseBatch, Kept
    from finetune.layouts import LabelledImage, Split
    from pretrain.loop.loop import ParamGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The scores of a task on a split.

    Attributes:
        metrics: over the whole split, in the order of the task's row in `TASKS`.
        per_image: image -> its metrics; empty if the task has none (detection).
        per_class: each class that occurs -> its IoU or box AP; empty for depth.
    """

    metrics: dict[str, float]
    per_image: dict[str, dict[str, float]] = field(default_factory=dict)
    per_class: dict[str, float] = field(default_factory=dict)


class DenseTask(Protocol):
    """A module of a backbone and heads; also an objective of `pretrain.loop.loop`.

    It is built on the CPU as Task(backbone, options, data, train): a `Backbone`, `DenseOptions`,
    the `DenseSet`, and the `Split` of it to train on. `finetune.tasks.base` has code that tasks
    share.
    """

    def features(self, images_B3hw: torch.Tensor) -> Sequence[torch.Tensor]:
        """Return the backbone's maps of uint8 images of `image_px`; without gradients if frozen."""
        ...

    @property
    def built(self) -> dict[str, float | str | None]:
        """What options leave to the architecture, as it was built: stored with the result."""
        ...

    def losses(self, batch: DenseBatch) -> dict[str, torch.Tensor]:
        """Return scalars: `loss` is minimised, all others are logged."""
        ...

    def groups(self) -> list[ParamGroup]:
        """Return the trained parameters, with layer-wise learning rates."""
        ...

    def evaluate(
        self, split: Split, *, kept: Sequence[Kept] | None, stop: StopRequest
    ) -> Evaluation:
        """Evaluate on whole images at their original size; `kept` are the split's feature maps.

        Raises:
            UsageError: no image of the split has a label.
        """
        ...

    def example(self, item: LabelledImage) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return image, truth and prediction in colours, (3, H, W) uint8 each."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec(Spec):
    """One row of `TASKS`; `target` is the class.

    Attributes:
        labels: the kind of labels that it reads, one of `finetune.layouts.LABELS`; a new task works
            with every layout of this kind.
        metrics: all of its metrics. The first one decides, and learning rates are chosen by it.
            Others may be missing where nothing counts for them, as AP of a size that no object has.
        scale: default range of the random zoom in training.
        own_options: options that only tasks with them in their row use.
        has_own_head: whether the class has its own heads, as Mask R-CNN does. Then `head` cannot be
            set, a probe trains those heads (not a linear one), and inference uses whole images.
    """

    labels: str
    metrics: tuple[Metric, ...]
    scale: tuple[float, float] = (1.0, 1.0)
    own_options: tuple[str, ...] = ()
    has_own_head: bool = False


SIZES: Mapping[str, str] = {"s": "small", "m": "medium", "l": "large"}
"""COCO's sizes of objects, by area: below 32 x 32 pixels, to 96 x 96, and above."""

TASKS: Registry[TaskSpec] = Registry(
    "task",
    {
        "segmentation": TaskSpec(
            "finetune.tasks.segmentation:Segmentation",
            help="a class for every pixel: mIoU, mAcc",
            labels="segmentation",
            metrics=(percent("mIoU", primary=True), percent("mAcc")),
            scale=(0.5, 2.0),
            own_options=("aux_weight",),
            tiny="tests.kit.dense:tiny_segmentation",
        ),
        "depth": TaskSpec(
            "finetune.tasks.depth:Depth",
            help="metres for every pixel: RMSE, AbsRel, delta1",
            labels="depth",
            metrics=(
                Metric(name="RMSE", label="RMSE", higher_is_better=False, unit="m", primary=True),
                Metric(name="AbsRel", label="AbsRel", higher_is_better=False),
                percent("delta1", label="\u03b4\u2081"),
                Metric(name="RMSE pooled", label="RMSE pooled", higher_is_better=False, unit="m"),
            ),
            own_options=("eval_crop", "depth_cap_m"),
            tiny="tests.kit.dense:tiny_depth",
        ),
        "detection": TaskSpec(
            "finetune.tasks.detection:Detection",
            help="boxes, and masks where the data has them: COCO AP, also by size",
            labels="detection",
            metrics=(
                percent("box AP", primary=True),
                percent("box AP50"),
                *(percent(f"box AP_{size}") for size in SIZES),
                percent("mask AP"),
                percent("mask AP50"),
                *(percent(f"mask AP_{size}") for size in SIZES),
            ),
            scale=(0.8, 1.25),
            has_own_head=True,
            tiny="tests.kit.dense:tiny_detection",
        ),
    },
    protocol=DenseTask,
)
