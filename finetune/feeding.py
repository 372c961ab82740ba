"""Draw batches of labelled images, in an order that depends only on the seed and the step.

The images of a split are permuted epoch by epoch into one endless sequence. Step s takes positions
s*B to (s+1)*B of it, so a run can resume at any step without reading earlier ones, and a split of
one image still fills a batch. The randomness of a sample comes from (seed, position), not from a
global generator, so it does not depend on threads, resuming or other cells.

A frozen backbone always gives the same features for an image, so they are computed once and kept in
memory (`Features`) if they fit. A step of a probe then costs the head only, and further cells on
the same backbone (seeds, fractions, learning rates) skip the backbone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from curator.core.progress import bar
from curator.core.stopping import StopRequest
from finetune.augment import (
    AugmentedSample,
    Target,
    augmented,
    nyu_view,
    plain,
    short_side_view,
)
from finetune.layouts import LabelledImage, Split
from pretrain import distributed

if TYPE_CHECKING:
    from finetune.options import DenseOptions

LIMIT_BYTES = 2 << 30
_AHEAD = 2
_THREADS = 4
_CHUNK = 8


@dataclass(frozen=True, slots=True)
class DenseBatch:
    """Images (B, 3, h, w) uint8, or their feature maps, and B targets."""

    images: torch.Tensor | None
    maps: tuple[torch.Tensor, ...] | None
    targets: list[Target]

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True, slots=True)
class Kept:
    """The kept feature maps of an image, one (h, w, C) per level, and its target.

    Channels are last because the convolution that follows is a third faster that way.
    """

    maps: tuple[torch.Tensor, ...]
    target: Target

    @property
    def nbytes(self) -> int:
        """Return the memory it takes."""
        labels = (self.target,) if isinstance(self.target, torch.Tensor) else self.target.values()
        return sum(tensor.nbytes for tensor in (*self.maps, *labels))


_Key = tuple[int, str]
# Names are unique within a split only, so the `id` of the split's reader is part of the key.

Maps = Callable[[torch.Tensor], Sequence[torch.Tensor]]
"""(B, 3, h, w) uint8 -> feature maps, without gradients."""


class Features:
    """Feature maps of one frozen backbone at a time, at most `limit_bytes` of them."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._owner: object = None
        self._kept: dict[_Key, Kept] = {}
        self._readers: list[
            Callable[[str], LabelledImage]
        ] = []  # kept alive, so that no id is reused
        self._size_bytes = 0

    def of(
        self,
        owner: object,
        split: Split,
        image_px: tuple[int, int],
        maps: Maps,
        stop: StopRequest,
    ) -> list[Kept] | None:
        """Return the maps of all images of `split`, in its order; None if they would not fit.

        `owner` identifies backbone and image size; when it changes, all kept maps are dropped
        first.
        """
        if owner != self._owner:
            self._forget(owner)
        fits = self._fill(split, image_px, maps, stop)
        keys = [(id(split.read), name) for name in split.names]
        if not fits and self._kept.keys() - set(keys):
            self._forget(owner)  # make room by dropping the maps of other images
            fits = self._fill(split, image_px, maps, stop)
        return [self._kept[key] for key in keys] if fits else None

    def _forget(self, owner: object) -> None:
        self._owner, self._kept, self._readers, self._size_bytes = owner, {}, [], 0

    def _fill(self, split: Split, image_px: tuple[int, int], maps: Maps, stop: StopRequest) -> bool:
        reader = id(split.read)
        self._readers.append(split.read)
        missing = [name for name in split.names if (reader, name) not in self._kept]
        with bar("features", len(missing), "pictures") as advance:
            for start in range(0, len(missing), _CHUNK):
                stop.check("nothing of this cell has been written yet")
                chunk = Split(tuple(missing[start : start + _CHUNK]), split.read)
                made = _made(chunk, image_px, maps)
                size_bytes = sum(one.nbytes for one in made)
                if self._size_bytes + size_bytes // len(made) * (len(missing) - start) > (
                    self._limit_bytes
                ):
                    return False
                self._kept |= {
                    (reader, name): one for name, one in zip(chunk.names, made, strict=True)
                }
                self._size_bytes += size_bytes
                advance(len(chunk))
        return True


