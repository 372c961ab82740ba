"""Linear probes as DINOv2 and DINOv3 evaluate theirs: `dinov2-linear`, `dinov3-linear`,
`dinov3-depth`.

Every number of them is in `finetune.protocols`, with what is different here; augmentation is in
`finetune.augment`, schedules are in `pretrain.loop.options`. Sources:
`facebookresearch/dinov3@6876159` (`dinov3/eval/segmentation`, `dinov3/eval/depth`), and for DINOv2
the published configuration of its linear heads for MMSegmentation.

Images are augmented, so features cannot be kept and the backbone runs in every step: 40,000 steps
of 16 images of 512 pixels are a job for a GPU.

Shapes: B images, C channels, K classes or bins, h x w positions, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from curator.core.stopping import StopRequest
from finetune.augment import box_of, whole_image
from finetune.feeding import DenseBatch, Kept
from finetune.layouts import IGNORE, Array, Boxes, DenseSet, LabelledImage, Split
from finetune.scaling import scaled
from finetune.tasks import Evaluation
from finetune.tasks.depth import Depth
from finetune.tasks.segmentation import Segmentation
from pretrain.towers.backbone import Backbone

if TYPE_CHECKING:
    from finetune.options import DenseOptions


class LastMapHead(nn.Module):
    """Dropout of channels, batch norm with scale and shift, and a 1x1 convolution of the last map.

    The batch norm's statistics are over all processes (`finetune.synced_norms`).
    """

    def __init__(self, channels: int, num_out: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(dropout)
        self.norm = nn.BatchNorm2d(channels)
        self.linear = nn.Conv2d(channels, num_out, 1)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)  # type: ignore[arg-type]  # it has one

    def forward(self, maps_BChw: Sequence[torch.Tensor]) -> torch.Tensor:
        """Maps, of which only the last is used -> (B, K, h, w)."""
        result: torch.Tensor = self.linear(self.norm(self.dropout(maps_BChw[-1])))
        return result


class LinearSegmentation(Segmentation):
    """`dinov2-linear` and `dinov3-linear`."""

    counts_absent = True

    def __init__(
        self, backbone: Backbone, options: DenseOptions, data: DenseSet, train: Split
    ) -> None:
        super().__init__(backbone, options, data, train)
        dropout = options.protocol_spec.constants["dropout"]
        self.head = LastMapHead(backbone.channels[-1], len(data.classes), dropout)

    def losses(self, batch: DenseBatch) -> dict[str, torch.Tensor]:
        """Return the cross entropy, divided by all pixels: images with few labels count less."""
        logits = self.outputs(batch)
        target = torch.stack([_map(one) for one in batch.targets]).to(logits.device).long()
        total = cross_entropy(logits, target, ignore_index=IGNORE, reduction="sum")
        return {"loss": total / target.numel()}


class BinnedDepth(Depth):
    """`dinov3-depth`: the expectation over 256 bins of metres.

    `load_at` loads the same backbone for another image size; it is needed for one that takes images
    of one size only, because training crops and test images differ in size.
    """

    bins: torch.Tensor
    steps_seen: torch.Tensor
    load_at: Callable[[tuple[int, int]], Backbone] | None = None

    def __init__(
        self, backbone: Backbone, options: DenseOptions, data: DenseSet, train: Split
    ) -> None:
        super().__init__(backbone, options, data, train)
        self.constants: Mapping[str, Any] = options.protocol_spec.constants
        number, (nearest, farthest) = self.constants["bins"], self.constants["metres"]
        self.head = LastMapHead(backbone.channels[-1], number, 0.0)
        self.register_buffer("bins", torch.linspace(nearest, farthest, number), persistent=False)
        self.register_buffer("steps_seen", torch.zeros((), dtype=torch.long))  # kept by checkpoints
        self._at_size: dict[tuple[int, int], Backbone] = {}

    def decoded(self, maps_BChw: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return (B, 1, h, w) metres."""
        weights = self.head(maps_BChw).float().relu() + 0.1
        weights = weights / weights.sum(1, keepdim=True)
        return torch.einsum("bkhw,k->bhw", weights, self.bins)[:, None]

    def depth(self, output: torch.Tensor) -> torch.Tensor:
        """Clamp metres to the protocol's range."""
        return output.clamp(*self.constants["metres"])

    def losses(self, batch: DenseBatch) -> dict[str, torch.Tensor]:
        """Return the scale-invariant log loss over all readings of the batch."""
        found = self.outputs(batch)[:, 0]
        target = torch.stack([_map(one) for one in batch.targets]).to(found.device)
        has_reading = target > 0
        if self.training:
            self.steps_seen += 1
        if has_reading.sum() < 2:  # noqa: PLR2004 - a variance needs two
            return {"loss": found.sum() * 0}
        eps = self.constants["loss_eps"]
        difference = (found[has_reading] + eps).log() - (target[has_reading] + eps).log()
        square = self.constants["loss_mean"] * difference.mean().square()
        if self.steps_seen > self.constants["loss_warmup"]:
            square = square + difference.var()
        return {"loss": square.sqrt() if square > 0 else square.abs()}

    def evaluate(
        self, split: Split, *, kept: Sequence[Kept] | None, stop: StopRequest
    ) -> Evaluation:
        """As for depth, over the readings in range within Eigen's crop."""
        return super().evaluate(Split(split.names, _Cropped(split, self.constants)), kept=kept,
                                stop=stop)  # fmt: skip

    @torch.inference_mode()
    def predictions(
        self, split: Split, kept: Sequence[Kept] | None, stop: StopRequest
    ) -> Iterator[tuple[LabelledImage, torch.Tensor]]:
        """Yield every item with its (1, H, W) metres: the mean with that of its mirror image."""
        self.eval()
        for item in split:
            stop.check("the training is kept, the evaluation is done again")
            size = (item.image.shape[0], item.image.shape[1])
            image = whole_image(item, size)
            maps = self._features_at(torch.stack([image, image.flip(-1)]), size)
            found, mirrored = self.decoded(maps)
            yield item, scaled(((found + mirrored.flip(-1)) / 2)[None], size)[0]

    def _features_at(self, images: torch.Tensor, size: tuple[int, int]) -> Sequence[torch.Tensor]:
        own = self.backbone
        if own.image_px in (None, size):
            return self.features(images)
        if size not in self._at_size:
            assert self.load_at is not None, "a backbone of one size is loaded again for another"
            self._at_size = {size: self.load_at(size).to(self.mean.device).eval()}
        try:
            self.backbone = self._at_size[size]
            return self.features(images)
        finally:
            self.backbone = own


