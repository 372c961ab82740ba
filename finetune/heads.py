"""Heads that turn feature maps into one map of K channels (class logits or log depth).

All take a list of maps, finest first, and return a map of the finest one's size; the caller scales
it up (bilinearly, as MMSegmentation does). Depth has the heads of segmentation with one channel, so
that the two tasks differ only in the loss.

* `LinearHead`, the probe: batch norm and one linear map on the features of all levels.
* `SemanticFPN` (Kirillov et al. 2019, "Panoptic feature pyramid networks"), for conv nets.
* `UPerHead`: transformers' UperNetHead (Xiao et al. 2018), for the pyramid of a plain ViT.
* `FCNHead`: the auxiliary head of UPerNet in training, on the third level; no part of the answer.

Dropout before the classifier drops whole channels, as MMSegmentation's decode heads do.

Widths follow the papers (256/128 and 512) and are smaller for narrow backbones, whose cost the head
would dwarf otherwise. Shapes: B images, C channels, K output channels, h x w positions.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn
from torchvision.ops import FeaturePyramidNetwork
from transformers.models.upernet.configuration_upernet import UperNetConfig
from transformers.models.upernet.modeling_upernet import UperNetFCNHead, UperNetHead

from finetune.scaling import scaled

FPN_WIDTH = 256
UPERNET_WIDTH = 512
FCN_WIDTH = 256
FCN_LEVEL = 2
"""The level of the auxiliary head, counted from the finest; `in_index` in MMSegmentation."""
_MAX_NORM_GROUPS = 32


def head_width(standard: int, channels: Sequence[int]) -> int:
    """Return the paper's width, or the widest map's if that is narrower, as a multiple of 16."""
    return min(standard, 16 * math.ceil(max(channels) / 16))


def _resized(map_BChw: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return scaled(map_BChw, like.shape[-2:])


class LinearHead(nn.Module):
    """Batch norm and a 1x1 convolution over all maps, scaled up to the finest and concatenated.

    The norm has no scale and shift, as in MAE's linear probe (He et al. 2022, A.1): the linear map
    after it has both.

    A 1x1 convolution and bilinear scaling commute, so each level goes through its part of the
    convolution before it is scaled: the same linear map for a fraction of the work. The only
    difference from concatenation is that batch statistics are those of the maps before scaling.
    """

    def __init__(self, channels: Sequence[int], num_out: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(width, affine=False) for width in channels)
        shares = [
            nn.Conv2d(width, num_out, 1, bias=level == 0) for level, width in enumerate(channels)
        ]
        for share in shares:
            nn.init.normal_(share.weight, std=0.01)
            if share.bias is not None:
                nn.init.zeros_(share.bias)
        self.shares = nn.ModuleList(shares)

    def forward(self, maps_BChw: Sequence[torch.Tensor]) -> torch.Tensor:
        """Maps, finest first -> (B, K, h, w) at the finest map's size."""
        parts = [
            share(norm(features))
            for share, norm, features in zip(self.shares, self.norms, maps_BChw, strict=True)
        ]
        total: torch.Tensor = parts[0]
        for part in parts[1:]:
            total = total + _resized(part, total)
        return total


class SemanticFPN(nn.Module):
    """A feature pyramid whose levels are scaled up to the finest size step by step and summed.

    Level i goes through i times (3x3 convolution, group norm, ReLU, scaling to the next finer
    level's size), the finest through one without scaling. The paper doubles the size each time;
    scaling to the size of the next map is equivalent and also fits odd sizes.
    """

    def __init__(self, channels: Sequence[int], num_out: int, dropout: float = 0.0) -> None:
        super().__init__()
        width = head_width(FPN_WIDTH, channels)
        branch = width // 2
        self.pyramid = FeaturePyramidNetwork(list(channels), width)
        groups = math.gcd(_MAX_NORM_GROUPS, branch)
        # One list: the step of level 0, the step of level 1, the two of level 2, ...
        num_steps = [max(level, 1) for level in range(len(channels))]
        self.steps = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width if step == 0 else branch, branch, 3, padding=1, bias=False),
                nn.GroupNorm(groups, branch),
                nn.ReLU(inplace=True),
            )
            for number in num_steps
            for step in range(number)
        )
        self.dropout = nn.Dropout2d(dropout)
        self.predict = nn.Conv2d(branch, num_out, 1)

    def forward(self, maps_BChw: Sequence[torch.Tensor]) -> torch.Tensor:
        """Maps, finest first -> (B, K, h, w) at the finest map's size."""
        named = OrderedDict((str(level), features) for level, features in enumerate(maps_BChw))
        levels = list(self.pyramid(named).values())
        steps = iter(self.steps)
        total = next(steps)(levels[0])
        for level in range(1, len(levels)):
            features = levels[level]
            for finer in reversed(levels[:level]):
                features = _resized(next(steps)(features), finer)
            total = total + features
        result: torch.Tensor = self.predict(self.dropout(total))
        return result


class UPerHead(nn.Module):
    """transformers' UperNetHead at `head_width`. Training needs batches of two or more."""

    def __init__(self, channels: Sequence[int], num_out: int, dropout: float = 0.0) -> None:
        super().__init__()
        config = UperNetConfig(hidden_size=head_width(UPERNET_WIDTH, channels))
        config.num_labels = num_out
        self.inner = UperNetHead(  # type: ignore[no-untyped-call]  # transformers has few types
            config, in_channels=list(channels)
        )
        classifier = nn.Sequential(nn.Dropout2d(dropout), self.inner.classifier)
        self.inner.classifier = classifier  # type: ignore[assignment]  # declared as a Conv2d

    def forward(self, maps_BChw: Sequence[torch.Tensor]) -> torch.Tensor:
        """Maps, finest first -> (B, K, h, w) at the finest map's size."""
        result: torch.Tensor = self.inner(list(maps_BChw))
        return result


class FCNHead(nn.Module):
    """transformers' UperNetFCNHead: a 3x3 convolution and a classifier on level `FCN_LEVEL`."""

    def __init__(self, channels: Sequence[int], num_out: int, dropout: float = 0.0) -> None:
        super().__init__()
        config = UperNetConfig(
            auxiliary_channels=head_width(FCN_WIDTH, channels),
            auxiliary_num_convs=1,
            auxiliary_concat_input=False,
        )
        config.num_labels = num_out
        self.inner = UperNetFCNHead(config, in_channels=list(channels), in_index=FCN_LEVEL)
        classifier = nn.Sequential(nn.Dropout2d(dropout), self.inner.classifier)
        self.inner.classifier = classifier  # type: ignore[assignment]  # declared as a Conv2d

    def forward(self, maps_BChw: Sequence[torch.Tensor]) -> torch.Tensor:
        """Maps, finest first -> (B, K, h, w) at the size of level `FCN_LEVEL`."""
        result: torch.Tensor = self.inner(list(maps_BChw))
        return result


DECODERS: dict[str, type[SemanticFPN | UPerHead]] = {"fpn": SemanticFPN, "upernet": UPerHead}
"""The heads besides the linear one."""
