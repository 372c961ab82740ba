"""Load any pretrained image tower as a backbone with four feature maps.

    runs/clip-v2                     a run of `curator pretrain`, with any objective
    open_clip:ViT-B-16:TAG           an open_clip model by tag, or by a .safetensors FILE
    timm:convnext_tiny[:FILE]        a timm model, with its own weights or those in a file
    random:tiny-conv                 a tower with random weights; also random:runs/clip-v2
    models/my-clip                   a local open_clip folder

This is the only way from pretraining to finetuning. A convolutional or hierarchical tower (Swin,
MaxViT) is a pyramid: its maps have different strides. A plain ViT returns the outputs of four
layers spread over its depth, all at the stride of its patches.

Towers with position embeddings or windows are set to one image size when loaded, and take only
images of that size. The size need not be a multiple of the patch: for a plain ViT images are
resized to the nearest multiple, so that a map still covers the image edge to edge; for a pyramid
they are padded to the next multiple of the deepest stride, and the maps are cropped back
(`pretrain.towers.sizes`).

For layer-wise learning rate decay a plain ViT is divided into blocks, as MAE and BEiT are
finetuned, and a pyramid into its stem and stages, as ConvNeXt is: with decay per block, the first
layers of a net with many blocks (45 in MobileCLIP's MCi2) would hardly learn.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F
from transformers import ViTMAEModel

from curator.core.errors import UsageError
from pretrain.towers.layer_groups import by_block, by_block_of_timm, by_stage
from pretrain.towers.sizes import Fit, Size, fit, rounded_up, whole_patches
from pretrain.towers.towers import Tower, open_tower

NUM_MAPS = 4


class Backbone(nn.Module, ABC):
    """An image tower that returns four feature maps, shallow to deep.

    `channels` and `strides` have one entry per map. `mean` and `std` normalise its input images,
    RGB in [0, 1]. `image_px` is (height, width), or None if it takes any size.
    """

    name: str
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_px: Size | None = None

    @property
    def is_pyramid(self) -> bool:
        """Whether the maps have different strides."""
        return len(set(self.strides)) > 1

    @property
    def takes_one_size(self) -> bool:
        """Whether images must have the size that it was loaded for."""
        return not self.is_pyramid

    def check_size(self, images: torch.Tensor) -> Size:
        """Return (height, width) of images.

        Raises:
            UsageError: it takes one size only, and they have another.
        """
        size = (images.shape[-2], images.shape[-1])
        if self.image_px is not None and size != self.image_px:
            raise UsageError(
                f"{self.name} was loaded for images of {self.image_px} pixels, got {size}"
            )
        return size

    @abstractmethod
    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Normalised `[B, 3, H, W]` -> four maps `[B, channels, ~H / stride, ~W / stride]`."""

    @abstractmethod
    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Return all parameters, shallow to deep: stem and stages, or a plain ViT's embedding and
        blocks.
        """


def load_backbone(
    spec: str, *, image_px: Size, seed: int = 0, final_norm: bool = False
) -> Backbone:
    """Load the backbone that `spec` names, for images of `image_px` (height, width) pixels.

    The module lists the forms of `spec`; `seed` is used by `random:`. With `final_norm` the maps of
    a plain ViT go through its final layer norm, as in DINOv2's linear evaluation; a pyramid has
    none. The backbone is on the CPU, in training mode.

    Raises:
        UsageError: unknown form, model or weights.
        NotFoundError: the folder does not exist, or the hub does not have the weights.
        EngineError: the weights cannot be fetched, or belong to another model.
    """
    tower = open_tower(spec, image_px=image_px, seed=seed)
    return as_backbone(tower, image_px, final_norm=final_norm)


def as_backbone(tower: Tower, image_px: Size, *, final_norm: bool = False) -> Backbone:
    """Turn a tower in memory into a backbone, removing from it what the maps do not need.

    Raises:
        UsageError: feature maps cannot be taken from this kind of tower.
    """
    net = tower.net
    backbone: Backbone
    if isinstance(net, VisionTransformer):
        backbone = _OpenClipVit(net, final_norm=final_norm)
    elif isinstance(net, ModifiedResNet):
        backbone = _OpenClipResNet(net)
    elif isinstance(net, ViTMAEModel):
        backbone = _MaeVit(net, image_px, final_norm=final_norm)
    else:
        trunk: Any = net.trunk if isinstance(net, TimmModel) else net
        if not hasattr(trunk, "forward_intermediates"):
            raise UsageError(f"{tower.name}: {type(trunk).__name__} gives no feature maps")
        backbone = _Timm(trunk, fit(trunk, image_px, tower.name), final_norm=final_norm)
    backbone.name, backbone.mean, backbone.std = tower.name, tower.mean, tower.std
    backbone.image_px = image_px if backbone.takes_one_size else None
    return backbone


def spread(num_layers: int) -> list[int]:
    """Return four layers evenly spread over the depth, with the last; all if fewer than four."""
    return sorted({max(0, num_layers * (n + 1) // NUM_MAPS - 1) for n in range(NUM_MAPS)})


def _filled(maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return four maps; if a tower has fewer, the first one is repeated."""
    return [*[maps[0]] * (NUM_MAPS - len(maps)), *maps]


