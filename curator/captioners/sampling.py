"""Drawing the next token, the same way for every model that runs in this process.

Invariant: what a row draws depends on its own logits, seed and image only, never on its
neighbours in the batch. So a caption can be drawn again alone. `torch.multinomial` cannot promise
that: it reads one random stream across the whole batch. Here each row has a stream of its own, and
the token is the argmax of probability / Exp(1) noise, which has the same distribution (the
exponential race, Gumbel-max trick). Rounding changes it only when two tokens nearly tie, whereas
inverting the cumulated distribution is at its mercy at each of V borders.

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
# As many in a row are no caption in any language; fewer could be the "!!!" of one.
_MAX_ZERO_RUN = 8
_TINY = 1e-30  # keeps 0 / 0 away


class Drawer:
    """Draws one token a row and step, with a random stream for each (seed, image)."""

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
        """Token ids, int64 of shape (B,): the likeliest, or drawn with temperature and top-p."""
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
    """The likeliest tokens that together reach `top_p`, bool (B, V); at least one a row.

    Holtzman et al. 2020, The Curious Case of Neural Text Degeneration (arXiv:1904.09751).
    """
    sorted_BV, order_BV = probs_BV.sort(dim=-1, descending=True, stable=True)
    kept_BV = sorted_BV.cumsum(-1) - sorted_BV < top_p  # the first row entry is 0 < top_p
    return torch.zeros_like(kept_BV).scatter(1, order_BV, kept_BV)


def broken_rows(logits_BV: Tensor) -> Tensor:
    """Rows with NaN or +infinity, bool of shape (B,). -infinity only forbids a token."""
    return (logits_BV.isnan() | (logits_BV == torch.inf)).any(-1)


def has_zero_run(ids: Sequence[int]) -> bool:
    """Whether token 0 comes eight times in a row: what NaN logits turn into ("!!!!")."""
    run = 0
    for token in ids:
        run = run + 1 if token == 0 else 0
        if run == _MAX_ZERO_RUN:
            return True
    return False


class DrawProcessor(LogitsProcessor):
    """Makes greedy `generate` follow a `Drawer`, and notes the rows whose logits broke.

    It leaves one finite score a row, that of the drawn token. A broken row is ended at once:
    transformers would go on with token 0, the famous `!!!!`. `broken_B` is read after `generate`.
    """

    def __init__(self, drawer: Drawer, eos: Tensor, num_rows: int) -> None:
        self.broken_B = torch.zeros(num_rows, dtype=torch.bool, device=eos.device)
        self._finished_B = self.broken_B.clone()
        self._drawer = drawer
        self._eos = eos

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (B, V) with all but the drawn token at -infinity."""
        broken_B = broken_rows(scores)
        self.broken_B |= broken_B & ~self._finished_B
        drawn_B = self._drawer(scores.masked_fill(broken_B[:, None], 0.0))
        if len(self._eos):
            drawn_B = torch.where(broken_B, self._eos[0], drawn_B)
        self._finished_B |= torch.isin(drawn_B, self._eos)
        return torch.full_like(scores, -torch.inf).scatter(1, drawn_B[:, None], 0.0)
