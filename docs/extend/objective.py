"""Rotation prediction (Gidaris et al. 2018, arXiv 1803.07728) as an objective: no captions needed.

Every image is turned by a random multiple of 90 degrees, and the tower has to tell which.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from pretrain.data.batches import Batch
from pretrain.objectives.images import Normalise
from pretrain.recipe import Recipe
from pretrain.towers.init_weights import warm_start
from pretrain.towers.models import build_clip
from pretrain.towers.towers import save_tower


class Rotation(nn.Module):
    """The image tower of the recipe's model, and a linear layer on its output."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.clip = build_clip(recipe)  # its text tower stays as it is
        warm_start(self.clip.net.visual, recipe)
        self.tower = self.clip.net.visual
        self.normalise = Normalise(self.clip.mean, self.clip.std)
        with torch.random.fork_rng(devices=[]):  # the same seed gives the same head
            torch.manual_seed(recipe.seed)
            self.head = nn.Linear(self.clip.config["embed_dim"], recipe.options["turns"])

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Cross entropy of the turn of each image; `accuracy` is logged."""
        turns_B = torch.randint(self.head.out_features, (len(batch.images),))
        turned = [
            image.rot90(turn, (1, 2))
            for image, turn in zip(batch.images, turns_B.tolist(), strict=True)
        ]
        logits = self.head(self.tower(self.normalise(torch.stack(turned)))).float()
        turns_B = turns_B.to(logits.device)
        hits = logits.argmax(1) == turns_B
        return {"loss": cross_entropy(logits, turns_B), "accuracy": hits.float().mean()}

    def save(self, folder: Path) -> None:
        """The image tower alone, as `curator finetune` reads it."""
        save_tower(folder, self.clip)