def _made(split: Split, image_px: tuple[int, int], maps: Maps) -> list[Kept]:
    samples = [plain(item, image_px) for item in split]
    levels = [level.cpu() for level in maps(torch.stack([one.image for one in samples]))]
    maps_BhwC = [level.permute(0, 2, 3, 1).contiguous() for level in levels]
    return [
        Kept(tuple(level[number].clone() for level in maps_BhwC), one.target)
        for number, one in enumerate(samples)
    ]


class Feed:
    """Draws the batches of a split; `kept` are its feature maps, for a probe."""

    def __init__(self, split: Split, options: DenseOptions, kept: list[Kept] | None) -> None:
        self._split = split
        self._options = options.settled()
        self._kept = kept

    def positions(self, step: int) -> list[tuple[int, int]]:
        """Return (position in the sequence, place in the split) of this process's samples."""
        share = self._options.batch_size // distributed.size()
        start = step * self._options.batch_size + distributed.rank() * share
        length = len(self._split)
        return [
            (position, int(self._order(position // length)[position % length]))
            for position in range(start, start + share)
        ]

    def _order(self, epoch: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.random.default_rng((self._options.seed, epoch)).permutation(len(self._split))

    def batches(self, start_step: int) -> Iterator[DenseBatch]:
        """Yield batches without end, from `start_step` on; a few threads read images ahead."""
        if self._kept is not None:
            step = start_step
            while True:
                kept = [self._kept[place] for _, place in self.positions(step)]
                yield DenseBatch(None, stacked(kept), [one.target for one in kept])
                step += 1
        # One torch thread each: on small images OpenMP's pool costs a hundred times more than it
        # saves.
        with ThreadPoolExecutor(
            _THREADS, initializer=torch.set_num_threads, initargs=(1,)
        ) as threads:
            ahead: deque[list[Future[AugmentedSample]]] = deque()
            step = start_step
            try:
                while True:
                    while len(ahead) <= _AHEAD:
                        wanted = self.positions(step)
                        ahead.append([threads.submit(self._sample, *one) for one in wanted])
                        step += 1
                    yield _collate([one.result() for one in ahead.popleft()])
            finally:
                threads.shutdown(cancel_futures=True)

    def _sample(self, position: int, place: int) -> AugmentedSample:
        options = self._options
        item = self._split[place]
        if options.keeps_features:
            return plain(item, options.image_px)
        rng = np.random.default_rng((options.seed, position, 1))
        if options.protocol == "dinov3-depth":
            return nyu_view(item, options.image_px, options.protocol_spec.constants, rng)
        assert options.scale is not None, "options are settled"
        if options.protocol in ("dinov2-linear", "dinov3-linear"):
            constants = options.protocol_spec.constants
            return short_side_view(item, options.image_px, options.scale, constants, rng)
        return augmented(
            item,
            options.image_px,
            scale=options.scale,
            base=options.size_at_zoom_1(*item.image.shape[:2]),
            at_corner=options.inference == "keep" and options.spec.has_own_head,
            rng=rng,
        )


def _collate(samples: Sequence[AugmentedSample]) -> DenseBatch:
    images = torch.stack([one.image for one in samples])
    return DenseBatch(images, None, [one.target for one in samples])


def stacked(kept: Sequence[Kept]) -> tuple[torch.Tensor, ...]:
    """Stack the maps of some images: one (B, C, h, w) per level, in channels-last memory."""
    levels = zip(*(one.maps for one in kept), strict=True)
    return tuple(torch.stack(level).permute(0, 3, 1, 2) for level in levels)
