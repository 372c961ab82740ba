"""Semantic segmentation: cross entropy, and mIoU over all pixels of the split.

mIoU is computed from one confusion matrix of the whole split, as is the convention for ADE20K,
Cityscapes and CamVid (and in torchmetrics' `MulticlassJaccardIndex`; its `MeanIoU` averages over
images, which is a different number). The mean is over the classes that occur in the truth of the
split, so that it covers the same classes for every backbone. MMSegmentation and torchmetrics leave
out a class that occurs neither in truth nor in prediction, and count a class that is only predicted
as 0, so that one wrong pixel costs a whole class. Here it only lowers the IoU of the classes whose
pixels it takes. mAcc is the mean recall of pixels per class, over the classes that occur in the
truth. Pixels of `IGNORE` are not counted at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy
from torchmetrics.functional.classification import multiclass_confusion_matrix

from curator.core.errors import UsageError
from curator.core.stopping import StopRequest
from finetune.feeding import DenseBatch, Kept
from finetune.images import coloured_classes, to_tensor
from finetune.layouts import IGNORE, Boxes, DenseSet, LabelledImage, Split
from finetune.tasks import Evaluation
from finetune.tasks.base import PixelTask
from pretrain.towers.backbone import Backbone

if TYPE_CHECKING:
    from finetune.options import DenseOptions


class Segmentation(PixelTask):
    """Predicts one class per pixel.

    With `counts_absent` a class that is only predicted counts as 0 in the mean, as it does in
    MMSegmentation.
    """

    counts_absent = False

    def __init__(
        self, backbone: Backbone, options: DenseOptions, data: DenseSet, _train: Split
    ) -> None:
        super().__init__(backbone, options, len(data.classes), dropout=0.1, aux_weight=0.4)
        self.classes = data.classes

    def losses(self, batch: DenseBatch) -> dict[str, torch.Tensor]:
        """Return the cross entropy, the mean over the labelled pixels of the batch.

        That of the auxiliary head is added with its weight, and logged as `loss_aux` without it.
        """
        outputs = self.outputs_and_aux(batch)
        device = outputs[0].device
        target = torch.stack([_tensor(one) for one in batch.targets]).to(device).long()
        # A batch may have no labelled pixel at all; its mean would be NaN.
        count = (target != IGNORE).sum().clamp(min=1)
        loss, *of_aux = (
            cross_entropy(logits, target, ignore_index=IGNORE, reduction="sum") / count
            for logits in outputs
        )
        if not of_aux:
            return {"loss": loss}
        return {"loss": loss + self.aux_weight * of_aux[0], "loss_aux": of_aux[0]}

    def averaged(self, outputs_nKHW: torch.Tensor) -> torch.Tensor:
        """Return the log of the mean probabilities, as MMSegmentation averages views."""
        return outputs_nKHW.softmax(1).mean(0).log()

    def evaluate(
        self, split: Split, *, kept: Sequence[Kept] | None, stop: StopRequest
    ) -> Evaluation:
        """Return mIoU and mAcc of the split, mIoU of every image, IoU of every class."""
        num_classes = len(self.classes)
        total = torch.zeros(num_classes, num_classes, dtype=torch.long)
        per_image = {}
        for item, logits in self.predictions(split, kept, stop):
            matrix = multiclass_confusion_matrix(
                _classes(logits),
                _truth(item),
                num_classes,
                ignore_index=IGNORE,
                validate_args=False,  # validating takes longer than counting
            )
            total += matrix
            if matrix.sum():
                per_image[item.name] = {"mIoU": float(shares(matrix)[0].nanmean())}
        if not total.sum():
            raise UsageError("no image to evaluate on has a labelled pixel", reason="dense.empty")
        iou, found = shares(total)
        if not self.counts_absent:
            iou[total.sum(1) == 0] = math.nan
        by_class = dict(zip(self.classes, iou.tolist(), strict=True))
        return Evaluation(
            metrics={"mIoU": float(iou.nanmean()), "mAcc": float(found.nanmean())},
            per_image=per_image,
            per_class={name: share for name, share in by_class.items() if not math.isnan(share)},
        )

    def example(self, item: LabelledImage) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the image, and truth and prediction in the colours of their classes."""
        split = Split((item.name,), lambda _: item)
        ((_, logits),) = self.predictions(split, None, StopRequest())
        truth, found = _truth(item), _classes(logits)
        return to_tensor(item.image), coloured_classes(truth), coloured_classes(found)


def shares(matrix_KK: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return IoU and recall of each class, from counts by truth (rows) and prediction.

    IoU is NaN if a class occurs in neither, recall if it does not occur in the truth.
    """
    hits, of_truth = matrix_KK.diag().double(), matrix_KK.sum(1).double()
    return hits / (of_truth + matrix_KK.sum(0) - hits), hits / of_truth


def _classes(logits_KHW: torch.Tensor) -> torch.Tensor:
    """Return the class of each pixel, [H, W]; the first among equals, like the slower argmax."""
    return logits_KHW.max(0).indices.cpu()


def _tensor(target: object) -> torch.Tensor:
    assert isinstance(target, torch.Tensor), "the target of segmentation is a map"
    return target


def _truth(item: LabelledImage) -> torch.Tensor:
    assert not isinstance(item.target, Boxes), "the target of segmentation is a map"
    return torch.from_numpy(item.target).long()
