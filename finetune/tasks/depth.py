"""Monocular depth in metres: the scale-invariant log loss, and RMSE, AbsRel and delta1.

The network predicts log depth, standardised with the mean and standard deviation of all training
labels. Small heads learn that better than metres (design notes on the rendered world), and no
maximum depth must be known. Loss: sqrt(mean(d^2) - mean(d)^2 / 2) of the log differences d (Eigen
et al. 2014, as in GLPDepth and Depth Anything's metric heads), over the pixels with a reading.

Metrics follow the convention on NYUv2 (BTS, AdaBins, GLPDepth): each is computed per image over its
pixels with a reading, then averaged over images. RMSE is therefore a mean of per-image RMSEs,
somewhat below the RMSE over all pixels together, which is reported as `RMSE pooled`. Predictions
are clamped to the data set's own limits if it has some (NYUv2: 1 mm to 10 m), else to the range of
all its training labels, for any fraction of them: the exponential of a head that saw a handful of
images may be a million metres. Predictions are not scaled to the truth.

With `eval_crop` eigen and `depth_cap_m` 10, the pixels that count on NYUv2 are those of BTS,
AdaBins and DINOv2: rows 45 to 470, columns 41 to 600, readings below 10 m.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from curator.core.errors import UsageError
from curator.core.stopping import StopRequest
from finetune.feeding import DenseBatch, Kept
from finetune.images import coloured_depth, to_tensor
from finetune.labels import depth_range, log_depth_moments
from finetune.layouts import Array, Boxes, DenseSet, LabelledImage, Split
from finetune.tasks import Evaluation
from finetune.tasks.base import PixelTask
from pretrain.towers.backbone import Backbone

if TYPE_CHECKING:
    from finetune.options import DenseOptions

_DELTA = 1.25
_VARIANCE_SHARE = 0.5
_TINY = 1e-6
_LEAST_SPREAD = 1e-2

EIGEN_CROP = (slice(45, 471), slice(41, 601))
"""Rows and columns of a label of `NYU_SIZE`, ends excluded."""
NYU_SIZE = (480, 640)


class Depth(PixelTask):
    """Predicts one log depth per pixel."""

    log_mean: torch.Tensor
    log_spread: torch.Tensor
    log_range: torch.Tensor

    def __init__(
        self, backbone: Backbone, options: DenseOptions, data: DenseSet, train: Split
    ) -> None:
        super().__init__(backbone, options, 1)
        mean, spread = log_depth_moments(data, train)
        self.register_buffer("log_mean", torch.tensor(mean))
        self.register_buffer("log_spread", torch.tensor(max(spread, _LEAST_SPREAD)))
        nearest, farthest = depth_range(data)
        if options.depth_cap_m is not None:
            if options.depth_cap_m <= nearest:
                raise UsageError(
                    f"depth_cap_m is {options.depth_cap_m:g}, and the nearest depth {nearest:g} m",
                    hint="a larger cap",
                    reason="option.value",
                )
            farthest = min(farthest, options.depth_cap_m)
        self.register_buffer("log_range", torch.tensor((nearest, farthest)).log())

    def log_depth(self, output: torch.Tensor) -> torch.Tensor:
        """Convert the head's output to log metres."""
        return output * self.log_spread + self.log_mean

    def depth(self, output: torch.Tensor) -> torch.Tensor:
        """Convert the head's output to metres, clamped to the data set's range."""
        return self.log_depth(output).clamp(*self.log_range.tolist()).exp()

    def averaged(self, outputs_nKHW: torch.Tensor) -> torch.Tensor:
        """Return the output for the mean of the depths in metres, as AdaBins and DINOv2 average."""
        mean = self.depth(outputs_nKHW).mean(0)
        return (mean.log() - self.log_mean) / self.log_spread

    def counted(self, item: LabelledImage) -> Array:
        """Return (H, W) bool: the readings of a label that are evaluated.

        Raises:
            UsageError: the Eigen crop is for labels of another size.
        """
        truth = _truth(item)
        counts: Array = truth > 0
        if self.options.depth_cap_m is not None:
            counts &= truth < self.options.depth_cap_m
        if self.options.eval_crop == "eigen":
            if truth.shape != NYU_SIZE:
                height, width = truth.shape
                raise UsageError(
                    f"eval_crop is eigen, and the label of {item.name} has {height} x {width} px",
                    hint="it is for NYUv2, 480 x 640; leave it out",
                    reason="option.value",
                )
            inside = np.zeros(NYU_SIZE, bool)
            inside[EIGEN_CROP] = True
            counts &= inside
        return counts

    def losses(self, batch: DenseBatch) -> dict[str, torch.Tensor]:
        """Return the scale-invariant log loss over all readings of the batch."""
        found = self.log_depth(self.outputs(batch)[:, 0])
        target = torch.stack([_tensor(one) for one in batch.targets]).to(found.device)
        has_reading = target > 0
        count = has_reading.sum()
        if not count:  # no reading in the whole batch
            return {"loss": found.sum() * 0}
        difference = torch.where(has_reading, found - target.log(), 0.0)
        mean = difference.sum() / count
        variance = difference.square().sum() / count - _VARIANCE_SHARE * mean.square()
        return {"loss": (variance + _TINY).sqrt()}

    def evaluate(
        self, split: Split, *, kept: Sequence[Kept] | None, stop: StopRequest
    ) -> Evaluation:
        """Return RMSE, AbsRel and delta1, means over the images that have a reading."""
        per_image, squares, count = {}, 0.0, 0
        for item, output in self.predictions(split, kept, stop):
            truth = _truth(item)
            valid = self.counted(item)
            if not valid.any():
                continue
            found = self.depth(output[0]).double().cpu().numpy()
            per_image[item.name] = errors(found[valid], truth[valid])
            squares += per_image[item.name]["RMSE"] ** 2 * int(valid.sum())
            count += int(valid.sum())
        if not per_image:
            raise UsageError("no image to evaluate on has a depth reading", reason="dense.empty")
        means = {
            name: float(np.mean([own[name] for own in per_image.values()]))
            for name in ("RMSE", "AbsRel", "delta1")
        }
        return Evaluation(
            metrics=means | {"RMSE pooled": math.sqrt(squares / count)}, per_image=per_image
        )

    def example(self, item: LabelledImage) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the image, and truth and prediction on one colour scale; black: no reading."""
        split = Split((item.name,), lambda _: item)
        ((_, output),) = self.predictions(split, None, StopRequest())
        truth = _truth(item)
        found = self.depth(output[0]).cpu().numpy()
        farthest = float(truth.max()) or 1.0
        return (
            to_tensor(item.image),
            coloured_depth(truth, farthest),
            coloured_depth(found, farthest),
        )


def errors(found: Array, truth: Array) -> dict[str, float]:
    """Return the errors of one image's readings; both arrays are metres above 0."""
    ratio = np.maximum(found / truth, truth / found)
    return {
        "RMSE": float(np.sqrt(np.mean((found - truth) ** 2))),
        "AbsRel": float(np.mean(np.abs(found - truth) / truth)),
        "delta1": float(np.mean(ratio < _DELTA)),
    }


def _tensor(target: object) -> torch.Tensor:
    assert isinstance(target, torch.Tensor), "the target of depth is a map"
    return target


def _truth(item: LabelledImage) -> Array:
    assert not isinstance(item.target, Boxes), "the target of depth is a map"
    return item.target
