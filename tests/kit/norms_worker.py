"""One of two processes with a share of a batch: torchrun -m tests.kit.norms_worker FOLDER.

Saves what a net with synchronised batch norms gives for its share.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from timm.layers import BatchNormAct2d
from torch import nn

from finetune.synced_norms import synchronise
from pretrain import distributed

SHARES = (slice(0, 1), slice(1, 4))
"""Places of the four images in each process: norms must not weigh processes alike."""


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), BatchNormAct2d(4), nn.BatchNorm2d(4, affine=False)
    )


def batch() -> torch.Tensor:
    """Features with a mean far from 0, where E[x^2] - E[x]^2 has no digits left."""
    return torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(1)) + 1000


def outcome(made: nn.Module, images: torch.Tensor, *, scale: float) -> dict[str, torch.Tensor]:
    """Outputs, gradients of the sum of cubes times `scale`, and running statistics."""
    outputs = made(images)
    torch.autograd.backward(outputs.pow(3).sum() * scale)
    parameters = list(made.parameters())
    distributed.average_gradients(parameters)
    grads = {name: one.grad for name, one in made.named_parameters() if one.grad is not None}
    buffers = dict(made.named_buffers())
    return {"outputs": outputs.detach(), **grads, **buffers}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with distributed.joined("cpu"):
        made = net()
        synchronise(made)
        images = batch()[SHARES[distributed.rank()]]
        # Gradients are averaged over processes, so their sum needs the factor.
        found = outcome(made, images, scale=distributed.size())
        torch.save(found, folder / f"{distributed.rank()}.pt")
        torch.distributed.barrier()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
