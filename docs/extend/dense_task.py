"""Boundaries between classes as a dense task: where does one object end and the next begin?

One logit a pixel, trained with binary cross entropy. Boundaries are thin, so a pixel counts as
found within 2 pixels of a true one, and the other way round (the tolerance of boundary benchmarks,
e.g. Martin et al. 2004, where it is a fraction of the diagonal).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, max_pool2d

from curator.core.errors import UsageError
from curator.core.stopping import StopRequest
from finetune.feeding import DenseBatch, Kept
from finetune.images import to_tensor
from finetune.layouts import IGNORE, DenseSet, LabelledImage, Split
from finetune.options import DenseOptions
from finetune.tasks import Evaluation
from finetune.tasks.base import PixelTask
from pretrain.towers.backbone import Backbone

TOLERANCE_PX = 2


class Boundaries(PixelTask):
    """One logit a pixel: is it at a boundary?"""

    def __init__(
        self, backbone: Backbone, options: DenseOptions, _data: DenseSet, _train: Split
    ) -> None:
        super().__init__(backbone, options, 1)

    def losses(self, batch: DenseBatch) -> dict[str, torch.Tensor]:
        """Cross entropy, in which boundaries weigh as much as all that is none."""
        logits = self.outputs(batch)[:, 0]
        truth = torch.stack([boundary(one) for one in batch.targets]).to(logits.device)
        share = truth.float().mean().clamp(0.01, 0.99)
        weights = torch.where(truth, 0.5 / share, 0.5 / (1 - share))
        return {"loss": binary_cross_entropy_with_logits(logits, truth.float(), weights)}

    def evaluate(
        self, split: Split, *, kept: Sequence[Kept] | None, stop: StopRequest
    ) -> Evaluation:
        """The F1 of each image, and their mean over the images that have a boundary."""
        per_image = {}
        for item, logits in self.predictions(split, kept, stop):
            truth, found = boundary(torch.from_numpy(item.target)), (logits[0] > 0).cpu()
            if truth.any():
                per_image[item.name] = {"boundary F1": f1(found, truth)}
        if not per_image:
            raise UsageError("no image to evaluate on has a boundary", reason="dense.empty")
        mean = sum(own["boundary F1"] for own in per_image.values()) / len(per_image)
        return Evaluation(metrics={"boundary F1": mean}, per_image=per_image)

    def example(self, item: LabelledImage) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The image, and true and predicted boundaries in white."""
        split = Split((item.name,), lambda _: item)
        ((_, logits),) = self.predictions(split, None, StopRequest())
        both = (boundary(torch.from_numpy(item.target)), logits[0].cpu() > 0)
        truth, found = (one.byte().mul(255).expand(3, -1, -1) for one in both)
        return to_tensor(item.image), truth, found


def boundary(classes_HW: Any) -> torch.Tensor:
    """[H, W] bool: labelled pixels whose right or lower neighbour is of another labelled class."""
    found = torch.zeros(classes_HW.shape, dtype=torch.bool)
    known = classes_HW != IGNORE
    found[:, :-1] |= (classes_HW[:, 1:] != classes_HW[:, :-1]) & known[:, 1:] & known[:, :-1]
    found[:-1] |= (classes_HW[1:] != classes_HW[:-1]) & known[1:] & known[:-1]
    return found


def f1(found_HW: torch.Tensor, truth_HW: torch.Tensor) -> float:
    """2 P R / (P + R), with the tolerance above; 0 where nothing is found."""
    precision = (found_HW & near(truth_HW)).sum() / found_HW.sum().clamp(min=1)
    recall = (truth_HW & near(found_HW)).sum() / truth_HW.sum()
    return float(2 * precision * recall / (precision + recall).clamp(min=1e-9))


def near(mask_HW: torch.Tensor) -> torch.Tensor:
    """Every pixel within the tolerance of one of the mask."""
    side = 2 * TOLERANCE_PX + 1
    return max_pool2d(mask_HW[None].float(), side, stride=1, padding=TOLERANCE_PX)[0] > 0


def tiny(task: Any, *, right: bool) -> None:
    """For the contract tests: predict the truth, or nothing at all."""

    def predictions(split: Split, *_: object) -> Iterator[tuple[LabelledImage, torch.Tensor]]:
        for item in split:
            truth = boundary(torch.from_numpy(item.target)) & torch.tensor(right)
            yield item, truth[None].float() - 0.5

    task.predictions = predictions
