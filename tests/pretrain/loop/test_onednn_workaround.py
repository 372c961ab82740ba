from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from pretrain.loop.onednn_workaround import stride_first


def gradients(conv: nn.Conv2d, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    made = conv(images)
    made.square().sum().backward()
    assert conv.weight.grad is not None
    return made.detach(), conv.weight.grad


@pytest.mark.parametrize("stride", [(2, 2), (3, 1), (1, 2)])
@pytest.mark.parametrize("side", [7, 8])
def test_dropping_pixels_first_is_the_same_convolution(stride: tuple[int, int], side: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, 1, stride)
    images = torch.randn(2, 3, side, side)  # this memory format is computed right
    expected = gradients(conv, images)
    conv.weight.grad = None
    stride_first(conv)
    stride_first(conv)
    assert conv.stride == (1, 1)
    for found, right in zip(gradients(conv, images), expected, strict=True):
        torch.testing.assert_close(found, right)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(16, 4, 1, 2),
        nn.Conv2d(3, 4, 3, 2),
        nn.Conv2d(3, 4, 1, 1),
        nn.Conv2d(3, 3, 1, 2, groups=3),
        nn.Conv2d(3, 4, 1, 2, padding=1),
    ],
)
def test_other_convolutions_stay_as_they_are(conv: nn.Conv2d) -> None:
    stride = conv.stride
    stride_first(conv)
    assert conv.stride == stride
    assert not conv._forward_pre_hooks


@pytest.mark.long
def test_an_mci_stem_trains_in_fp32_on_a_cpu() -> None:
    """In a process of its own: without the way around, the fault ends it or corrupts its memory."""
    program = """
        import torch
        from torch import nn
        from pretrain.loop.loop import train
        from pretrain.loop.options import LoopOptions

        class Stem(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv2d(3, 48, 1, 2, bias=False)

            def losses(self, images):
                return {"loss": self.conv(images).square().mean()}

        torch.manual_seed(0)
        images = torch.randn(8, 3, 128, 128).contiguous(memory_format=torch.channels_last)
        options = LoopOptions(total_steps=10, lr=1e-3, precision="fp32")
        train(Stem(), lambda step: iter([images] * 10), options, folder=None)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
