"""Turn the single-stride maps of a plain ViT into the pyramid that dense heads expect.

The simple feature pyramid of ViTDet (Li et al. 2022, "Exploring plain vision transformer backbones
for object detection"): the last map only, scaled by 4, 2, 1 and 1/2 with transposed convolutions
and a max pooling, then a 1x1 and a 3x3 convolution, each with a layer norm over the channels.

Shapes: B images, C channels, h x w positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torchvision.models.convnext import LayerNorm2d

LEVELS = 4


class SimpleFeaturePyramid(nn.Module):
    """Maps at 1/4, 1/2, 1 and 2 times the stride of the last map of a ViT, `width` channels each.

    `channels` and `strides` describe the output maps, like those of a backbone.
    """

    def __init__(self, in_channels: int, stride: int, width: int) -> None:
        super().__init__()
        half, quarter = max(in_channels // 2, 1), max(in_channels // 4, 1)
        scales: list[tuple[nn.Module, int]] = [
            (
                nn.Sequential(
                    nn.ConvTranspose2d(in_channels, half, 2, stride=2),
                    LayerNorm2d(half),
                    nn.GELU(),
                    nn.ConvTranspose2d(half, quarter, 2, stride=2),
                ),
                quarter,
            ),
            (nn.ConvTranspose2d(in_channels, half, 2, stride=2), half),
            (nn.Identity(), in_channels),
            (nn.MaxPool2d(2, ceil_mode=True), in_channels),  # keeps a map of height 1
        ]
        self.levels = nn.ModuleList(
            nn.Sequential(
                scale,
                nn.Conv2d(channels, width, 1, bias=False),
                LayerNorm2d(width),
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                LayerNorm2d(width),
            )
            for scale, channels in scales
        )
        self.channels = (width,) * LEVELS
        self.strides = (max(stride // 4, 1), max(stride // 2, 1), stride, stride * 2)

    def forward(self, maps_BChw: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Maps of a ViT, of which only the last is used -> four maps, finest first."""
        return [level(maps_BChw[-1]) for level in self.levels]
