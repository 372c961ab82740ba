"""Count the FLOPs of a training step, once, on a real step.

`torch.utils.flop_counter` counts the weight gradient of a grouped convolution as that of a full
one: a depth-wise layer of 64 channels comes out at 66 times its forward pass instead of 3. The
formula here divides by the groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, conv_backward_flop

# torch's decorator adds `out_val`, which is missing from its type signature.
_FULL: Callable[..., int] = conv_backward_flop
_WEIGHT = 1  # place of the weight gradient in output_mask


def _conv_backward(*args: Any, out_shape: Any) -> int:
    shapes, (groups, wanted) = args[:-2], args[-2:]
    count = 0
    for place, is_wanted in enumerate(wanted[:2]):
        if is_wanted:
            only = [number == place for number in range(3)]
            part = int(_FULL(*shapes, groups, only, out_val=out_shape))
            count += part // groups if place == _WEIGHT else part
    return count


class Count:
    """Floating point operations of a `counted` block; 0 until it ends."""

    total = 0


@contextmanager
def counted() -> Iterator[Count]:
    """Count the multiplications and additions of the block, forward and backward.

    Compiled modules are counted too: the block runs them uncompiled.
    """
    count = Count()
    mapping = {torch.ops.aten.convolution_backward: _conv_backward}
    with (
        torch.compiler.set_stance("force_eager"),
        FlopCounterMode(display=False, custom_mapping=mapping) as counter,
    ):
        yield count
    count.total = int(counter.get_total_flops())
