"""Sliding-window inference, for networks that work best at one size (plain ViTs).

As in MMSegmentation: the last window of a row or column ends at the border, and where windows
overlap their outputs (logits, not probabilities) are averaged. By default they overlap by a third,
which is its stride of 341 for windows of 512.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

_STEP = 2 / 3
_WINDOWS_AT_ONCE = 8


def starts(length: int, window: int, stride: int | None = None) -> list[int]:
    """Return where windows start along a side that is at least as long as a window."""
    step = stride or max(1, round(window * _STEP))
    return [*range(0, length - window, step), length - window]


def slide(
    output: Callable[[torch.Tensor], torch.Tensor],
    image_3HW: torch.Tensor,
    window: tuple[int, int],
    stride: tuple[int, int] | None = None,
) -> torch.Tensor:
    """Average `output`, (n, 3, h, w) -> (n, K, h, w), over all windows; returns (K, H, W)."""
    height, width = image_3HW.shape[-2:]
    down, right = stride or (None, None)
    tops, lefts = starts(height, window[0], down), starts(width, window[1], right)
    corners = [(top, left) for top in tops for left in lefts]
    total: torch.Tensor | None = None
    count = torch.zeros(height, width)
    for start in range(0, len(corners), _WINDOWS_AT_ONCE):
        chunk = corners[start : start + _WINDOWS_AT_ONCE]
        views = [image_3HW[:, y : y + window[0], x : x + window[1]] for y, x in chunk]
        for (y, x), seen in zip(chunk, output(torch.stack(views)), strict=True):
            if total is None:
                total = seen.new_zeros(seen.shape[0], height, width)
            total[:, y : y + window[0], x : x + window[1]] += seen
            count[y : y + window[0], x : x + window[1]] += 1
    assert total is not None, "there is one window at least"
    return total / count.to(total.device)
