"""Options for drawing batches from a source. Torch-free, because recipes create them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from curator.core.errors import check_value

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
        known = get_args(Captions)
        check_value(self.captions in known, "captions", self.captions, ", ".join(known))
        check_value(0 <= self.sentences <= 1, "sentences", self.sentences, "0 to 1")
        scale = self.crop_scale_min
        check_value(0 < scale <= 1, "crop_scale_min", scale, "above 0, up to 1")
        check_value(self.num_workers >= 0, "num_workers", self.num_workers, "0 or more")
        for name in ("image_px", "batch_size", "max_captions", "window_samples"):
            value = getattr(self, name)
            check_value(value >= 1, name, value, "1 or more")
