"""Options for drawing batches from a source. Torch-free, because recipes create them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from curator.core.errors import UsageError

Captions = Literal["one", "all"]
Control = Literal[
    "shuffled", "length-matched", "count-matched", "captions-only", "filter-only", "alt-only"
]
"""The control arms; `pretrain.data.controls` describes them."""

NEED_REFERENCE = ("length-matched", "count-matched")
"""The controls that match another version, the reference."""


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Options for drawing batches from a source.

    `batch_size` is global, over all ranks. `captions`: "one" drawn by weight, or "all" (up to
    `max_captions`, drawn by weight without replacement). `sentences` is the probability that a
    text is replaced by one of its sentences. `crop_scale_min` is the smallest fraction of an
    image's area that a crop covers. `window_samples` samples are mixed with each other; their table
    rows are held in memory (some 500 bytes each, twice). `num_workers` processes per rank decode;
    with 0 the training process does.

    Raises:
        UsageError: a field is out of range; names it.
    """

    image_px: int
    batch_size: int
    captions: Captions = "one"
    max_captions: int = 4
    sentences: float = 0.0
    crop_scale_min: float = 0.9
    seed: int = 0
    num_workers: int = 0
    window_samples: int = 1 << 16

    def __post_init__(self) -> None:
        _require("captions", self.captions, self.captions in get_args(Captions), "one, all")
        _require("sentences", self.sentences, 0 <= self.sentences <= 1, "0 to 1")
        scale = self.crop_scale_min
        _require("crop_scale_min", scale, 0 < scale <= 1, "above 0, up to 1")
        _require("num_workers", self.num_workers, self.num_workers >= 0, "0 or more")
        for name in ("image_px", "batch_size", "max_captions", "window_samples"):
            value = getattr(self, name)
            _require(name, value, value >= 1, "1 or more")


def _require(name: str, value: object, holds: bool, allowed: str) -> None:
    if not holds:
        raise UsageError(f"{name} is {value!r}", hint=f"allowed: {allowed}", reason="option.value")
