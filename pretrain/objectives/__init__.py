"""The objective port: the protocol, and the table of everything a backbone can be pretrained on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

import torch

from curator.core.registry import Registry, Spec

Autocast = Callable[[], AbstractContextManager[Any]]


class Objective(Protocol):
    """What the one loop minimises; also a `torch.nn.Module`, whose children are what is compiled.

    Randomness comes from torch's default generator, which the loop seeds with (seed, step).
    """

    def losses(self, batch: Any) -> dict[str, torch.Tensor]:
        """`loss` is minimised, the others are logged; all are scalars, means over the batch.

        Called under autocast, in every process with its part of the global batch. The objective
        moves the batch to its device.
        """
        ...


@runtime_checkable
class Accumulating(Protocol):
    """An objective that can take a batch in parts and leave the gradients of the whole."""

    def backward_in_parts(
        self, batch: Any, num_parts: int, autocast: Autocast
    ) -> dict[str, torch.Tensor]:
        """Add the gradients of `losses(batch)` to the parameters, and return its values."""
        ...


# A builder: (recipe, seed) -> the objective, on the CPU, with random or warm weights.
OBJECTIVES = Registry(
    "objective",
    {
        "clip": Spec("pretrain.objectives.clip:build"),
        "siglip": Spec("pretrain.objectives.siglip:build"),
        "mae": Spec("pretrain.objectives.mae:build"),
        "simmim": Spec("pretrain.objectives.simmim:build"),
    },
)
