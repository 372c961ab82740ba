"""Zero-shot recognition of words on held-out pairs.

Pairs have no labels, so the classes are words that occur in 10 or more, and at most half, of the
held-out texts. An image is positive for the words in its own text, so noisy texts mean noisy
labels. A word's prompt is that of CLIP's classifiers ("a photo of ..."; Radford et al. 2021, arXiv
2103.00020). Reported is the area under the ROC curve, averaged over the words: 0.5 is chance,
however rare a word is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from curator.core.auroc import auroc

_WORD = re.compile(r"[^\W\d_]{3,}")
_MIN_TEXTS = 10
_MAX_SHARE = 0.5
_MAX_WORDS = 500
_PROMPT = "a photo of {}."


def zero_shot(objective: Any, images_ND: torch.Tensor, texts: Sequence[str]) -> dict[str, float]:
    """Return `word_auroc` (0 to 1), `num_words`, and `num_words_cut`: words whose prompt is longer
    than the context. Empty if no word is frequent enough.

    `images_ND` are unit features of a contrastive objective in evaluation mode, `texts` (N) the
    images' texts.
    """
    words, says_CN = classes(texts)
    if not words:
        return {}
    with torch.inference_mode():
        found = objective.tokenizer().encoded([_PROMPT.format(word) for word in words])
        words_CD = objective.encode_texts(found.tokens_NL).float()
        num_cut = int((found.lengths_N > found.tokens_NL.shape[1]).sum())
        scores_CN = (words_CD @ images_ND.T).cpu().numpy()
    areas = [auroc(row[says], row[~says]) for row, says in zip(scores_CN, says_CN, strict=True)]
    return {
        "num_words": float(len(words)),
        "num_words_cut": float(num_cut),
        "word_auroc": float(np.mean(areas)),
    }


def classes(texts: Sequence[str]) -> tuple[list[str], np.ndarray[Any, np.dtype[np.bool_]]]:
    """Return the C classes, most frequent word first, and which texts have them, (C, N) bool.

    A word is three or more letters, in lower case.
    """
    said = [set(_WORD.findall(text.lower())) for text in texts]
    counts = Counter(word for one in said for word in sorted(one))
    fitting = [
        word
        for word, count in counts.most_common()
        if _MIN_TEXTS <= count <= _MAX_SHARE * len(texts)
    ]
    words = fitting[:_MAX_WORDS]
    return words, np.array([[word in one for one in said] for word in words], bool)
