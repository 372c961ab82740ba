"""The dense task port: an objective that can also be evaluated, and the table of all tasks.

A new task is a class in a file of its own and a row in `TASKS` (docs/extend/dense_task.md). The row
brings everything that the options, the command line, studies, results and reports say about it, so
nothing else has to know its name. Torch-free: the class is imported when a task is built.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """How good a task is on a split.

    Attributes:
        metrics: over the split, in the order of the task's row in `TASKS`.
        per_image: image -> its own metrics; empty where the task has none (detection).
        per_class: class that occurs -> its IoU or box AP; empty for depth.
    """

    metrics: dict[str, float]
    per_image: dict[str, dict[str, float]] = field(default_factory=dict)
    per_class: dict[str, float] = field(default_factory=dict)


class DenseTask(Protocol):
    """A module made of a backbone and heads: also an objective of `pretrain.loop.loop`.

    It is built on the CPU as Task(backbone, options, data, train): a `Backbone`, `DenseOptions`,
    the `DenseSet`, and the `Split` of it that is trained on. `finetune.tasks.base` has what tasks
    share.
    """

    def features(self, images_B3hw: torch.Tensor) -> Sequence[torch.Tensor]:
        """uint8 images of `image_px` -> the backbone's maps; without gradients when frozen."""
        ...

    @property
    def layer_decay(self) -> float | None:
        """The decay of learning rates towards the first layers; None with a frozen backbone."""
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
        """Evaluate on whole images at their own size; `kept` are the split's feature maps.

        Raises:
            UsageError: no image of the split has a label.
        """
        ...

    def example(self, item: LabelledImage) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The image, the truth and the prediction in colours, (3, H, W) uint8 each."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec(Spec):
    """One row of `TASKS`; `target` is the class.

    Attributes:
        labels: the kind of labels that it reads, of `finetune.layouts.LABELS`; a new task can be
            trained on every layout of its kind.
        metrics: all of its metrics. The first decides, and learning rates are chosen by it.
        scale: range of the random zoom in training unless options say otherwise.
        has_own_head: the class brings its heads, as Mask R-CNN does. Then `head` is no option, a
            probe trains those heads (not a linear one), and images are seen whole.
    """

    labels: str
    metrics: tuple[Metric, ...]
    scale: tuple[float, float] = (1.0, 1.0)
    has_own_head: bool = False


TASKS: Registry[TaskSpec] = Registry(
    "task",
    {
        "segmentation": TaskSpec(
            "finetune.tasks.segmentation:Segmentation",
            help="a class for every pixel: mIoU, mAcc",
            labels="segmentation",
            metrics=(percent("mIoU", primary=True), percent("mAcc")),
            scale=(0.5, 2.0),
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
            tiny="tests.kit.dense:tiny_depth",
        ),
        "detection": TaskSpec(
            "finetune.tasks.detection:Detection",
            help="boxes, and masks where the data has them: COCO AP",
            labels="detection",
            metrics=(
                percent("box AP", primary=True),
                percent("box AP50"),
                percent("mask AP"),
                percent("mask AP50"),
            ),
            scale=(0.8, 1.25),
            has_own_head=True,
            tiny="tests.kit.dense:tiny_detection",
        ),
    },
    protocol=DenseTask,
)
