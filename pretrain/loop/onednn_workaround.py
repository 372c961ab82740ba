"""A way around a fault of oneDNN, which computes convolutions on x86 CPUs.

The gradient of the weights of a 1x1 convolution with a stride, of fewer than 16 channels, in fp32
and channels-last memory is written past its buffer: the process dies, or the gradient is wrong
(oneDNN issue 6035, open in 3.13; torch 2.15 has that). The first layer of FastViT, MobileOne and
MCi nets is one. Taking the pixels that the stride leaves first, and convolving them without a
stride, is the same sum.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

_SAFE_CHANNELS = 16


def stride_first(module: nn.Module) -> None:
    """Let such convolutions of `module` drop pixels first; weights and names stay as they are."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d) and _is_at_risk(conv):
            stride, conv.stride = conv.stride, (1, 1)
            conv.register_forward_pre_hook(_Every(stride))


class _Every:
    """A hook before a forward: every so many rows and columns."""

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
