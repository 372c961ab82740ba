"""Sample the next token, the same way for every model that runs in this process.

Invariant: the token drawn for a row depends only on its own logits, seed and image, never on the
other rows of the batch, so a caption can be reproduced alone. `torch.multinomial` cannot guarantee
that: it uses one random stream for the whole batch. Here each row has its own stream, and the
token is the argmax of probability / Exp(1) noise, which has the same distribution (exponential
race, Gumbel-max trick). Rounding changes the token only when two tokens nearly tie; inverting the
cumulative distribution would be sensitive to rounding at each of its V boundaries.

Shape letters: B rows, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor

from curator.captioners import CaptionFailure, CaptionRequest
from curator.captioners.options import Sampling

BROKEN_LOGITS = CaptionFailure("vlm.garbage", "NaN or infinity in the logits")
# This many in a row are not a caption in any language; fewer could be "!!!" in a caption.
_MAX_ZERO_RUN = 8
_TINY = 1e-30  # avoids 0 / 0


class Drawer:
    """Draws one token per row and step, with one random stream per (seed, image)."""

    def __init__(
        self, sampling: Sampling, requests: Sequence[CaptionRequest], device: torch.device
    ) -> None:
        self._sampling = sampling
        self._streams = [
            torch.Generator(device).manual_seed(
                _stream_seed(sampling.seed_of(request.candidate), request.image_sha256)
            )
            for request in requests
        ]

    def __call__(self, logits_BV: Tensor) -> Tensor:
        """Return token ids, int64 of shape (B,): the likeliest, or sampled (temperature, top-p)."""
        if self._sampling.temperature == 0:
            return logits_BV.argmax(-1)
        probs_BV = torch.softmax(logits_BV.float() / self._sampling.temperature, -1)
        kept_BV = probs_BV * nucleus(probs_BV, self._sampling.top_p)
        noise_BV = torch.stack(
            [
                torch.empty_like(kept_V).exponential_(generator=stream)
                for kept_V, stream in zip(kept_BV, self._streams, strict=True)
            ]
        )
        return (kept_BV / noise_BV.clamp_min_(_TINY)).argmax(-1)


def _stream_seed(seed: int, image_sha256: str) -> int:
    digest = hashlib.sha256(f"{seed}:{image_sha256}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch takes 63 bits on every device


def nucleus(probs_BV: Tensor, top_p: float) -> Tensor:
    """Return a mask of the likeliest tokens that together reach `top_p`: bool (B, V), 1+ per row.

    Holtzman et al. 2020, The Curious Case of Neural Text Degeneration (arXiv:1904.09751).
    """
    sorted_BV, order_BV = probs_BV.sort(dim=-1, descending=True, stable=True)
    kept_BV = sorted_BV.cumsum(-1) - sorted_BV < top_p  # the first row entry is 0 < top_p
    return torch.zeros_like(kept_BV).scatter(1, order_BV, kept_BV)


def broken_rows(logits_BV: Tensor) -> Tensor:
    """Return the rows with NaN or +infinity, bool (B,). -infinity is allowed: it masks a token."""
    return (logits_BV.isnan() | (logits_BV == torch.inf)).any(-1)


def has_zero_run(ids: Sequence[int]) -> bool:
    """Whether token 0 occurs eight times in a row, which NaN logits produce ("!!!!")."""
    run = 0
    for token in ids:
        run = run + 1 if token == 0 else 0
        if run == _MAX_ZERO_RUN:
            return True
    return False


class DrawProcessor(LogitsProcessor):
    """Makes greedy `generate` use the tokens of a `Drawer`, and records rows with broken logits.

    It leaves one finite score per row, that of the drawn token. A broken row ends at once, because
    transformers would continue with token 0 (`!!!!`). Read `broken_B` after `generate`.
    """

    def __init__(self, drawer: Drawer, eos: Tensor, num_rows: int) -> None:
        self.broken_B = torch.zeros(num_rows, dtype=torch.bool, device=eos.device)
        self._finished_B = self.broken_B.clone()
        self._drawer = drawer
        self._eos = eos

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores (B, V) with all but the drawn token at -infinity."""
        broken_B = broken_rows(scores)
        self.broken_B |= broken_B & ~self._finished_B
        drawn_B = self._drawer(scores.masked_fill(broken_B[:, None], 0.0))
        if len(self._eos):
            drawn_B = torch.where(broken_B, self._eos[0], drawn_B)
        self._finished_B |= torch.isin(drawn_B, self._eos)
        return torch.full_like(scores, -torch.inf).scatter(1, drawn_B[:, None], 0.0)
