"""What one dense cell is trained and judged with. Torch-free: reports and studies read it too.

Two rungs (docs/design of the study): a *probe* (`freeze`) trains a linear head on frozen features,
which is cheap and repeatable; *finetuning* trains everything. Values left at None follow from the
others; `settled()` fills them in, and that is what is stored with a result.

Sources of the defaults: layer decay 0.8, weight decay 0.05 and lr 1e-4 are where the recipes of
MAE and BEiT (UperNet), of ViTDet (Mask R-CNN) and of MIM depth estimation lie for plain ViTs, all
with AdamW; they are points to sweep from, not optima.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from curator.errors import UsageError
from curator.validation import explain
from finetune.metrics import METRICS_OF

Task = Literal["segmentation", "depth", "detection"]
Head = Literal["auto", "linear", "upernet", "fpn"]

METRICS = {
    task: {metric.name: metric.higher_is_better for metric in METRICS_OF[task]}
    for task in get_args(Task)
}
"""Metrics of a task and whether more is better; the first is what learning rates are chosen by."""

PROBE_LR = 1e-2
FINETUNE_LR = 1e-3
"""Peak rate of the head; that of a layer of the backbone is smaller by `layer_decay` a step."""

SWEEP = (3.0, 1.0, 0.3)
"""What `sweep` multiplies the default rate with unless rates are given."""

MIN_BATCH = 2


class DenseOptions(BaseModel):
    """One cell. Frozen, unknown names are errors, values are checked when made.

    Attributes:
        head: "auto" is linear for a probe; else UperNet for a plain ViT and Semantic FPN for a
            conv net. Detection always has Mask R-CNN's heads, so only "auto" fits there.
        freeze: a probe: the backbone is frozen and in evaluation mode, and pictures are not
            augmented, so that features need computing only once.
        batch_size: pictures a step; two at least, the heads have batch norms.
        lr: peak rate; None is the default of the mode.
        layer_decay: the rate of a layer is this times the rate of the next deeper one.
        image_px: height and width that pictures are trained at, and seen at in "whole" inference.
        fraction: share of the training pictures, nested over shares of the same seed.
        scale: range of the random zoom in training; (1, 1) is none, the default of depth.
        inference: "whole" resizes the picture to `image_px`; "slide" keeps its shape and moves a
            window of `image_px` over it with a third of overlap.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Task
    head: Head = "auto"
    freeze: bool = False
    steps: int = Field(default=1000, ge=1)
    batch_size: int = Field(default=16, ge=MIN_BATCH)
    lr: float | None = Field(default=None, gt=0)
    layer_decay: float = Field(default=0.8, gt=0, le=1)
    weight_decay: float = Field(default=0.05, ge=0)
    image_px: tuple[int, int] = (512, 512)
    fraction: float = Field(default=1.0, gt=0, le=1)
    seed: int = Field(default=0, ge=0)
    scale: tuple[float, float] | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    inference: Literal["whole", "slide"] = "whole"

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if min(self.image_px) < 16:  # noqa: PLR2004 - below a patch there is nothing to see
            raise ValueError("image_px: height and width are 16 at least")
        if self.scale is not None and not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError("scale: two numbers above 0, the smaller one first")
        if self.task == "detection" and self.head != "auto":
            raise ValueError("head: detection has Mask R-CNN's own heads; leave it at auto")
        if self.inference == "slide" and (self.freeze or self.task == "detection"):
            raise ValueError("inference: probes and detection see whole pictures only")
        return self

    def settled(self) -> DenseOptions:
        """The same with the values that were left open."""
        scales = {"segmentation": (0.5, 2.0), "depth": (1.0, 1.0), "detection": (0.8, 1.25)}
        is_linear = self.freeze and self.task != "detection"
        default_lr = PROBE_LR if is_linear else FINETUNE_LR
        return self.model_copy(
            update={
                "lr": default_lr if self.lr is None else self.lr,
                "scale": scales[self.task] if self.scale is None else self.scale,
            }
        )

    @property
    def mode(self) -> str:
        """`probe` or `finetune`."""
        return "probe" if self.freeze else "finetune"


def parse_options(values: Mapping[str, Any]) -> DenseOptions:
    """Options from a file or a command line.

    Raises:
        UsageError: an unknown name or a value out of range; names it and what is allowed.
    """
    try:
        return DenseOptions(**values)
    except ValidationError as error:
        raise UsageError(explain(error, DenseOptions), reason="option.value") from error
