"""The scorer port: the protocol, and the table of everything that can judge a caption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from curator.core.registry import Registry
from curator.shards.samples import Score


class Scorer(Protocol):
    """Judges (image, text) pairs. Built once a worker process."""

    def score(self, pairs: Sequence[tuple[bytes, str]]) -> list[Score]:
        """Score every pair (encoded image bytes, text), in the same order, never fewer."""
        ...


SCORERS = Registry(
    "scorer",
    {
        "clip": "curator.scorers.clip:ClipScorer",
        "text": "curator.scorers.text:TextScorer",
    },
)
