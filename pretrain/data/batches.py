"""Make a batch in a worker process: read bytes, decode pixels, draw texts, tokenize.

A `BatchPlan` lists the samples of a batch and where their bytes are; a `Loader` makes the batch.
Both are sent to worker processes, so this module imports no table library.
"""

from __future__ import annotations

import hashlib
import os
import signal
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from io import FileIO
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from curator.core.errors import CuratorError, DamageError, Unusable
from curator.core.images import DecodedImage
from curator.shards import cache
from curator.shards.places import Remote, from_text
from pretrain.data import pixels, texts
from pretrain.data.options import DataOptions
from pretrain.data.rng import Floats, Ints, uniforms

Tokenize = Callable[[list[str]], torch.Tensor]
"""Texts -> (N, L) int64; must be picklable if there are workers."""


@runtime_checkable
class Measuring(Protocol):
    """A `Tokenize` that also returns the uncut lengths of the texts."""

    def __call__(self, texts: list[str]) -> torch.Tensor:
        """The tokens."""
        ...

    def encoded(self, texts: list[str]) -> Any:
        """Return (tokens, lengths of the whole texts (N,) int64)."""
        ...


_CROP = 20  # purpose of draws
_MAX_OPEN_FILES = 128
KEEP_BYTES = 256 << 20
"""Memory for decoded images, over all worker processes of a rank."""


def _no_lengths() -> torch.Tensor:
    return torch.empty(0, dtype=torch.int64)


