"""A scorer without a model: how long a text is."""

from __future__ import annotations

from collections.abc import Sequence

from curator.scorers import Score

ENOUGH_WORDS = 20


class LengthScorer:
    """1 for texts of twenty words or more, and in proportion below."""

    def score(self, pairs: Sequence[tuple[bytes, str]]) -> list[Score]:
        """One score for every pair (encoded image, text), in the same order."""
        return [Score(min(len(text.split()) / ENOUGH_WORDS, 1.0)) for _, text in pairs]
