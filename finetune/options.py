"""What one dense cell is trained and evaluated with. Torch-free: reports and studies read it too.

Two rungs (docs/design of the study): a *probe* (`freeze`) trains a linear head on frozen features,
which is cheap and repeatable; *finetuning* trains everything. Values left at None follow from the
others; `settled()` fills them in, and that is what is stored with a result.

Defaults lie where recipes with AdamW do; they are points to sweep from, not optima:

* Finetuning: rate 1e-4, weight decay 0.05 of MAE ViT-B and of ConvNeXt (UPerNet on ADE20K,
  MMSegmentation `configs/mae`, `configs/convnext`); BEiT-B 3e-5 (its UPerNet), Swin 6e-5 (its
  UPerNet), ViTDet 1e-4 (Mask R-CNN). So 3e-5 is swept as well, and 3e-4 and 1e-3 for heads that
  see a thousand steps, not 160,000.
* Probes: 1e-3 of DINOv2's and DINOv3's linear segmentation over 40,000 steps, to 1e-2 and more for
  a few hundred to a thousand; the rates of depth are 1e-4 and 3e-4 there, with other heads.
* Layer decay: see `finetune.tasks.base.layer_decay_of`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from curator.core.errors import UsageError, nearest
from curator.core.validation import explain
from finetune.tasks import TASKS, TaskSpec

Head = Literal["auto", "linear", "upernet", "fpn"]


def _in_the_table(task: str) -> str:
    if task not in TASKS.rows:
        raise ValueError(nearest(task, TASKS.rows))
    return task


TaskName = Annotated[str, AfterValidator(_in_the_table)]
"""A row of `finetune.tasks.TASKS`."""

PROBE_LR = 1e-2
FINETUNE_LR = 1e-4
HEADS_LR = 1e-3
"""Peak rate of the head: of a linear one, with a backbone that learns as well, and of Mask R-CNN's
heads alone, which start from nothing and can spoil nothing. A layer of the backbone learns at
`layer_decay` times the rate of the next deeper one."""

PROBE_SWEEP = (1e-3, 3e-3, 1e-2, 3e-2)
FINETUNE_SWEEP = (3e-5, 1e-4, 3e-4, 1e-3)
HEADS_SWEEP = (1e-4, 3e-4, 1e-3, 3e-3)
"""The rates that `sweep` tries unless some are given, for the same three cases."""

_UNUSED_LAYER_DECAY = 0.8
"""What probes have always been stored with. They have no use for one, and a study knows its cells
by what is stored."""

MIN_BATCH = 2


class DenseOptions(BaseModel):
    """One cell. Frozen, unknown names are errors, values are checked when made.

    Attributes:
        head: "auto" is linear for a probe; else UperNet for a plain ViT and Semantic FPN for a
            conv net. Detection always has Mask R-CNN's heads, so only "auto" fits there.
        freeze: a probe: the backbone is frozen and in evaluation mode, and images are not
            augmented, so that features need computing only once.
        batch_size: images a step; two at least, the heads have batch norms.
        lr: peak rate; None is the default of the mode.
        layer_decay: the rate of a block of a plain ViT, or of a stage of a pyramid, is this times
            the rate of the next deeper one; None is the default of the architecture
            (`finetune.tasks.base.layer_decay_of`), 1 trains all at one rate. A probe takes none.
        image_px: height and width that images are trained at, and seen at in "whole" inference.
        fraction: fraction of the training images, nested over shares of the same seed.
        scale: range of the random zoom in training; (1, 1) is none, the default of depth.
        inference: "whole" resizes the image to `image_px`; "slide" keeps its shape and moves a
            window of `image_px` over it with a third of overlap.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: TaskName
    head: Head = "auto"
    freeze: bool = False
    steps: int = Field(default=1000, ge=1)
    batch_size: int = Field(default=16, ge=MIN_BATCH)
    lr: float | None = Field(default=None, gt=0)
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    weight_decay: float = Field(default=0.05, ge=0)
    image_px: tuple[int, int] = (512, 512)
    fraction: float = Field(default=1.0, gt=0, le=1)
    seed: int = Field(default=0, ge=0)
    scale: tuple[float, float] | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    inference: Literal["whole", "slide"] = "whole"

    @model_validator(mode="before")
    @classmethod
    def _of_a_probe(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or not values.get("freeze"):
            return values
        if values.get("layer_decay") not in (None, _UNUSED_LAYER_DECAY):
            raise ValueError("layer_decay: a probe trains no layer of the backbone; leave it out")
        return {**values, "layer_decay": _UNUSED_LAYER_DECAY}

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if min(self.image_px) < 16:  # noqa: PLR2004 - below a patch there is nothing to see
            raise ValueError("image_px: height and width are 16 at least")
        if self.scale is not None and not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError("scale: two numbers above 0, the smaller one first")
        if self.spec.has_own_head and self.head != "auto":
            raise ValueError(f"head: {self.task} has heads of its own; leave it at auto")
        if self.inference == "slide" and (self.freeze or self.spec.has_own_head):
            who = f"{self.task} sees" if self.spec.has_own_head else "probes see"
            raise ValueError(f"inference: {who} whole images only")
        return self

    @property
    def spec(self) -> TaskSpec:
        """The row of its task."""
        return TASKS.spec(self.task)

    def settled(self) -> DenseOptions:
        """The same with the values that were left open."""
        return self.model_copy(
            update={
                "lr": self._learning_rates[0] if self.lr is None else self.lr,
                "scale": self.spec.scale if self.scale is None else self.scale,
            }
        )

    @property
    def swept_learning_rates(self) -> tuple[float, ...]:
        """What `sweep` tries unless rates are given."""
        return self._learning_rates[1]

    @property
    def _learning_rates(self) -> tuple[float, tuple[float, ...]]:
        if not self.freeze:
            return FINETUNE_LR, FINETUNE_SWEEP
        if self.spec.has_own_head:
            return HEADS_LR, HEADS_SWEEP
        return PROBE_LR, PROBE_SWEEP

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