@dataclass(frozen=True, slots=True)
class Batch:
    """Images with their texts.

    `images` (B, 3, S, S) uint8 RGB, in channels-last memory; `tokens` (N, L) int64; `owners` (N,)
    int64 is the image (0 to B - 1) of each text, ascending; `samples` (B,) int64 are sample numbers
    of the source. With one caption per sample N is B and `owners` is 0 to B - 1; without text N is
    0. `lengths` (N,) int64 are the token counts of the whole texts, before they were cut at L;
    empty if the tokenizer does not return them.
    """

    images: torch.Tensor
    tokens: torch.Tensor
    owners: torch.Tensor
    samples: torch.Tensor
    lengths: torch.Tensor = field(default_factory=_no_lengths)

    def pin_memory(self) -> Batch:
        """Return the batch in pinned memory, for asynchronous copies; called by torch's loader."""
        return Batch(
            self.images.pin_memory(),
            self.tokens.pin_memory(),
            self.owners.pin_memory(),
            self.samples.pin_memory(),
            self.lengths,  # stays on the CPU
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """A batch to be made: one entry per sample, in order.

    The image is `lengths` bytes at `offsets` in the shard `paths[file_of]` (as `places.to_text`
    writes it). `sha256` is None for an image whose bytes are known to be the indexed ones.
    """

    epochs: Ints
    samples: Ints
    paths: list[str]
    file_of: list[int]
    offsets: list[int]
    lengths: list[int]
    sha256: list[str | None]
    keys: list[str]
    texts: list[list[str]]
    weights: list[list[float]]


class Loader:
    """Makes batches from plans: a map-style dataset for torch's loader.

    With `drawn` crops and texts are drawn at random; without, images are whole and each sample has
    its text of highest weight. If all `num_samples` decoded images fit into `keep_bytes`, they are
    kept: from the second epoch on they are only cropped and resized.
    """

    def __init__(
        self,
        options: DataOptions,
        tokenize: Tokenize | None,
        *,
        drawn: bool,
        num_samples: int,
        keep_bytes: int = KEEP_BYTES,
    ) -> None:
        self._options = options
        self._tokenize = tokenize
        self._drawn = drawn
        self._files: OrderedDict[str, FileIO] = OrderedDict()
        self._num_samples = num_samples
        self._keep_bytes = keep_bytes // max(1, options.num_workers)
        self._kept: dict[int, DecodedImage] = {}
        self._kept_bytes = 0

    def __getitem__(self, plan: BatchPlan) -> Batch | CuratorError:
        """Return the batch; an error is returned as a value, so that it keeps its type."""
        try:
            return self.make(plan)
        except CuratorError as error:
            return error

    def make(self, plan: BatchPlan) -> Batch:
        """Make the batch of a plan.

        Raises:
            DamageError: bytes are missing or differ from the indexed ones, or an image cannot be
                decoded; names shard and key.
        """
        num, side = len(plan.keys), self._options.image_px
        images_BHWC = torch.empty((num, side, side, 3), dtype=torch.uint8)
        view = images_BHWC.numpy()
        draws = self._crop_draws(plan)
        for place in range(num):
            view[place] = self._picture(plan, place, draws[:, place])
        chosen, owners = self._texts(plan)
        tokens, lengths = torch.zeros((0, 0), dtype=torch.int64), _no_lengths()
        if chosen and isinstance(self._tokenize, Measuring):
            tokens, lengths = self._tokenize.encoded(chosen)
        elif chosen and self._tokenize is not None:
            tokens = self._tokenize(chosen)
        return Batch(
            images_BHWC.permute(0, 3, 1, 2),
            tokens,
            torch.from_numpy(owners),
            torch.from_numpy(plan.samples),
            lengths,
        )

    def _crop_draws(self, plan: BatchPlan) -> Floats:
        numbers = np.arange(pixels.NUM_DRAWS)[:, None]
        return uniforms(self._options.seed, plan.epochs, plan.samples, _CROP, numbers)

    def _picture(self, plan: BatchPlan, place: int, draws: Floats) -> pixels.Pixels:
        def box_of(shape: float) -> pixels.Box:
            if not self._drawn:
                return pixels.middle_box(shape)
            return pixels.random_box(shape, draws, self._options.crop_scale_min)

        side, sample = self._options.image_px, int(plan.samples[place])
        decoded = self._kept.get(sample)
        if decoded is None or not pixels.serves(decoded, side, box_of):
            decoded = self._decoded(plan, place, box_of)
            self._keep(sample, decoded)
        return pixels.cut(decoded, side, box_of)

    def _decoded(
        self, plan: BatchPlan, place: int, box_of: Callable[[float], pixels.Box]
    ) -> DecodedImage:
        path = plan.paths[plan.file_of[place]]
        try:
            return pixels.decode(self._read(plan, place, path), self._options.image_px, box_of)
        except Unusable as problem:
            raise DamageError(
                f"the image of {plan.keys[place]!r} cannot be used "
                f"({problem.reason}: {problem.detail})",
                where=from_text(path),
                did="checkpoints are kept",
                hint="`curator score` decodes every image and finds all like it: score, decide and "
                "train on the new version",
                reason="pretrain.bad_image",
            ) from problem

    def _keep(self, sample: int, decoded: DecodedImage) -> None:
        """Keep a decoded image; if the source seems too large for the memory, keep none."""
        if not self._keep_bytes:
            return
        if (before := self._kept.get(sample)) is not None:
            self._kept_bytes -= _size_bytes(before)
        self._kept[sample] = decoded
        self._kept_bytes += _size_bytes(decoded)
        left = self._num_samples - len(self._kept)
        if self._kept_bytes + left * _size_bytes(decoded) > self._keep_bytes:
            self._kept, self._keep_bytes = {}, 0

    def _read(self, plan: BatchPlan, place: int, path: str) -> bytes:
        length = plan.lengths[place]
        if isinstance(of := from_text(path), Remote):
            data = cache.read(of, plan.offsets[place], length)
        else:
            data = os.pread(self._open(path).fileno(), length, plan.offsets[place])
        expected = plan.sha256[place]
        if len(data) != length:
            raise _changed(plan, place, f"{len(data)} of {length} bytes are left")
        if expected is not None and hashlib.sha256(data).hexdigest() != expected:
            raise _changed(plan, place, "its sha256 differs")
        return data

    def _open(self, path: str) -> FileIO:
        """Return an open shard; the most recently used ones stay open."""
        file = self._files.pop(path, None)
        if file is None:
            try:
                file = FileIO(path)
            except FileNotFoundError as error:
                raise DamageError("the shard is gone", where=path) from error
            if len(self._files) >= _MAX_OPEN_FILES:
                self._files.popitem(last=False)[1].close()
        self._files[path] = file
        return file

    def close(self) -> None:
        """Close all shards."""
        while self._files:
            self._files.popitem()[1].close()

    def __del__(self) -> None:  # nobody closes the loader when a worker ends
        self.close()

    def _texts(self, plan: BatchPlan) -> tuple[list[str], Ints]:
        if self._tokenize is None:
            return [], np.empty(0, np.int64)
        if not self._drawn:
            return texts.heaviest(plan.texts, plan.weights)
        options = self._options
        return texts.draw(
            plan.texts,
            plan.weights,
            most=1 if options.captions == "one" else options.max_captions,
            sentences=options.sentences,
            seed=options.seed,
            epochs=plan.epochs,
            samples=plan.samples,
        )


def _size_bytes(decoded: DecodedImage) -> int:
    return 4 * decoded.image.width * decoded.image.height  # Pillow keeps RGB in four bytes


def start_worker(_number: int) -> None:
    """Ignore Ctrl-C, which the parent handles: it ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _changed(plan: BatchPlan, place: int, how: str) -> DamageError:
    return DamageError(
        f"the image of {plan.keys[place]!r} is not the one that was indexed: {how}",
        where=from_text(plan.paths[plan.file_of[place]]),
        did="checkpoints are kept",
        hint="restore the shard from a backup, or index it and decide again",
        reason="source.changed",
    )
