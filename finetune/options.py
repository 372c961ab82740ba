"""Options of one dense cell. Torch-free, because reports and studies read them too.

The protocol says what is trained and how it is scored (`finetune.protocols`): `finetune` trains
everything, all others freeze the backbone, which is cheap and repeatable. Values left at None
depend on the others; `settled()` fills them in, and the settled options are stored with a result.

Defaults follow published recipes with AdamW; they are starting points for a sweep, not optima:

* Finetuning: learning rate 1e-4 and weight decay 0.05, as MAE ViT-B and ConvNeXt (UPerNet on
  ADE20K,
  MMSegmentation `configs/mae`, `configs/convnext`). UPerNet with BEiT-B takes 3e-5 and with Swin
  6e-5; ViTDet takes 1e-4 (Mask R-CNN). So sweeps also try 3e-5, and 3e-4 and 1e-3 for heads trained
  for a thousand steps instead of 160,000.
* Probe `quick`: from 1e-3, as DINOv2's and DINOv3's linear segmentation over 40,000 steps, to
  1e-2 and more for a few hundred to a thousand steps. For depth they use 1e-4 and 3e-4, with other
  heads.
* Layer decay: see `finetune.tasks.base.layer_decay_of`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from curator.core.errors import UsageError, nearest
from curator.core.validation import explain
from finetune.protocols import PROTOCOLS, Protocol, printed_name, settings_digest
from finetune.tasks import TASKS, TaskSpec

Head = Literal["auto", "linear", "upernet", "fpn"]


def _in_the_table(task: str) -> str:
    if task not in TASKS.rows:
        raise ValueError(nearest(task, TASKS.rows))
    return task


def _a_protocol(name: str) -> str:
    if name not in PROTOCOLS:
        raise ValueError(nearest(name, PROTOCOLS))
    return name


ProtocolName = Annotated[str, AfterValidator(_a_protocol)]
"""A row of `finetune.protocols.PROTOCOLS`."""

TaskName = Annotated[str, AfterValidator(_in_the_table)]
"""A row of `finetune.tasks.TASKS`."""

PROBE_LR = 1e-2
FINETUNE_LR = 1e-4
HEADS_LR = 1e-3
"""Peak learning rate of the head: for a linear probe; for finetuning; and for Mask R-CNN's heads on
a frozen backbone, which start from scratch. Each layer of the backbone learns at `layer_decay`
times the rate of the next deeper one."""

PROBE_SWEEP = (1e-3, 3e-3, 1e-2, 3e-2)
FINETUNE_SWEEP = (3e-5, 1e-4, 3e-4, 1e-3)
HEADS_SWEEP = (1e-4, 3e-4, 1e-3, 3e-3)
"""Learning rates that `sweep` tries by default, for the same three cases."""

MIN_BATCH = 2

_OF_MAPS = ("stride_px", "short_side_px", "flip_averaging", "dropout")
"""Options of tasks that predict maps."""


class DenseOptions(BaseModel):
    """Options of one cell. Immutable; unknown names are errors, and values are checked on creation.

    Attributes:
        protocol: what is trained and how it is scored; `finetune.protocols` lists them.
        head: "auto" is linear on a frozen backbone; else UperNet for a plain ViT and Semantic FPN
            for a conv net. Detection always has Mask R-CNN's heads, so only "auto" fits there.
        batch_size: images per step; at least two, because the heads have batch norms.
        lr: peak learning rate; None is the default of the protocol.
        swept: the learning rates that `lr` was chosen from on validation images, if it was.
        layer_decay: learning rate of a block of a plain ViT, or a stage of a pyramid, relative to
            the next deeper one; None is the default of the architecture
            (`finetune.tasks.base.layer_decay_of`), 1 trains all layers at one rate. Not on a frozen
            backbone.
        image_px: height and width of images in training and in "whole" inference.
        fraction: fraction of the training images; for one seed, smaller fractions are subsets of
            larger ones.
        scale: range of the random zoom in training; (1, 1), the default of depth, is not a zoom.
        inference: "whole" resizes the image to `image_px`. The others keep its aspect ratio:
            "slide" moves a window of `image_px` over it; "keep" sees it at once, in detection as
            large as fits into `image_px`, padded below and on the right.
        stride_px: step of the window, (down, right); None is two thirds of it, 341 of 512.
        short_side_px: shorter side of the image in "slide" and "keep", and at zoom 1 of training;
            None is as small as covers `image_px`.
        flip_averaging: whether predictions are averaged over the image and its mirror image:
            probabilities in segmentation, metres in depth.
        eval_crop: "eigen" evaluates depth on the window of Eigen et al. only, rows 45 to 470 and
            columns 41 to 600 of labels of 480 x 640.
        depth_cap_m: readings of this many metres or more are not evaluated, and predictions are
            clamped to it; None is no cap besides the data set's own.
        drop_path: rate of drop path at the last block (`pretrain.towers.drop_path`); None is the
            default of the architecture (`finetune.tasks.base.drop_path_of`).
        dropout: rate at which channels are dropped before the classifier; None is the task's
            default: 0.1 for UPerNet and Semantic FPN in segmentation, else 0.
        aux_weight: weight of the loss of an auxiliary head (FCN) in segmentation; None is 0.4 for
            UPerNet, else 0.
        frozen_norms: whether the backbone's batch norms keep their statistics, scale and shift.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: TaskName
    protocol: ProtocolName = "finetune"
    head: Head = "auto"
    steps: int = Field(default=1000, ge=1)
    batch_size: int = Field(default=16, ge=MIN_BATCH)
    lr: float | None = Field(default=None, gt=0)
    swept: tuple[float, ...] = ()
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    weight_decay: float = Field(default=0.05, ge=0)
    image_px: tuple[int, int] = (512, 512)
    fraction: float = Field(default=1.0, gt=0, le=1)
    seed: int = Field(default=0, ge=0)
    scale: tuple[float, float] | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    inference: Literal["whole", "keep", "slide"] = "whole"
    stride_px: tuple[int, int] | None = None
    short_side_px: int | None = Field(default=None, ge=1)
    flip_averaging: bool = False
    eval_crop: Literal["none", "eigen"] = "none"
    depth_cap_m: float | None = Field(default=None, gt=0)
    drop_path: float | None = Field(default=None, ge=0, lt=1)
    dropout: float | None = Field(default=None, ge=0, lt=1)
    aux_weight: float | None = Field(default=None, ge=0)
    frozen_norms: bool = False

    @model_validator(mode="before")
    @classmethod
    def _of_the_protocol(cls, values: Any) -> Any:
        """Fill in the protocol's defaults, and refuse options that it has no use for."""
        name = values.get("protocol", "finetune") if isinstance(values, Mapping) else None
        if not isinstance(name, str) or name not in PROTOCOLS:
            return values
        for key in PROTOCOLS[name].unused:
            if values.get(key, cls.model_fields[key].default) != cls.model_fields[key].default:
                raise ValueError(f"{key}: the protocol {name} does not use it; leave it out")
        given = {key: value for key, value in values.items() if value is not None}
        return {**PROTOCOLS[name].defaults, **given}

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if min(self.image_px) < 16:  # noqa: PLR2004 - the size of a patch
            raise ValueError("image_px: height and width must be at least 16")
        if self.scale is not None and not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError("scale must be two numbers above 0, the smaller one first")
        if self.spec.has_own_head and self.head != "auto":
            raise ValueError(f"head: {self.task} has its own heads; leave it at auto")
        if self.inference == "slide" and self.spec.has_own_head:
            raise ValueError(f"inference: {self.task} has no sliding window; allowed: whole, keep")
        self._check_sizes()
        for name, spec in ((name, TASKS.spec(name)) for name in TASKS):
            for key in spec.own_options:
                if key not in self.spec.own_options and self._is_set(key):
                    raise ValueError(f"{key}: {self.task} does not use it, {name} does")
        if self.spec.has_own_head and (given := [key for key in _OF_MAPS if self._is_set(key)]):
            raise ValueError(f"{given[0]}: {self.task} does not use it; leave it out")
        allowed = self.protocol_spec.tasks
        if allowed and self.task not in allowed:
            fitting = [
                name for name, one in PROTOCOLS.items() if not one.tasks or self.task in one.tasks
            ]
            raise ValueError(
                f"protocol: {self.protocol} is for {' and '.join(allowed)}, not for {self.task}; "
                f"allowed: {', '.join(fitting)}"
            )
        return self

    def _is_set(self, key: str) -> bool:
        return bool(getattr(self, key) != type(self).model_fields[key].default)

    def _check_sizes(self) -> None:
        if self.stride_px is not None:
            if self.inference != "slide":
                raise ValueError("stride_px: only for inference slide")
            if not all(0 < a <= b for a, b in zip(self.stride_px, self.image_px, strict=True)):
                raise ValueError("stride_px: from 1 to image_px, or pixels would be left out")
        if self.short_side_px is not None:
            if self.inference == "whole":
                raise ValueError("short_side_px: only for inference slide or keep")
            if self.inference == "slide" and self.short_side_px < max(self.image_px):
                raise ValueError("short_side_px: at least both sides of image_px, the window")

    def size_at_zoom_1(self, height: int, width: int) -> tuple[float, float]:
        """Return the size that an image of (height, width) is scaled to, before it is rounded.

        In training this is the size at zoom 1.
        """
        if self.inference == "whole":
            return self.image_px
        ratios = (self.image_px[0] / height, self.image_px[1] / width)
        if self.spec.has_own_head:
            factor = min(ratios)
        elif self.short_side_px is None:
            factor = max(ratios)
        else:
            factor = self.short_side_px / min(height, width)
        return height * factor, width * factor

    @property
    def spec(self) -> TaskSpec:
        """The row of `TASKS` for the task."""
        return TASKS.spec(self.task)

    @property
    def protocol_spec(self) -> Protocol:
        """The row of `PROTOCOLS` for the protocol."""
        return PROTOCOLS[self.protocol]

    @property
    def freeze(self) -> bool:
        """Whether the backbone is frozen, in evaluation mode."""
        return self.protocol != "finetune"

    @property
    def keeps_features(self) -> bool:
        """Whether images are not augmented, so that a frozen backbone sees each of them once."""
        return self.freeze and not self.protocol_spec.augments

    @property
    def protocol_name(self) -> str:
        """The protocol as it is printed beside a number: "quick, 200 steps"."""
        return printed_name(self.protocol, self.settled().model_dump(mode="json"))

    @property
    def protocol_digest(self) -> str:
        """The digest of every setting that defines the protocol."""
        return settings_digest(self.protocol, self.task, self.settled().model_dump(mode="json"))

    def settled(self) -> DenseOptions:
        """Return the options with all open values filled in."""
        update: dict[str, Any] = {}
        if self.lr is None and "lr" not in self.protocol_spec.unused:
            update["lr"] = self._learning_rates[0]
        if self.scale is None and "scale" not in self.protocol_spec.unused:
            update["scale"] = self.spec.scale
        return self.model_copy(update=update)

    @property
    def swept_learning_rates(self) -> tuple[float, ...]:
        """Return the learning rates that `sweep` tries by default."""
        return self._learning_rates[1]

    @property
    def _learning_rates(self) -> tuple[float, tuple[float, ...]]:
        if not self.freeze:
            return FINETUNE_LR, FINETUNE_SWEEP
        if self.spec.has_own_head:
            return HEADS_LR, HEADS_SWEEP
        return PROBE_LR, PROBE_SWEEP


def parse_options(values: Mapping[str, Any]) -> DenseOptions:
    """Validate options from a file or a command line.

    Raises:
        UsageError: unknown name or value out of range; names it and the allowed values.
    """
    try:
        return DenseOptions(**values)
    except ValidationError as error:
        raise UsageError(explain(error, DenseOptions), reason="option.value") from error
