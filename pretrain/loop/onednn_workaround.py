"""Work around a bug in oneDNN, which computes convolutions on x86 CPUs.

For a strided 1x1 convolution with fewer than 16 channels, in fp32 and channels-last memory, oneDNN
writes the weight gradient past its buffer: the process dies, or the gradient is wrong (oneDNN issue
6035, open in 3.13, which torch 2.15 ships). The first layer of FastViT, MobileOne and MCi nets is
such a convolution. Subsampling the pixels first and convolving without a stride gives the same sum.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

_SAFE_CHANNELS = 16


def stride_first(module: nn.Module) -> None:
    """Make affected convolutions of `module` subsample first; weights and names do not change."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d) and _is_at_risk(conv):
            stride, conv.stride = conv.stride, (1, 1)
            conv.register_forward_pre_hook(_Every(stride))


class _Every:
    """Forward pre-hook that keeps every n-th row and column."""

    def __init__(self, stride: tuple[int, ...]) -> None:
        self._stride = stride

    def __call__(self, _conv: nn.Module, inputs: tuple[Any, ...]) -> Tensor:
        down, across = self._stride
        pixels: Tensor = inputs[0][:, :, ::down, ::across]
        return pixels


def _is_at_risk(conv: nn.Conv2d) -> bool:
    return (
        conv.kernel_size == (1, 1)
        and conv.stride != (1, 1)
        and conv.padding in ((0, 0), "valid")
        and conv.groups == 1
        and conv.in_channels < _SAFE_CHANNELS
    )