class _Plain(Backbone):
    """A plain ViT: one stride, one image size."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.channels, self.strides = (width,) * NUM_MAPS, (patch,) * NUM_MAPS

    def _fitted(self, images: torch.Tensor) -> torch.Tensor:
        size = self.check_size(images)
        whole = whole_patches(size, self.strides[0])
        if whole == size:
            return images
        return F.interpolate(images, whole, mode="bilinear", antialias=True)


class _OpenClipVit(_Plain):
    def __init__(self, net: Any, *, final_norm: bool) -> None:
        super().__init__(net.transformer.width, int(net.patch_size[0]))
        self.indices, self.final_norm = spread(net.transformer.layers), final_norm
        net.prune_intermediate_layers(self.indices, prune_norm=not final_norm, prune_head=True)
        net.attn_pool = None
        self.net = net

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        seen = self.net.forward_intermediates(
            self._fitted(images),
            indices=self.indices,
            normalize_intermediates=self.final_norm,
            intermediates_only=True,
        )
        return _filled(seen["image_intermediates"])

    def layer_groups(self) -> list[list[nn.Parameter]]:
        return by_block(self.net, self.net.transformer.resblocks)


class _MaeVit(_Plain):
    """The encoder of a transformers ViTMAE, without its masking."""

    def __init__(self, net: Any, image_px: Size, *, final_norm: bool) -> None:
        patch = int(net.config.patch_size)
        super().__init__(int(net.config.hidden_size), patch)
        self.indices = spread(len(net.layers))
        self.patches = net.embeddings.patch_embeddings.projection
        self.layers = net.layers
        self.norm = net.layernorm if final_norm else nn.Identity()
        self.first = net.embeddings.cls_token
        # Fixed in pretraining, trained from here on, as in MAE's finetuning.
        height, width = whole_patches(image_px, patch)
        tokens = net.embeddings.cls_token.new_empty(1, height * width // patch**2 + 1, 1)
        positions = net.embeddings.interpolate_pos_encoding(tokens.expand(-1, -1, self.channels[0]),
                                                            height, width)  # fmt: skip
        self.positions = nn.Parameter(positions.detach().clone())

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        grid = self.patches(self._fitted(images))
        patches = grid.flatten(2).mT + self.positions[:, 1:]
        first = (self.first + self.positions[:, :1]).expand(len(patches), -1, -1)
        tokens = torch.cat([first.to(patches.dtype), patches], 1)
        maps = []
        for number, layer in enumerate(self.layers):
            tokens = layer(tokens)
            if number in self.indices:
                maps.append(self.norm(tokens)[:, 1:].mT.reshape(grid.shape).contiguous())
        return _filled(maps)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        return by_block(self, self.layers)


class _OpenClipResNet(Backbone):
    def __init__(self, net: Any) -> None:
        super().__init__()
        width = net.conv3.out_channels
        self.channels = tuple(width * 4 * 2**stage for stage in range(NUM_MAPS))
        self.strides = (4, 8, 16, 32)
        net.attnpool = None
        self.net = net

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        # Request all four: open_clip stops after the last one requested.
        seen = self.net.forward_intermediates(images, indices=[1, 2, 3, 4], intermediates_only=True)
        maps: list[torch.Tensor] = seen["image_intermediates"]
        return maps

    def layer_groups(self) -> list[list[nn.Parameter]]:
        net = self.net
        layers = [net.layer1, net.layer2, net.layer3, net.layer4]
        return by_block(net, layers)


class _Timm(_Plain):
    """A timm model, alone or as the trunk of an open_clip tower: a pyramid or a plain ViT."""

    def __init__(self, trunk: Any, how: Fit, *, final_norm: bool) -> None:
        info = [(int(level["num_chs"]), int(level["reduction"])) for level in trunk.feature_info]
        super().__init__(*info[-1])
        self.is_fixed = how.is_fixed
        self.step = 1
        self.stages = [str(level["module"]) for level in trunk.feature_info]
        if len({stride for _, stride in info}) > 1:
            last = len(info)
            self.indices = list(range(max(0, last - NUM_MAPS), last))
            chosen = [info[index] for index in self.indices]
            chosen = [chosen[0]] * (NUM_MAPS - len(chosen)) + chosen
            self.channels, self.strides = (tuple(values) for values in zip(*chosen, strict=True))
            self.step = max(self.strides) if how.is_fixed else 1
        else:
            self.indices = spread(len(info))
        self.final_norm = final_norm and not self.is_pyramid
        trunk.prune_intermediate_layers(
            self.indices, prune_norm=not self.final_norm, prune_head=True
        )
        self.trunk = trunk

    @property
    def takes_one_size(self) -> bool:
        """See `Backbone`."""
        return self.is_fixed

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        if not self.is_pyramid:
            return _filled(self._maps(self._fitted(images)))
        size = self.check_size(images)
        around = rounded_up(size, self.step)
        maps = _filled(self._maps(_padded(images, around)))
        if around == size:
            return maps
        return [
            one[..., : -(-size[0] // stride), : -(-size[1] // stride)].contiguous()
            for one, stride in zip(maps, self.strides, strict=True)
        ]

    def _maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        maps: list[torch.Tensor] = self.trunk.forward_intermediates(
            images, indices=self.indices, norm=self.final_norm, intermediates_only=True
        )
        return maps

    def layer_groups(self) -> list[list[nn.Parameter]]:
        return (
            by_stage(self.trunk, self.stages) if self.is_pyramid else by_block_of_timm(self.trunk)
        )


def _padded(images: torch.Tensor, size: Size) -> torch.Tensor:
    """Pad images below and on the right with the mean colour (0 once normalised)."""
    below, right = size[0] - images.shape[-2], size[1] - images.shape[-1]
    return F.pad(images, (0, right, 0, below)) if below or right else images
