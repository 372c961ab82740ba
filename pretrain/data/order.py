"""The order of samples: an endless sequence of epochs, each with every sample once.

Shards are permuted, neighbours in that order form windows of `window_samples` or more, and the
samples of a window are permuted. The order depends only on the shards' sample counts, the seed and
the epoch: any position is found without reading a table, and no array is longer than the number of
shards or of samples in a window.

Mixing happens within windows: samples of different shards are mixed only if their shards are
drawn into the same window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pretrain.data.rng import Ints, shuffled

_SHARDS, _SAMPLES = 1, 2  # purposes of draws


@dataclass(frozen=True, slots=True)
class Window:
    """Shards that are mixed with each other, and the first position (`start`) in the epoch."""

    epoch: int
    number: int
    start: int
    shards: tuple[int, ...]
    num_samples: int


class SampleOrder:
    """The order for shards of `counts` samples each; at least one must not be empty."""

    def __init__(self, counts: Sequence[int] | Ints, *, seed: int, window_samples: int) -> None:
        self._counts = np.asarray(counts, np.int64)
        self._first = np.concatenate([[0], np.cumsum(self._counts)])
        self._seed = seed
        self._window_samples = window_samples
        self.num_samples = int(self._first[-1])
        assert self.num_samples > 0, "an endless sequence of nothing"

    def windows(self, epoch: int) -> list[Window]:
        """Return the windows of one epoch, in order."""
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
        """Return a window's permutation: places in the concatenated rows of its shards."""
        return shuffled(window.num_samples, self._seed, _SAMPLES, window.epoch, window.number)

    def numbers(self, window: Window) -> Ints:
        """Return the sample numbers of a window's rows, counted over shards in dataset order."""
        return np.concatenate(
            [np.arange(self._first[shard], self._first[shard + 1]) for shard in window.shards]
        )

    def from_position(self, position: int) -> Iterator[Window]:
        """Yield the window that holds a position of the endless sequence, and all that follow."""
        epoch, within = divmod(position, self.num_samples)
        while True:
            for window in self.windows(epoch):
                if window.start + window.num_samples > within:
                    yield window
            epoch, within = epoch + 1, 0
