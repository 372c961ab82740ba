"""The order of samples: one endless sequence of epochs, in each of which every sample comes once.

Shards are permuted, neighbours in that order form windows of `window_samples` or more, and the
samples of a window are permuted. All of it follows from the counts of the shards, the seed and the
epoch: any position is found without reading a table, and no array is longer than the shards of a
dataset or the samples of a window.

The windows of an epoch are the unit of mixing: samples that lie `window_samples` apart in the
shards never meet in a batch, unless their shards are drawn together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pretrain.data.rng import Ints, shuffled

_SHARDS, _SAMPLES = 1, 2  # purposes of draws


@dataclass(frozen=True, slots=True)
class Window:
    """Shards that are mixed with each other. `start` is its first position in the epoch."""

    epoch: int
    number: int
    start: int
    shards: tuple[int, ...]
    num_samples: int


class SampleOrder:
    """The order for shards of `counts` samples each, of which one at least is not empty."""

    def __init__(self, counts: Sequence[int] | Ints, *, seed: int, window_samples: int) -> None:
        self._counts = np.asarray(counts, np.int64)
        self._first = np.concatenate([[0], np.cumsum(self._counts)])
        self._seed = seed
        self._window_samples = window_samples
        self.num_samples = int(self._first[-1])
        assert self.num_samples > 0, "an endless sequence of nothing"

    def windows(self, epoch: int) -> list[Window]:
        """The windows of one epoch, in order."""
        found: list[Window] = []
        start, shards, size = 0, list[int](), 0
        for shard in shuffled(len(self._counts), self._seed, _SHARDS, epoch).tolist():
            count = int(self._counts[shard])
            if count == 0:
                continue
            shards.append(shard)
            size += count
            if size >= self._window_samples or start + size == self.num_samples:
                found.append(Window(epoch, len(found), start, tuple(shards), size))
                start, shards, size = start + size, [], 0
        return found

    def rows(self, window: Window) -> Ints:
        """The permutation of a window: places in its shards' rows, laid end to end."""
        return shuffled(window.num_samples, self._seed, _SAMPLES, window.epoch, window.number)

    def numbers(self, window: Window) -> Ints:
        """The sample numbers of a window's rows: counted over all shards in their own order."""
        return np.concatenate(
            [np.arange(self._first[shard], self._first[shard + 1]) for shard in window.shards]
        )

    def from_position(self, position: int) -> Iterator[Window]:
        """The window that holds a position of the endless sequence, and all that follow."""
        epoch, within = divmod(position, self.num_samples)
        while True:
            for window in self.windows(epoch):
                if window.start + window.num_samples > within:
                    yield window
            epoch, within = epoch + 1, 0
