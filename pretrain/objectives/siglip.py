"""SigLIP (Zhai et al. 2023, arXiv 2303.15343): a sigmoid for each pair, one caption per image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from open_clip.loss import SigLipLoss

from pretrain import distributed
from pretrain.objectives.clip import Contrastive

if TYPE_CHECKING:
    from pretrain.recipe import Recipe

# Initial values (section 3.2 of the paper): a temperature of 10, and a bias at which every pair is
# predicted as a mismatch.
_START = {"init_logit_scale": math.log(10), "init_logit_bias": -10.0}


class SigLipObjective(Contrastive):
    """open_clip's `SigLipLoss`: the sum over all pairs, divided by the number of images."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe, **_START)

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
