"""Batch norms over the images of all processes that train together.

With one or two large images per process, the statistics of a process's own images are too noisy for
UPerNet; MMSegmentation's configs have `SyncBN` everywhere. torch's `SyncBatchNorm` runs on GPUs
only. This one runs with any backend, so that two processes on CPUs can be compared with one: they
give the same outputs, gradients and running statistics.

The mean is reduced before the squares are summed, because E[x^2] - E[x]^2 loses all digits of
features whose mean is large.
"""

from __future__ import annotations

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm

from curator.core.errors import UsageError


def synchronise(net: nn.Module) -> None:
    """Make all batch norms of a net, in place, use the images of all processes in training.

    A norm that is in evaluation mode is not affected.

    Raises:
        UsageError: a batch norm of a kind whose forward pass is not known here.
    """
    for name, module in net.named_modules():
        if type(module) in _SYNCED:
            module.__class__ = _SYNCED[type(module)]
        elif isinstance(module, _BatchNorm) and type(module) not in _SYNCED.values():
            raise UsageError(
                f"a batch norm of the kind {type(module).__name__} cannot be synchronised over "
                f"processes ({name})",
                hint="train with one process",
                reason="option.value",
            )


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d over all processes."""

    def forward(self, features_BChw: torch.Tensor) -> torch.Tensor:
        """See nn.BatchNorm2d; every process must call it."""
        if not self.training:
            return super().forward(features_BChw)
        return _normalised(self, features_BChw)


class SyncedBatchNormAct2d(BatchNormAct2d):
    """timm's BatchNormAct2d over all processes."""

    def forward(self, features_BChw: torch.Tensor) -> torch.Tensor:
        """See BatchNormAct2d; every process must call it."""
        if not self.training:
            evaluated: torch.Tensor = super().forward(  # type: ignore[no-untyped-call]  # timm has no types
                features_BChw
            )
            return evaluated
        found: torch.Tensor = self.act(self.drop(_normalised(self, features_BChw)))
        return found


_SYNCED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm2d: SyncedBatchNorm2d,
    BatchNormAct2d: SyncedBatchNormAct2d,
}


def _normalised(norm: _BatchNorm, features_BChw: torch.Tensor) -> torch.Tensor:
    with torch.autocast(features_BChw.device.type, enabled=False):
        features = features_BChw.float()
        own = features.new_tensor([features.numel() / features.shape[1]])
        # Processes may have different numbers of pixels.
        sums = all_reduce(torch.cat([features.sum((0, 2, 3)), own]))  # type: ignore[no-untyped-call]  # no types
        count = sums[-1]
        mean = sums[:-1] / count
        centred = features - mean[:, None, None]
        squares = all_reduce(centred.square().sum((0, 2, 3)))  # type: ignore[no-untyped-call]  # no types
        variance = squares / count
        _remember(norm, mean.detach(), (squares / (count - 1).clamp(min=1)).detach())
        found = centred * (variance + norm.eps).rsqrt()[:, None, None]
        if norm.affine:
            found = found * norm.weight[:, None, None] + norm.bias[:, None, None]
        result: torch.Tensor = found.to(features_BChw.dtype)
    return result


def _remember(norm: _BatchNorm, mean_C: torch.Tensor, variance_C: torch.Tensor) -> None:
    """Update the running statistics, as torch does; the variance is the unbiased one."""
    if norm.running_mean is None or norm.running_var is None:
        return
    assert norm.num_batches_tracked is not None, "it has running statistics"
    norm.num_batches_tracked += 1
    share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean_C.to(norm.running_mean.dtype), share)
    norm.running_var.lerp_(variance_C.to(norm.running_var.dtype), share)
