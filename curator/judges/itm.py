"""BLIP's image-text matching head: the probability that an image and a text belong together.

Li et al. 2022 (BLIP, arXiv:2201.12086). Unlike a cosine, the head sees the words and the image
together. A text beyond its context is scored in windows, as by `curator.scorers.clip`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoConfig, AutoProcessor, BlipForImageTextRetrieval

from curator.captioners import CaptionFailure
from curator.captioners.local import load_model, loading
from curator.captioners.pixels import DecodePool
from curator.core import models
from curator.core.devices import choose_device, choose_dtype
from curator.core.errors import EngineError, UsageError
from curator.core.text import strip_special_tokens
from curator.judges.ask import request_of
from curator.scorers import Score
from curator.scorers.text_windows import Budget, TextPlan, plan_text

_BATCH = 32
_MATCH = 1
"""The column of a match in `itm_score`; the other one is of no match."""


class ItmScorer:
    """Scores pairs by P(match), from 0 to 1, of the BLIP retrieval model `model`.

    A text of several sentences has a score for each too. `model` is a folder, or `org/name` on the
    hub at `revision`; `dtype` (fp32, bf16, fp16) defaults to the best one of the device.

    Raises:
        UsageError: no safetensors, or not a BLIP model. NotFoundError: no such model.
        EngineError: it cannot be loaded, or lacks the weights of the head.
    """

    def __init__(
        self,
        *,
        model: str,
        revision: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
    ) -> None:
        self._folder = str(models.locate(model, revision=revision, option="--scorer"))
        self._device = choose_device(device)
        self._dtype = choose_dtype(dtype, self._device)
        with loading(self._folder):
            config = AutoConfig.from_pretrained(
                self._folder, trust_remote_code=False, local_files_only=True
            )
        if config.model_type != "blip":
            raise UsageError(
                f"--scorer itm takes a BLIP model, and this is a {config.model_type!r}",
                where=self._folder,
                hint="e.g. --scorer itm=Salesforce/blip-itm-base-coco; other models: --scorer vqa",
                reason="model.unsupported",
            )
        with loading(self._folder):
            processor: Any = AutoProcessor
            self._processor = processor.from_pretrained(
                self._folder, trust_remote_code=False, local_files_only=True
            )
        loaded = load_model(BlipForImageTextRetrieval, self._folder, self._dtype)
        self._model = loaded.to(self._device).eval()
        limit = int(loaded.config.text_config.max_position_embeddings)
        tokenizer = self._processor.tokenizer
        num_special = int(tokenizer.num_special_tokens_to_add())
        self._budget = Budget(lambda piece: len(tokenizer(piece)["input_ids"]), limit, num_special)
        self._images = DecodePool()

    def prefetch(self, pairs: Sequence[tuple[bytes, str]]) -> None:
        """Start decoding the images of the next batch."""
        self._images.prefetch([request_of(image, "") for image in {image for image, _ in pairs}])

    def score(self, pairs: Sequence[tuple[bytes, str]]) -> list[Score]:
        """Return one `Score` per pair, in order; a failure affects only its own pair.

        Raises:
            EngineError: out of CUDA memory with a single pair.
        """
        images = {image: request_of(image, "") for image, _ in pairs}
        decoded = dict(zip(images, self._images.take(list(images.values())), strict=True))
        plans: dict[str, TextPlan | None] = {
            text: plan_text(text, self._budget) if text.strip() else None for _, text in pairs
        }
        wanted: dict[tuple[bytes, str], None] = {}
        for image, text in pairs:
            plan = plans[text]
            if plan is not None and not isinstance(decoded[image], CaptionFailure):
                wanted |= dict.fromkeys((image, piece) for piece in plan.texts(text))
        todo = list(wanted)
        chances = dict(
            zip(todo, self._match([(decoded[image], text) for image, text in todo]), strict=True)
        )
        return [
            self._score(image, decoded[image], text, plans[text], chances) for image, text in pairs
        ]

    def _score(
        self,
        image: bytes,
        decoded: object,
        text: str,
        plan: TextPlan | None,
        chances: dict[tuple[bytes, str], float],
    ) -> Score:
        if isinstance(decoded, CaptionFailure):
            return Score(None, failure=decoded.reason, detail=decoded.detail)
        if plan is None:
            return Score(None, failure="caption.empty", detail="no text to score")
        found = [chances[image, piece] for piece in plan.texts(text)]
        if not all(map(math.isfinite, found)):
            return Score(
                None, failure="score.not_finite", detail=f"NaN or infinity in {self._dtype}"
            )
        return plan.score(found)

    def _match(self, pairs: Sequence[tuple[Any, str]]) -> list[float]:
        """Return P(match) of each (decoded image, text), batch by batch."""
        found: list[float] = []
        size = _BATCH
        while len(found) < len(pairs):
            part = pairs[len(found) : len(found) + size]
            try:
                found += self._forward(part)
            except torch.OutOfMemoryError as error:
                if size == 1:
                    raise EngineError(
                        "out of memory with a single pair", where=self._folder, reason="engine.oom"
                    ) from error
                size //= 2
                torch.cuda.empty_cache()
        return found

    def _forward(self, pairs: Sequence[tuple[Any, str]]) -> list[float]:
        inputs = self._processor(
            images=[image for image, _ in pairs],
            text=[strip_special_tokens(text)[0] for _, text in pairs],
            return_tensors="pt",
            padding=True,
        ).to(self._device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self._dtype)
        with torch.inference_mode():
            scores_B2 = self._model(**inputs, use_itm_head=True).itm_score
        matches: list[float] = scores_B2.float().softmax(-1)[:, _MATCH].tolist()
        return matches
