"""Code that all dense tasks share: the backbone, frozen or not, and layer-wise learning rates.

Shapes: B images, C channels, h x w positions, K output channels, H x W pixels of a label.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from curator.core.stopping import StopRequest
from finetune.augment import whole_image
from finetune.feeding import DenseBatch, Kept, stacked
from finetune.heads import HEADS, UPERNET_WIDTH, head_width
from finetune.layouts import LabelledImage, Split
from finetune.necks import SimpleFeaturePyramid
from finetune.scaling import scaled
from finetune.sliding_window import slide
from pretrain.loop.loop import ParamGroup
from pretrain.towers.backbone import Backbone

if TYPE_CHECKING:
    from finetune.options import DenseOptions

PYRAMID_LAYER_DECAY = 0.9
PLAIN_LAYER_DECAYS = ((12, 0.65), (24, 0.75))
DEEP_LAYER_DECAY = 0.9
"""(largest number of blocks, decay); see `layer_decay_of`."""


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
        if options.freeze:
            backbone.requires_grad_(requires_grad=False)

    def train(self, mode: bool = True) -> BackboneTask:
        """Like nn.Module.train, but a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.options.freeze:
            self.backbone.eval()
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
    def layer_decay(self) -> float | None:
        """The decay in use: the option's, or the architecture's default; None if frozen."""
        if self.options.freeze:
            return None
        if self.options.layer_decay is not None:
            return self.options.layer_decay
        num_groups = len(self.backbone.layer_groups())
        return layer_decay_of(is_pyramid=self.backbone.is_pyramid, num_groups=num_groups)

    def chunks(
        self, split: Split, kept: Sequence[Kept] | None, stop: StopRequest
    ) -> Iterator[tuple[list[LabelledImage], list[torch.Tensor]]]:
        """Yield the items of a split and their feature maps, one batch at a time."""
        size = self.options.batch_size
        for start in range(0, len(split), size):
            stop.check("the training is kept, the evaluation is done again")
            items = list(split[start : start + size])
            if kept is None:
                images = [whole_image(item, self.options.image_px) for item in items]
                maps = list(self.features(torch.stack(images)))
            else:
                maps = [level.to(self.mean.device) for level in stacked(kept[start : start + size])]
            yield items, maps


class PixelTask(BackboneTask):
    """A task that predicts K numbers per pixel: backbone, a neck for a plain ViT, head."""

    def __init__(self, backbone: Backbone, options: DenseOptions, num_out: int) -> None:
        super().__init__(backbone, options)
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
        self.head: Any = HEADS[name](channels, num_out)  # other protocols have other heads

    def decoded(self, maps_BChw: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return (B, K, h, w) float32 of feature maps, at the finest map's size."""
        result: torch.Tensor = self.head(self.neck(maps_BChw))
        return result.float()

    def outputs(self, batch: DenseBatch) -> torch.Tensor:
        """Return (B, K, h, w) of a batch, at the size of its targets."""
        return scaled(self.decoded(self.maps_of(batch)), self.options.image_px)

    @torch.inference_mode()
    def predictions(
        self, split: Split, kept: Sequence[Kept] | None, stop: StopRequest
    ) -> Iterator[tuple[LabelledImage, torch.Tensor]]:
        """Yield every item with its (K, H, W) at the label's size. Needs evaluation mode."""
        self.eval()
        if self.options.inference == "slide":
            for item in split:
                stop.check("the training is kept, the evaluation is done again")
                yield item, self._seen_through_windows(item)
            return
        for items, maps in self.chunks(split, kept, stop):
            for item, output in zip(items, self.decoded(maps), strict=True):
                yield item, scaled(output[None], item.image.shape[:2])[0]

    def _seen_through_windows(self, item: LabelledImage) -> torch.Tensor:
        window = self.options.image_px
        height, width = item.image.shape[:2]
        cover = max(window[0] / height, window[1] / width)
        # Rounded as MMSegmentation does.
        size = (
            max(window[0], int(height * cover + 0.5)),
            max(window[1], int(width * cover + 0.5)),
        )

        def output(images: torch.Tensor) -> torch.Tensor:
            return scaled(self.decoded(self.features(images)), window)

        return scaled(slide(output, whole_image(item, size), window)[None], (height, width))[0]
