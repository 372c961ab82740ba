"""An auxiliary loss for training: each cell of a feature map classifies its thing.

The classes are kind, color and material of the thing that covers the cell, or that none
does. With it the image part of a model needs a tenth of the steps that captions alone would take.
The linear layer is discarded after training.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from curator.demo.scene import COLORS, KINDS, MATERIALS
from pretrain.demo_models.images import GRID, SceneImages

_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "kind": KINDS,
    "color": tuple(COLORS),
    "material": MATERIALS,
}
_NONE = -1


class CellReader(nn.Module):
    """Reads each cell of a feature map with one linear layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self._sizes = [1, *(len(values) for values in _ATTRIBUTES.values())]
        self._reader = nn.Linear(width, sum(self._sizes))

    def forward(self, features_BCHW: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss. `targets` (B, cells, attributes) are rows of `cell_targets`."""
        parts = self._reader(features_BCHW.flatten(2).mT).float().split(self._sizes, -1)
        ruled = (targets[..., 0] != _NONE).float()
        loss = F.binary_cross_entropy_with_logits(parts[0].squeeze(-1), ruled)
        for number, part in enumerate(parts[1:]):
            wanted = targets[..., number].flatten()
            loss = loss + F.cross_entropy(part.flatten(0, 1), wanted, ignore_index=_NONE)
        return loss


def cell_targets(images: SceneImages) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the class of each cell (N, cells, attributes), -1 where no thing covers it."""
    targets = np.full((len(images.scenes), GRID * GRID, len(_ATTRIBUTES)), _NONE, np.int64)
    for n, (scene, cells) in enumerate(zip(images.scenes, images.cells, strict=True)):
        values = np.array(
            [
                [names.index(getattr(thing, name)) for name, names in _ATTRIBUTES.items()]
                for thing in scene.things
            ]
        )
        ruled = cells.ravel() > 0
        targets[n, ruled] = values[cells.ravel()[ruled].astype(np.int64) - 1]
    return targets
