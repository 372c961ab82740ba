"""SimMIM (Xie et al. 2022, arXiv 2111.09886): masked-image modelling for any tower.

Squares of the image are replaced by a learned colour, the tower sees the whole image, and a 1x1
convolution with a pixel shuffle predicts the pixels from its last feature map; the loss is L1 on
the hidden squares. As in the paper a square's side is an eighth to a sixth of the image's. Two
deviations from the paper: targets are normalised within a square, as in MAE, and the mask is
applied to pixels for every tower, so that convolutional towers can be trained as well.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from pretrain.objectives.masked import Masked
from pretrain.towers.init_weights import warm_start
from pretrain.towers.models import build_clip, is_plain_vit
from pretrain.towers.towers import save_tower

if TYPE_CHECKING:
    from pretrain.recipe import Recipe

_SQUARES = 8  # along a side, approximately


def square_px(image_px: int, patch: int) -> int:
    """Return the side of a square: a power of two near an eighth of the image, in whole patches."""
    near: int = 2 ** round(math.log2(image_px / _SQUARES))
    return math.ceil(near / patch) * patch


class SimMimObjective(Masked):
    """Predicts the pixels of hidden squares from the last feature map of a tower."""

    def __init__(self, recipe: Recipe) -> None:
        clip, image_px = build_clip(recipe), recipe.image_px
        super().__init__(clip.mean, clip.std)
        warm_start(clip.net.visual, recipe)
        self.clip = clip
        vision = clip.config["vision_cfg"]
        patch = int(vision.get("patch_size", 16)) if is_plain_vit(vision) else 1
        self.square = square_px(image_px, patch)
        self.side = math.ceil(image_px / self.square)
        self.num_units = self.side**2
        self.num_hidden = max(1, round(recipe.options["mask"] * self.num_units))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.net = _Rebuild(clip.net.visual, image_px)

    def loss_of(self, pixels: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return the mean absolute error over the hidden squares."""
        hidden = torch.zeros_like(noise).scatter_(1, noise.topk(self.num_hidden).indices, 1.0)
        grid = hidden.view(-1, 1, self.side, self.side)
        size = pixels.shape[-2:]
        mask = F.interpolate(grid, scale_factor=self.square)[..., : size[0], : size[1]]
        rebuilt = self.net(pixels, mask)
        error = (rebuilt.float() - self._targets(pixels)).abs() * mask
        loss: torch.Tensor = error.sum() / (mask.sum() * pixels.shape[1])
        return loss

    def _targets(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the pixels, normalised to mean 0 and standard deviation 1 in every square."""
        mean = self._squares(pixels.mean(1, keepdim=True))
        square_mean = self._squares((pixels**2).mean(1, keepdim=True))
        return (pixels - mean) / (square_mean - mean**2).clamp_min(1e-6).sqrt()

    def _squares(self, values: torch.Tensor) -> torch.Tensor:
        means = F.avg_pool2d(values, self.square, ceil_mode=True)
        height, width = values.shape[-2:]
        return F.interpolate(means, scale_factor=self.square)[..., :height, :width]

    def save(self, folder: Path) -> None:
        """Write the image tower only, as the text tower is untrained."""
        save_tower(folder, self.clip)


class _Rebuild(nn.Module):
    """Tower and decoder; `mask` `[B, 1, H, W]` is 1 where the learned colour goes."""

    def __init__(self, visual: Any, image_px: int) -> None:
        super().__init__()
        self.visual = visual
        self.colour = nn.Parameter(torch.zeros(1, 3, 1, 1))
        self.last = last_map(visual)
        was_training = visual.training
        visual.eval()  # the trial pass must not change batch normalisation's statistics
        with torch.no_grad():
            probe = self._map(torch.zeros(1, 3, image_px, image_px))
        visual.train(was_training)
        stride = image_px // probe.shape[-1]
        self.decode = nn.Sequential(
            nn.Conv2d(probe.shape[1], 3 * stride**2, 1), nn.PixelShuffle(stride)
        )

    def _map(self, pixels: torch.Tensor) -> torch.Tensor:
        seen = self.visual.forward_intermediates(
            pixels, indices=[self.last], intermediates_only=True
        )
        found: torch.Tensor = seen["image_intermediates"][-1]
        return found

    def forward(self, pixels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        seen = pixels * (1 - mask) + self.colour * mask
        rebuilt: torch.Tensor = self.decode(self._map(seen))
        return rebuilt[..., : pixels.shape[-2], : pixels.shape[-1]]


def last_map(visual: Any) -> int:
    """Return the number of the last feature map of an open_clip tower."""
    if hasattr(visual, "trunk"):
        return len(visual.trunk.feature_info) - 1
    if hasattr(visual, "transformer"):
        return int(visual.transformer.layers) - 1
    return 4  # a ResNet: the stem and four stages