class _Cropped:
    """Reads items whose readings out of range or outside Eigen's crop are removed."""

    def __init__(self, split: Split, constants: Mapping[str, Any]) -> None:
        self._split, self._constants = split, constants

    def __call__(self, name: str) -> LabelledImage:
        item = self._split.read(name)
        assert not isinstance(item.target, Boxes), "the target of depth is a map"
        return replace(item, target=readings_that_count(item.target, self._constants))


def readings_that_count(metres: Array, constants: Mapping[str, Any]) -> Array:
    """Return (H, W) metres, 0 outside the range and outside Eigen's crop."""
    top, left, bottom, right = box_of(constants["eigen_crop"], metres.shape)
    nearest, farthest = constants["metres"]
    counts = np.zeros(metres.shape, bool)
    counts[top:bottom, left:right] = True
    counts &= (metres > nearest) & (metres < farthest)
    return np.where(counts, metres, np.float32(0))


def _map(target: object) -> torch.Tensor:
    assert isinstance(target, torch.Tensor), "the target is a map"
    return target


PUBLISHED: Mapping[str, type[LinearSegmentation | BinnedDepth]] = {
    "dinov2-linear": LinearSegmentation,
    "dinov3-linear": LinearSegmentation,
    "dinov3-depth": BinnedDepth,
}
"""Protocol -> the task's class under it."""
