"""SigLIP (Zhai et al. 2023, arXiv 2303.15343): a sigmoid for every pair, one caption an image."""

from __future__ import annotations

from typing import Any

import torch
from open_clip.loss import SigLipLoss

from pretrain import distributed
from pretrain.objectives.clip import Contrastive
from pretrain.recipe import Recipe
from pretrain.towers.init_weights import warm_start
from pretrain.towers.models import build_clip


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
        loss: Any = SigLipLoss(
            rank=distributed.rank(), world_size=distributed.size(), dist_impl="gather"
        )
        scale = self.model.logit_scale.exp()
        value: torch.Tensor = loss(images_BD, texts_ND, scale, self.model.logit_bias)
        return value
