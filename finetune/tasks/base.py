"""Code that all dense tasks share: the backbone, frozen or not, and layer-wise learning rates.

Shapes: B images, C channels, h x w positions, K output channels, H x W pixels of a label.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from curator.core.errors import UsageError
from curator.core.stopping import StopRequest
from finetune.augment import whole_image
from finetune.feeding import DenseBatch, Kept, stacked
from finetune.heads import DECODERS, UPERNET_WIDTH, FCNHead, LinearHead, head_width
from finetune.layouts import LabelledImage, Split
from finetune.necks import SimpleFeaturePyramid
from finetune.scaling import scaled
from finetune.sliding_window import slide
from pretrain.loop.loop import ParamGroup
from pretrain.towers.backbone import Backbone
from pretrain.towers.drop_path import set_drop_path

if TYPE_CHECKING:
    from finetune.options import DenseOptions

PYRAMID_LAYER_DECAY = 0.9
PLAIN_LAYER_DECAYS = ((12, 0.65), (24, 0.75))
DEEP_LAYER_DECAY = 0.9
"""(largest number of blocks, decay); see `layer_decay_of`."""

PLAIN_DROP_PATH = 0.1
"""MAE ViT-B and BEiT-B (UPerNet). Recipes of pyramids range from 0 (ResNet) over 0.3 (Swin-B) to
0.4 (ConvNeXt-T), so they have no default but 0."""


def layer_decay_of(*, is_pyramid: bool, num_groups: int) -> float:
    """Return the layer-wise learning rate decay that published recipes use for such a backbone.

    `num_groups` includes the stem or embedding. A pyramid is divided into stages: 0.9, ConvNeXt's
    "stage_wise" decay (UPerNet on ADE20K). A plain ViT is divided into blocks: 0.65 for up to 12
    (MAE ViT-B, UPerNet; BEiT-B), 0.75 for up to 24 (MAE and BEiT ViT-L), 0.9 for more (ViTDet
    ViT-H). The first layers then learn at 0.9^5 = 0.59, 0.65^13 = 0.0037, 0.75^25 = 0.00075 and
    0.9^33 = 0.031 of the head's rate.
    """
    if is_pyramid:
        return PYRAMID_LAYER_DECAY
    blocks = num_groups - 1
    fitting = (decay for at_most, decay in PLAIN_LAYER_DECAYS if blocks <= at_most)
    return next(fitting, DEEP_LAYER_DECAY)


class BackboneTask(nn.Module):
    """A backbone with heads. A frozen backbone stays in evaluation mode."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, backbone: Backbone, options: DenseOptions) -> None:
        super().__init__()
        self.backbone = backbone
        self.options = options.settled()
        self.register_buffer("mean", torch.tensor(backbone.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(backbone.std).view(3, 1, 1), persistent=False)
        self.drop_path = 0.0
        if options.freeze:
            backbone.requires_grad_(requires_grad=False)
            return
        asked = self.options.drop_path
        rate = (0.0 if backbone.is_pyramid else PLAIN_DROP_PATH) if asked is None else asked
        if rate and set_drop_path(backbone, rate):
            self.drop_path = rate
        elif asked:
            raise UsageError(
                f"drop_path is {asked:g}, and {backbone.name} has no residual blocks known here",
                hint="leave out drop_path, or set it to 0",
                reason="option.value",
            )
        if self.options.frozen_norms:
            if not self._norms():
                raise UsageError(
                    f"frozen_norms: {backbone.name} has no batch norm",
                    hint="leave it out",
                    reason="option.value",
                )
            for norm in self._norms():
                norm.requires_grad_(requires_grad=False)

    def _norms(self) -> list[_BatchNorm]:
        return [one for one in self.backbone.modules() if isinstance(one, _BatchNorm)]

    def train(self, mode: bool = True) -> BackboneTask:
        """Like nn.Module.train, but what is frozen stays in evaluation mode."""
        super().train(mode)
        if self.options.freeze:
            self.backbone.eval()
        elif self.options.frozen_norms:
            for norm in self._norms():
                norm.eval()
        return self

    def features(self, images_B3hw: torch.Tensor) -> Sequence[torch.Tensor]:
        """Return the backbone's maps of uint8 images of `image_px`; without gradients if frozen."""
        images = images_B3hw.to(self.mean.device, memory_format=torch.channels_last)
        normalised = (images.float().div(255) - self.mean) / self.std
        maps: Sequence[torch.Tensor]
        if not self.options.freeze:
            maps = self.backbone(normalised)
            return maps
        # Always in fp32, so that maps are the same whether they are kept or not.
        with torch.no_grad(), torch.autocast(self.mean.device.type, enabled=False):
            maps = self.backbone(normalised)
        return maps

    def maps_of(self, batch: DenseBatch) -> Sequence[torch.Tensor]:
        """Return the maps of a batch, computed or kept."""
        if batch.maps is not None:
            return [level.to(self.mean.device) for level in batch.maps]
        assert batch.images is not None, "a batch has images or maps"
        return self.features(batch.images)

    def groups(self) -> list[ParamGroup]:
        """Return parameter groups, with the heads at the full learning rate.

        Each block of a plain ViT, or stage of a pyramid, learns at `layer_decay` times the rate of
        the next deeper one.
        """
        own = {id(parameter) for parameter in self.backbone.parameters()}
        heads = [parameter for parameter in self.parameters() if id(parameter) not in own]
        groups = [ParamGroup(parameters=heads)]
        if self.options.freeze:
            return groups
        layers = self.backbone.layer_groups()
        decay = self.layer_decay
        assert decay is not None, "nothing is frozen"
        for depth, layer in enumerate(reversed(layers), start=1):
            groups.append(ParamGroup(parameters=layer, lr_scale=decay**depth))
        return groups

    @property
    def built(self) -> dict[str, float | str | None]:
        """The layer decay and the rate of drop path in use."""
        return {"layer_decay": self.layer_decay, "drop_path": self.drop_path}

    @property
    def layer_decay(self) -> float | None:
        """The decay in use: the option's, or the architecture's default; None if frozen."""
        if self.options.freeze:
            return None
        if self.options.layer_decay is not None:
            return self.options.layer_decay
        num_groups = len(self.backbone.layer_groups())
        return layer_decay_of(is_pyramid=self.backbone.is_pyramid, num_groups=num_groups)

    def size_of(self, item: LabelledImage) -> tuple[int, int]:
        """Return the size (height, width) that an image is resized to in evaluation."""
        height, width = self.options.size_at_zoom_1(*item.image.shape[:2])
        return max(1, int(height + 0.5)), max(1, int(width + 0.5))  # as MMSegmentation rounds

    def chunks(
        self, split: Split, kept: Sequence[Kept] | None, stop: StopRequest
    ) -> Iterator[tuple[list[LabelledImage], list[torch.Tensor]]]:
        """Yield the items of a split and their feature maps, one batch at a time."""
        size = self.options.batch_size
        for start in range(0, len(split), size):
            stop.check("the training is kept, the evaluation is done again")
            items = list(split[start : start + size])
            if kept is None:
                size_px = self.options.image_px
                images = [whole_image(item, self.size_of(item), size_px) for item in items]
                maps = list(self.features(torch.stack(images)))
            else:
                maps = [level.to(self.mean.device) for level in stacked(kept[start : start + size])]
            yield items, maps


class PixelTask(BackboneTask):
    """A task that predicts K numbers per pixel: backbone, a neck for a plain ViT, head."""

    def __init__(
        self,
        backbone: Backbone,
        options: DenseOptions,
        num_out: int,
        *,
        dropout: float = 0.0,
        aux_weight: float = 0.0,
    ) -> None:
        """`dropout` and `aux_weight` are the task's defaults, the latter for UPerNet only."""
        super().__init__(backbone, options)
        if options.inference == "keep" and backbone.image_px is not None:
            raise UsageError(
                f"inference is keep, and {backbone.name} takes images of one size only",
                hint="use inference slide or whole",
                reason="option.value",
            )
        name = options.head
        if name == "auto":
            full = "fpn" if backbone.is_pyramid else "upernet"
            name = "linear" if options.freeze else full  # type: ignore[assignment]  # one of them
        self.head_name = name
        channels: Sequence[int] = backbone.channels
        self.neck: nn.Module = nn.Identity()
        if name != "linear" and not backbone.is_pyramid:
            width = head_width(UPERNET_WIDTH, channels)
            neck = SimpleFeaturePyramid(channels[-1], backbone.strides[-1], width)
            self.neck, channels = neck, neck.channels
        is_linear = name == "linear"
        if is_linear and (options.dropout or options.aux_weight):
            raise UsageError(
                "head is linear, which has no dropout and no auxiliary head",
                hint="leave out dropout and aux_weight, or use the head upernet or fpn",
                reason="option.value",
            )
        given = options.dropout
        self.dropout = 0.0 if is_linear else dropout if given is None else given
        self.head: nn.Module = (
            LinearHead(channels, num_out)
            if is_linear
            else DECODERS[name](channels, num_out, self.dropout)
        )
        usual = aux_weight if name == "upernet" else 0.0
        self.aux_weight = usual if options.aux_weight is None else options.aux_weight
        self.aux_head = FCNHead(channels, num_out, self.dropout) if self.aux_weight else None

    @property
    def built(self) -> dict[str, float | str | None]:
        """Also the head, its dropout and the weight of the auxiliary loss."""
        of_head = {"head": self.head_name, "dropout": self.dropout, "aux_weight": self.aux_weight}
        return {**super().built, **of_head}

    def decoded(self, maps_BChw: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return (B, K, h, w) float32 of feature maps, at the finest map's size."""
        result: torch.Tensor = self.head(self.neck(maps_BChw))
        return result.float()

    def outputs(self, batch: DenseBatch) -> torch.Tensor:
        """Return (B, K, h, w) of a batch, at the size of its targets."""
        return scaled(self.decoded(self.maps_of(batch)), self.options.image_px)

    def outputs_and_aux(self, batch: DenseBatch) -> list[torch.Tensor]:
        """Return `outputs`, and behind them those of the auxiliary head if there is one."""
        if self.aux_head is None:
            return [self.outputs(batch)]
        maps, heads = self.neck(self.maps_of(batch)), (self.head, self.aux_head)
        return [scaled(head(maps).float(), self.options.image_px) for head in heads]

    def averaged(self, outputs_nKHW: torch.Tensor) -> torch.Tensor:
        """Return (K, H, W) of the outputs for an image and its mirror image."""
        return outputs_nKHW.mean(0)

    @torch.inference_mode()
    def predictions(
        self, split: Split, kept: Sequence[Kept] | None, stop: StopRequest
    ) -> Iterator[tuple[LabelledImage, torch.Tensor]]:
        """Yield every item with its (K, H, W) at the label's size. Needs evaluation mode."""
        self.eval()
        flips = self.options.flip_averaging
        if self.options.inference != "whole" or flips:
            for item in split:
                stop.check("the training is kept, the evaluation is done again")
                output = self._at_label_size(item)
                if flips:
                    mirrored = replace(item, image=item.image[:, ::-1])
                    views = [output, self._at_label_size(mirrored).flip(-1)]
                    output = self.averaged(torch.stack(views))
                yield item, output
            return
        for items, maps in self.chunks(split, kept, stop):
            for item, output in zip(items, self.decoded(maps), strict=True):
                yield item, scaled(output[None], item.image.shape[:2])[0]

    def _at_label_size(self, item: LabelledImage) -> torch.Tensor:
        """Return (K, H, W) of one image, seen at once or through windows."""
        options, size = self.options, self.size_of(item)
        if options.inference != "slide":
            output = self.decoded(self.features(whole_image(item, size)[None]))
            return scaled(output, item.image.shape[:2])[0]
        window = options.image_px
        # Rounding must not make the image smaller than the window.
        size = (max(window[0], size[0]), max(window[1], size[1]))

        def output_of(images: torch.Tensor) -> torch.Tensor:
            return scaled(self.decoded(self.features(images)), window)

        seen = slide(output_of, whole_image(item, size), window, options.stride_px)
        return scaled(seen[None], item.image.shape[:2])[0]
