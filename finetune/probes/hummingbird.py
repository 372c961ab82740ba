"""Segmentation by nearest neighbours among the patches of the training images; nothing is trained.

Balazevic et al. 2023, "Towards in-context scene understanding", as evaluated by
`vpariza/open-hummingbird-eval@5e79da2`, with exact instead of approximate neighbours: a patch gets
the mean of the class shares of its 30 nearest patches, weighted by the softmax of their cosine
similarity over 0.02; the maps are scaled to the image, and the largest wins. As there, pixels
without a label count as class 0 in the memory, and a memory that is too small for all patches takes
the same number from every image, rare classes first.

Cost: a product of all test patches with the memory: 102,400 patches of 768 channels are 315 MB, and
a few hundred test patches a second on one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn
from torch.nn.functional import one_hot

from curator.core.stopping import StopRequest
from finetune.augment import plain
from finetune.feeding import Kept
from finetune.layouts import IGNORE, LabelledImage, Split
from finetune.protocols import HUMMINGBIRD
from finetune.tasks.base import PixelTask

_QUERIES = 1024


class Memory(nn.Module):
    """A head that looks patches up: `keys_MC` of length 1, `labels_MK` class shares."""

    keys_MC: torch.Tensor
    labels_MK: torch.Tensor

    def __init__(self, keys_MC: torch.Tensor, labels_MK: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("keys_MC", keys_MC)
        self.register_buffer("labels_MK", labels_MK)

    def forward(self, maps_BChw: Sequence[torch.Tensor]) -> torch.Tensor:
        """Maps, of which only the last is used -> class shares (B, K, h, w)."""
        batch, _, height, width = maps_BChw[-1].shape
        queries = maps_BChw[-1].float().permute(0, 2, 3, 1).flatten(0, 2)
        queries = nn.functional.normalize(queries, dim=-1)
        number = min(HUMMINGBIRD["neighbours"], len(self.keys_MC))
        found = []
        for part in torch.split(queries, _QUERIES):
            nearest = (part @ self.keys_MC.T).topk(number, dim=1)
            weights = (nearest.values / HUMMINGBIRD["temperature"]).softmax(1)
            found.append((weights[..., None] * self.labels_MK[nearest.indices]).sum(1))
        shares = torch.cat(found).view(batch, height, width, -1)
        return shares.permute(0, 3, 1, 2)


def remember(task: PixelTask, train: Split, kept: Sequence[Kept] | None, stop: StopRequest) -> None:
    """Fill a memory with patches of the training images, and make it the task's head."""
    image_px = task.options.image_px
    num_classes = task.head.shares[0].out_channels
    generator = torch.Generator().manual_seed(task.options.seed)
    keys, labels = [], []
    for items, maps in task.chunks(train, kept, stop):
        size = (maps[-1].shape[-2], maps[-1].shape[-1])
        patches_BnC = maps[-1].float().flatten(2).mT
        at_most = max(1, HUMMINGBIRD["memory"] // len(train))
        for item, patches_nC in zip(items, patches_BnC, strict=True):
            target = plain(item, image_px).target
            assert isinstance(target, torch.Tensor), "the target of segmentation is a map"
            shares_nK = patch_labels(target, size, num_classes)
            chosen = torch.arange(len(shares_nK))
            if len(chosen) > at_most:
                chosen = drawn(shares_nK, at_most, generator)
            keys.append(nn.functional.normalize(patches_nC[chosen.to(patches_nC.device)], dim=-1))
            labels.append(shares_nK[chosen])
    device = task.mean.device
    task.head = Memory(torch.cat(keys).to(device), torch.cat(labels).to(device))


def patch_labels(target_HW: torch.Tensor, size: tuple[int, int], num_classes: int) -> torch.Tensor:
    """Return (h * w, K) class shares of the pixels of each patch; a pixel belongs to the patch that
    its centre is in, and one without a label counts as class 0.
    """
    known = torch.where(target_HW == IGNORE, 0, target_HW.long())
    rows, columns = (
        ((torch.arange(length) + 0.5) * patches / length).long()
        for length, patches in zip(known.shape, size, strict=True)
    )
    patch = (rows[:, None] * size[1] + columns).flatten()
    num_patches = size[0] * size[1]
    shares = torch.zeros(num_patches, num_classes)
    shares.index_add_(0, patch, one_hot(known.flatten(), num_classes).float())
    return shares / shares.sum(1, keepdim=True).clamp(min=1)


def drawn(shares_nK: torch.Tensor, number: int, generator: torch.Generator) -> torch.Tensor:
    """Return the places of `number` patches of an image, those of rare classes more likely.

    The score of a patch is the number of patches that its classes occur in, summed over its
    classes, times a uniform random number; the smallest are taken.
    """
    occurs = shares_nK > 0
    frequency_K = occurs.sum(0).float()
    score = occurs.float() @ frequency_K * torch.rand(len(shares_nK), generator=generator)
    return score.topk(number, largest=False).indices


def resized(split: Split, image_px: tuple[int, int]) -> Split:
    """Return the split with images and labels at one size, where the protocol scores them."""

    def read(name: str) -> LabelledImage:
        item = split.read(name)
        found = plain(item, image_px)
        assert isinstance(found.target, torch.Tensor), "the target of segmentation is a map"
        return replace(
            item, image=found.image.permute(1, 2, 0).numpy(), target=found.target.numpy()
        )

    return Split(split.names, read)
