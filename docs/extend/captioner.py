"""A captioner without a model: it names the colours of an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from curator.captioners import Caption, CaptionFailure, CaptionRequest
from curator.core import images
from curator.core.errors import Unusable

COLOURS = {
    "black": (0, 0, 0),
    "grey": (128, 128, 128),
    "white": (255, 255, 255),
    "red": (200, 40, 40),
    "orange": (240, 150, 40),
    "yellow": (240, 230, 60),
    "green": (60, 160, 70),
    "blue": (60, 110, 200),
    "purple": (140, 70, 160),
    "brown": (120, 80, 50),
}


class ColourCaptioner:
    """Says which three colours cover most of an image, and how much of it."""

    def caption(self, requests: Sequence[CaptionRequest]) -> list[Caption | CaptionFailure]:
        """One outcome for every request, in the same order."""
        return [self._caption_one(request) for request in requests]

    def _caption_one(self, request: CaptionRequest) -> Caption | CaptionFailure:
        try:
            image = images.decode(request.image).image  # RGB, upright
        except Unusable as error:  # one bad image costs no other one
            return CaptionFailure(error.reason, error.detail)
        pixels = image.resize((16, 16)).get_flattened_data()
        counts = Counter(min(COLOURS, key=lambda name: _distance(COLOURS[name], p)) for p in pixels)
        parts = [f"{name} ({count / 256:.0%})" for name, count in counts.most_common(3)]
        text = f"An image of {image.width} by {image.height} pixels in {', '.join(parts)}."
        return Caption(text, finish_reason="stop", num_tokens=len(text.split()), seed=0)


def _distance(one: tuple[int, int, int], other: tuple[int, int, int]) -> int:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))
