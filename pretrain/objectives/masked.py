"""Base of the masked-image objectives: masks do not depend on how a batch is divided."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch

from pretrain import distributed
from pretrain.data.loader import Batch
from pretrain.objectives import Autocast
from pretrain.objectives.images import Normalise


class Masked(torch.nn.Module, ABC):
    """Reconstructs the hidden parts of an image; see `pretrain.objectives`.

    Every process draws the noise for the masks of the global batch and takes its own part, so the
    masks are the same for any number of processes or parts.
    """

    num_units: int
    """Number of units of an image; each is hidden or visible as a whole."""

    def __init__(self, mean: Any, std: Any) -> None:
        super().__init__()
        self.normalise = Normalise(mean, std)

    @abstractmethod
    def loss_of(self, pixels: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return the mean loss over normalised images; units with the most `noise` are hidden."""

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Return `loss` alone."""
        noise = self._noise(len(batch.images))
        return {"loss": self.loss_of(self.normalise(batch.images), noise)}

    def backward_in_parts(
        self, batch: Batch, num_parts: int, autocast: Autocast
    ) -> dict[str, torch.Tensor]:
        """Add the gradients of the whole batch, with the activations of one part in memory."""
        noise = self._noise(len(batch.images))
        total = noise.new_zeros(())
        parts = zip(batch.images.chunk(num_parts), noise.chunk(num_parts), strict=True)
        for images, part_noise in parts:
            with autocast():
                loss = self.loss_of(self.normalise(images), part_noise)
            share = loss * (len(images) / len(batch.images))
            torch.autograd.backward(share)
            total += share.detach()
        return {"loss": total}

    def _noise(self, num_images: int) -> torch.Tensor:
        device = self.normalise.factor.device
        noise = torch.rand(distributed.size() * num_images, self.num_units, device=device)
        return noise[distributed.rank() * num_images :][:num_images]
