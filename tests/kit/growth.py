"""How work grows with its input: a test of speed that every machine answers alike, busy or not."""

from __future__ import annotations

import time
from collections.abc import Callable

_TIMES = 4
_ALLOWED = 2 * _TIMES  # linear work takes 4 times as long, quadratic work 16 times
_GRAIN_SEC = 0.05  # below it, the clock and the caches are what is measured


def assert_linear(work: Callable[[int], object], size: int) -> None:
    """Fail if `work(size)` takes more than twice its share of four times `work(size // 4)`.

    The clock is this thread's own: it stands still while other processes have the core.
    """
    quarter, whole = (_cpu_sec(work, count) for count in (size // _TIMES, size))
    assert whole < _ALLOWED * max(quarter, _GRAIN_SEC), (quarter, whole)


def _cpu_sec(work: Callable[[int], object], count: int) -> float:
    best = float("inf")
    for _ in range(3):
        began = time.thread_time()
        work(count)
        best = min(best, time.thread_time() - began)
    return best
