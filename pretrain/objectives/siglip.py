"""SigLIP (Zhai et al. 2023, arXiv 2303.15343): a sigmoid for every pair, one caption an image."""

from __future__ import annotations

from typing import Any

import torch
from open_clip.loss import SigLipLoss

from pretrain import world
from pretrain.models import build_clip
from pretrain.objectives.clip import Contrastive
from pretrain.recipe import Recipe
from pretrain.warm import warm_start


def build(recipe: Recipe) -> Contrastive:
    """The objective of a recipe, on the CPU."""
    clip = build_clip(recipe)
    warm_start(clip.net.visual, recipe)
    return SigLipObjective(clip)


class SigLipObjective(Contrastive):
    """open_clip's `SigLipLoss`: the sum over all pairs, divided by the number of images."""

    def compare(
        self, images_BD: torch.Tensor, texts_ND: torch.Tensor, owners_N: torch.Tensor
    ) -> torch.Tensor:
        """See the class."""
        loss: Any = SigLipLoss(rank=world.rank(), world_size=world.size(), dist_impl="gather")
        scale = self.model.logit_scale.exp()
        value: torch.Tensor = loss(images_BD, texts_ND, scale, self.model.logit_bias)
        return value
