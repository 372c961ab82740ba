"""How much an image looks like given words rather than like neutral ones, by a CLIP model.

The probability of the words in a softmax over them and `curator.scorers.concepts.NEUTRAL`, with the
model's own temperature: CLIP's zero-shot classification (Radford et al. 2021, arXiv 2103.00020)
with one class of interest. Neutral words make the number comparable: cosines of two wordings are
not on one scale, and no cosine means "rather yes". They cost a little in ranking (docs/results).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from curator.scorers import Score
from curator.scorers.clip import ClipScorer
from curator.scorers.concepts import NEUTRAL


class ConceptScorer(ClipScorer):
    """Scores pairs by a probability in [0, 1]. Takes what `ClipScorer` takes, and fails as it."""

    def score(self, pairs: Sequence[tuple[bytes, str]]) -> list[Score]:
        """Return one `Score` per (encoded image bytes, words) pair, in the same order."""
        images = list(dict.fromkeys(image for image, _ in pairs))
        beside = [(image, words) for image in images for words in NEUTRAL]
        found = super().score([*pairs, *beside])
        asked, neutral = found[: len(pairs)], found[len(pairs) :]
        cosines = {
            image: [one.score for one in neutral[start : start + len(NEUTRAL)]]
            for image, start in zip(images, range(0, len(neutral), len(NEUTRAL)), strict=True)
        }
        return [
            _among(one, cosines[image], self._temperature)
            for (image, _), one in zip(pairs, asked, strict=True)
        ]

    @property
    def _temperature(self) -> float:
        """What the model's cosines are multiplied by."""
        return float(self._clip.net.logit_scale.detach().exp())


def _among(one: Score, neutral: Sequence[float | None], temperature: float) -> Score:
    """Return the score with the probability of its cosine among neutral ones."""
    others = [cosine for cosine in neutral if cosine is not None]
    if one.score is None or len(others) < len(neutral):
        detail = one.detail or "NaN or infinity in float32"
        return Score(None, failure=one.failure or "score.not_finite", detail=detail)
    logits = torch.tensor([one.score, *others], dtype=torch.float64) * temperature
    probability = float(torch.softmax(logits, 0)[0])
    return Score(probability, num_tokens=one.num_tokens, flags=one.flags)
