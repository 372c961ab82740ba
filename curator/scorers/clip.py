"""Score image-text alignment with any open_clip model: the cosine of the two unit features.

Unlike a plain loop over open_clip, this scores texts longer than the context in windows instead of
cutting them, fails a damaged image alone, repeats NaN scores in float32, encodes identical images
and texts once per call, and decodes images ahead of the model.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import TypeVar

import torch

from curator.core import images
from curator.core.devices import choose_device, choose_dtype
from curator.core.errors import EngineError, Unusable
from curator.core.text import strip_special_tokens
from curator.scorers import Score
from curator.scorers.clip_model import ClipModel, load_clip
from curator.scorers.text_windows import Budget, TextPlan, plan_text

T = TypeVar("T")
log = logging.getLogger(__name__)

_MAX_DECODE_WORKERS = 16
_NOT_FINITE = "score.not_finite"


def clip_score(cosine: float) -> float:
    """Return the CLIPScore on the usual 0 to 100 scale: `100 * max(cosine, 0)`.

    Hessel et al. 2021 (CLIPScore, arXiv:2104.08718) define it as `2.5 * max(cosine, 0)`; that is
    this value divided by 40. Only the raw cosine is ever stored.
    """
    return 100.0 * max(cosine, 0.0)


class ClipScorer:
    """Scores pairs by the cosine of a CLIP-like model, in [-1, 1].

    A text of several sentences that fits the context is scored as a whole, and each sentence
    separately in `sentences`. A text that does not fit has `truncated` set, one entry in
    `sentences` per window (a sentence, or as many of its words as fit), and the mean of those as
    its score. Special tokens inside a text are removed before encoding and flagged `special_token`.

    `model` is any form that `curator.core.models` accepts; `pretrained` is an open_clip tag, to
    give `ViT-B-32` and `laion2b_s34b_b79k` separately. `dtype` is fp32, bf16 or fp16; default: bf16
    (fp16 where bf16 is emulated) on CUDA, else fp32. Scores of different dtypes differ in the third
    decimal. `batch_size` is the number of images or texts per forward pass; it is halved when CUDA
    runs out of memory. `decode_workers` is the number of decoding threads (default: torch's number
    of threads, at most 16); `limits` are the limits of `curator.core.images` on their input.

    Raises:
        UsageError, NotFoundError, EngineError: the model cannot be loaded; see `load_clip`.
    """

    def __init__(
        self,
        model: str,
        *,
        pretrained: str | None = None,
        revision: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int = 64,
        decode_workers: int | None = None,
        limits: images.Limits = images.DEFAULT_LIMITS,
    ) -> None:
        self._name = model if pretrained is None else f"{model}:{pretrained}"
        self._revision = revision
        self._device = choose_device(device)
        self._clip = self._load(choose_dtype(dtype, self._device))
        self._batch_size = batch_size
        self._limits = limits
        num_workers = decode_workers or min(_MAX_DECODE_WORKERS, torch.get_num_threads())
        self._pool = ThreadPoolExecutor(num_workers, thread_name_prefix="decode")
        self._ahead: deque[dict[bytes, Future[torch.Tensor]]] = deque(maxlen=2)

    def prefetch(self, pairs: Sequence[tuple[bytes, str]]) -> None:
        """Start decoding the images of the next batch.

        The two newest prefetched batches are kept, so call it for batch n + 1 before `score` of
        batch n. An image takes 3 * side**2 bytes of memory until it is scored.
        """
        batch = dict.fromkeys(image for image, _ in pairs)
        self._ahead.append({image: self._pool.submit(self._decode, image) for image in batch})

    def score(self, pairs: Sequence[tuple[bytes, str]]) -> list[Score]:
        """Return one `Score` per (encoded image bytes, text) pair, in the same order.

        A pair that fails has `failure` set and does not affect the others: `image.*` from decoding,
        `caption.empty`, or `score.not_finite` if even float32 gives NaN or infinity.

        Raises:
            EngineError: out of CUDA memory with a batch of one.
        """
        plans = {
            text: self._plan(text) for text in dict.fromkeys(t for _, t in pairs) if text.strip()
        }
        texts = list(
            dict.fromkeys(piece for text, plan in plans.items() for piece in plan.texts(text))
        )
        with torch.inference_mode():
            text_vectors = self._encode(texts, self._clip.encode_texts)
            image_vectors, image_rows, failures = self._encode_images(
                list(dict.fromkeys(image for image, _ in pairs))
            )
            text_rows = {text: row for row, text in enumerate(texts)}
            left, right = [], []
            for image, text in pairs:
                if image in image_rows and text in plans:
                    pieces = plans[text].texts(text)
                    left += [text_rows[piece] for piece in pieces]
                    right += [image_rows[image]] * len(pieces)
            # One product for all pairs: one transfer from the device per pair would cost more than
            # the forward pass of a small model.
            cosines = iter((text_vectors[left] * image_vectors[right]).sum(-1).tolist())
            scores = []
            for image, text in pairs:
                if image in failures:
                    reason, detail = failures[image].reason, failures[image].detail
                    scores.append(Score(None, failure=reason, detail=detail))
                elif text not in plans:
                    scores.append(Score(None, failure="caption.empty", detail="no text to score"))
                else:
                    plan = plans[text]
                    mine = list(itertools.islice(cosines, len(plan.texts(text))))
                    scores.append(self._judge(image, text, plan, mine))
        return scores

    def _plan(self, text: str) -> TextPlan:
        tokens = self._clip.tokens
        return plan_text(text, Budget(tokens.count, tokens.limit, tokens.num_special))

    def _judge(self, image: bytes, text: str, plan: TextPlan, cosines: list[float]) -> Score:
        """Compute the `Score` of one pair from the cosines of its pieces."""
        if not _finite(cosines) and self._clip.dtype is not torch.float32:
            cosines = self._again(image, plan.texts(text))
        flags = ("special_token",) if strip_special_tokens(text)[1] else ()
        if not _finite(cosines):
            return Score(
                None,
                num_tokens=plan.num_tokens,
                truncated=not plan.whole,
                flags=flags,
                failure=_NOT_FINITE,
                detail="NaN or infinity in float32",
            )
        return plan.score(cosines, flags=flags)

    def _again(self, image: bytes, pieces: list[str]) -> list[float]:
        """Recompute the cosines of one pair in float32: NaN in fp16 or bf16 is mostly overflow."""
        vector = self._exact.encode_images(self._decode(image)[None])
        cosines: list[float] = (self._exact.encode_texts(pieces) * vector).sum(-1).tolist()
        return cosines

    @cached_property
    def _exact(self) -> ClipModel:
        log.warning("some scores are NaN or infinite: loading %s in float32 too", self._name)
        return self._load(torch.float32)

    def _load(self, dtype: torch.dtype) -> ClipModel:
        return load_clip(self._name, device=self._device, dtype=dtype, revision=self._revision)

    def _decode(self, data: bytes) -> torch.Tensor:
        """Decode one image to the size of the model's input, `[height, width, 3]` uint8."""
        return self._clip.resize(images.decode(data, limits=self._limits).image)

    def _decoded(self, batch: Sequence[bytes]) -> Iterator[tuple[bytes, torch.Tensor | Unusable]]:
        """Yield every image of `batch`, decoding two forward passes ahead of the consumer."""
        waiting: deque[Future[torch.Tensor]] = deque()
        todo = iter(batch)
        for image in batch:
            room = 2 * self._batch_size + 1 - len(waiting)
            waiting.extend(self._take(ahead) for ahead in itertools.islice(todo, room))
            try:
                yield image, waiting.popleft().result()
            except Unusable as verdict:
                yield image, verdict

    def _take(self, image: bytes) -> Future[torch.Tensor]:
        for ahead in self._ahead:
            if image in ahead:
                return ahead.pop(image)
        return self._pool.submit(self._decode, image)

    def _encode_images(
        self, batch: Sequence[bytes]
    ) -> tuple[torch.Tensor, dict[bytes, int], dict[bytes, Unusable]]:
        """Encode distinct images; return features, the row of each image, and decoding failures."""
        parts: list[torch.Tensor] = []
        rows: dict[bytes, int] = {}
        failures: dict[bytes, Unusable] = {}
        waiting: list[torch.Tensor] = []
        for image, outcome in self._decoded(batch):
            if isinstance(outcome, Unusable):
                failures[image] = outcome
                continue
            rows[image] = len(rows)
            waiting.append(outcome)
            if len(waiting) >= self._batch_size:
                parts.append(self._encode(waiting, self._encode_stack))
                waiting = []
        parts.append(self._encode(waiting, self._encode_stack))
        return torch.cat([part for part in parts if len(part)] or parts), rows, failures

    def _encode_stack(self, part: list[torch.Tensor]) -> torch.Tensor:
        return self._clip.encode_images(torch.stack(part))

    def _encode(self, items: list[T], encode: Callable[[list[T]], torch.Tensor]) -> torch.Tensor:
        """Encode `items` in batches; when out of CUDA memory, halve the batch size permanently."""
        parts = []
        start = 0
        while start < len(items):
            try:
                parts.append(encode(items[start : start + self._batch_size]))
                start += self._batch_size
            except torch.OutOfMemoryError as error:
                if self._batch_size == 1:
                    raise EngineError(
                        "out of memory with batch size 1", where=self._name, reason="engine.oom"
                    ) from error
                self._batch_size //= 2
                torch.cuda.empty_cache()
                log.warning("out of memory: batch size reduced to %d", self._batch_size)
        return torch.cat(parts) if parts else torch.empty(0, 1, device=self._device)


def _finite(cosines: list[float]) -> bool:
    return bool(torch.tensor(cosines).isfinite().all())
