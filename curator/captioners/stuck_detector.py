"""Detect a model that gives the same caption to image after image (LVD-2M#4: 4,000 times)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

MAX_IMAGES = 20
MAX_SHARE = 0.1

I = TypeVar("I", bound=Hashable)  # noqa: E741 - how the caller names an image


@dataclass(slots=True)
class StuckDetector(Generic[I]):
    """Collects, within a shard, the images that got the same caption.

    Too many means more than 20 images and more than a tenth of those captioned so far: a large
    shard of similar images may well have "a man in a suit" 21 times. Captions that differ only in
    letter case, white space or a final full stop count as the same.
    """

    _images: dict[str, dict[str, list[I]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    _totals: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _stuck: set[tuple[str, str]] = field(default_factory=set)
    _in_a_row: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def note(self, shard: str, image: I, text: str) -> list[I]:
        """Add a captioned image; return the images whose caption must not be used.

        Returns [] below the limit, all images with this caption when the limit is passed, and
        only the new image after that.
        """
        folded = " ".join(text.casefold().split()).rstrip(" .")
        self._totals[shard] += 1
        if (shard, folded) in self._stuck:
            self._in_a_row[shard] += 1
            return [image]
        self._in_a_row[shard] = 0
        images = self._images[shard][folded]
        images.append(image)
        if len(images) <= max(MAX_IMAGES, MAX_SHARE * self._totals[shard]):
            return []
        self._stuck.add((shard, folded))
        return images

    def hopeless(self, shard: str) -> bool:
        """Whether more than 20 captions in a row must not be used.

        A caption shared by similar images alternates with others; a stuck model gives nothing
        else, and every further request is wasted.
        """
        return self._in_a_row[shard] > MAX_IMAGES
