"""Image-text retrieval on held-out pairs.

Recall at 1 and 5 in both directions, as in CLIP's evaluations on Flickr30k and COCO, with two
differences that noisy captions need: pairs with the same text count as correct for each other, and
a tie with a wrong answer counts as wrong, so that a collapsed model scores 0 % and not 100 %.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch

from pretrain.data.loader import Batch

_ROWS = 1024
_AT = (1, 5)


class PairFeatures(NamedTuple):
    """Unit features of N pairs; pairs with equal numbers in `text_of_N` have the same text."""

    images_ND: torch.Tensor
    texts_ND: torch.Tensor
    text_of_N: torch.Tensor


def encode(objective: Any, batches: Iterable[Batch]) -> PairFeatures:
    """Encode the pairs of `batches`, one text per image, with a contrastive objective.

    Leaves the objective in evaluation mode.
    """
    objective.eval()
    images, texts, tokens = [], [], []
    with torch.inference_mode():
        for batch in batches:
            images.append(objective.encode_images(batch.images).float())
            texts.append(objective.encode_texts(batch.tokens).float())
            tokens.append(batch.tokens)
        _, text_of_N = torch.unique(torch.cat(tokens), dim=0, return_inverse=True)
        return PairFeatures(torch.cat(images), torch.cat(texts), text_of_N)


def recalls(pairs: PairFeatures) -> dict[str, float]:
    """Return recall at 1 and 5 in both directions; memory: `_ROWS` rows of scores at a time."""
    images_ND, texts_ND, text_of_N = pairs
    text_of_N = text_of_N.to(images_ND.device)
    found = {"num_pairs": float(len(images_ND))}
    for name, queries, answers in (
        ("image_to_text", images_ND, texts_ND),
        ("text_to_image", texts_ND, images_ND),
    ):
        better_N = torch.cat(
            [
                _num_wrong_before(rows, answers, own, text_of_N)
                for rows, own in zip(
                    torch.split(queries, _ROWS), torch.split(text_of_N, _ROWS), strict=True
                )
            ]
        )
        for rank in _AT:
            found[f"{name}_r{rank}"] = float((better_N < rank).float().mean())
    return found


def _num_wrong_before(
    queries: torch.Tensor, answers: torch.Tensor, own: torch.Tensor, text_of_N: torch.Tensor
) -> torch.Tensor:
    """Count for each query the wrong answers that score at least as high as the best right one."""
    scores = queries @ answers.T
    right = own[:, None] == text_of_N[None, :]
    best = scores.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
    return ((scores >= best) & ~right).sum(1)
