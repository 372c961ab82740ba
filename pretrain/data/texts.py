"""Draw the captions of a sample that a step trains on, by their sampling weights.

One caption is drawn with the probability of its weight. Several are drawn one after the other, by
weight and without replacement: every text of a sample is seen sooner or later, texts of high weight
more often. (Always taking the highest weights would never show the other texts, and would turn
`max_captions` into a filter.) A text of weight 0 is never drawn. Each drawn text is replaced, with
probability `sentences`, by one of its sentences, if it has several.

Drawing without replacement takes the smallest of exponential variables whose rates are the weights
(Efraimidis and Spirakis 2006, "Weighted random sampling with a reservoir").
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from curator.core.text import split_sentences
from pretrain.data.rng import Ints, uniforms

_CHOICE, _COIN, _WHICH = 10, 11, 12  # purposes of draws


def draw(
    texts: Sequence[Sequence[str]],
    weights: Sequence[Sequence[float]],
    *,
    most: int,
    sentences: float,
    seed: int,
    epochs: Ints,
    samples: Ints,
) -> tuple[list[str], Ints]:
    """Return (drawn texts, their owners), in order of owners: places of their samples in the batch.

    `texts` and `weights` have one list per sample; `epochs` and `samples` (B,) identify the draws.
    """
    counts = [len(one) for one in texts]
    owners = np.repeat(np.arange(len(texts)), counts)
    slots = np.concatenate([np.arange(count) for count in counts] or [np.empty(0, np.int64)])
    flat_weights = np.array([weight for one in weights for weight in one], np.float64)
    about = (epochs[owners], samples[owners], slots)
    with np.errstate(divide="ignore"):  # weight 0: infinite waiting time
        waits = -np.log1p(-uniforms(seed, *about, _CHOICE)) / flat_weights
    # A draw of exactly 0 for a weight of 0 would be nan; it must be infinite, too.
    waits[flat_weights == 0] = np.inf
    order = np.lexsort((waits, owners))
    first = np.concatenate([[0], np.cumsum(counts)])[owners[order]]
    taken = order[(np.arange(len(order)) - first < most) & np.isfinite(waits[order])]
    coins = uniforms(seed, *(part[taken] for part in about), _COIN)
    which = uniforms(seed, *(part[taken] for part in about), _WHICH)
    flat = [text for one in texts for text in one]
    drawn = [
        _sentence(flat[place], where) if coin < sentences else flat[place]
        for place, coin, where in zip(taken.tolist(), coins, which, strict=True)
    ]
    return drawn, owners[taken]


def heaviest(
    texts: Sequence[Sequence[str]], weights: Sequence[Sequence[float]]
) -> tuple[list[str], Ints]:
    """Return the text of highest weight of each sample, the first among equals."""
    best = [one[int(np.argmax(by))] for one, by in zip(texts, weights, strict=True)]
    return best, np.arange(len(best))


def _sentence(text: str, where: float) -> str:
    spans = split_sentences(text)
    if len(spans) < 2:  # noqa: PLR2004 - a single sentence is the text
        return text
    start, end = spans[int(where * len(spans))]
    return text[start:end]
