"""Load and check an open_clip model from a local folder or the hub, with exact token counts.

Unlike `open_clip.create_model_and_transforms` it refuses a folder without weights (open_clip warns
and continues with random ones), pickled weights (open_clip falls back to them when the safetensors
cannot be downloaded), and texts longer than the context (open_clip cuts them).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from PIL import Image
from safetensors import SafetensorError
from torchvision.transforms import (
    Compose,
    Normalize,
    ToTensor,
)

from curator.core import models
from curator.core.errors import EngineError, UsageError
from curator.core.model_spec import OPEN_CLIP_FILES
from curator.core.text import strip_special_tokens

_PREFERRED = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
_MAX_CACHED_WORDS = 500_000
_SPECIAL_WORDS = ("<start_of_text>", "<end_of_text>")


class ClipTokens:
    """The tokenizer of a CLIP model, with exact counts.

    Special tokens inside a text ("<end_of_text>") would end it for the model; they are removed
    before encoding and counting.
    """

    def __init__(self, tokenizer: SimpleTokenizer | HFTokenizer) -> None:
        self._tokenizer = tokenizer
        # A text is counted when it is planned and encoded soon after.
        self._ids = functools.lru_cache(maxsize=4096)(self._encode_one)
        self.limit = int(tokenizer.context_length)
        self.num_special = self.count("")

    def count(self, text: str) -> int:
        """Return the number of tokens of the whole `text`, including start and end tokens."""
        return len(self._ids(text))

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        """Return the token ids of texts that fit the context, `[num_texts, limit]` int64."""
        if isinstance(self._tokenizer, HFTokenizer):
            plain = [strip_special_tokens(text)[0] for text in texts]
            ids: torch.Tensor = self._tokenizer(plain)
            return ids
        ids = torch.zeros(len(texts), self.limit, dtype=torch.long)
        for row, text in zip(ids, texts, strict=True):
            words = self._ids(text)
            row[: len(words)] = torch.tensor(words)
        return ids

    def _encode_one(self, text: str) -> list[int]:
        """Return the token ids of one text, neither cut nor padded."""
        text = strip_special_tokens(text)[0]
        tokenizer = self._tokenizer
        if isinstance(tokenizer, HFTokenizer):
            clips = tokenizer.tokenizer_mode == "clips"  # a mode that adds three tokens by itself
            words: list[int] = tokenizer.tokenizer(
                tokenizer.clean_fn(text), add_special_tokens=not clips, verbose=False
            ).input_ids
            return [0, *words, 0, 0] if clips else words
        if len(tokenizer.cache) > _MAX_CACHED_WORDS:  # the cache has no limit of its own
            tokenizer.cache = {key: key for key in _SPECIAL_WORDS}
        return [tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id]


@dataclass(frozen=True, slots=True)
class ClipModel:
    """A loaded model in eval mode.

    `preprocess` maps an RGB image to the model's input, `[3, height, width]` float32; `dtype` is
    the input dtype of its towers.
    """

    net: Any
    preprocess: Compose
    tokens: ClipTokens
    device: torch.device
    dtype: torch.dtype

    def resize(self, image: Image.Image) -> torch.Tensor:
        """Resize and crop an RGB image for the model: `[height, width, 3]` uint8.

        This is the part of `preprocess` that is worth a thread. The other part, in `encode_images`,
        takes as long as decoding if done image by image, and 4 times the memory.
        """
        for step in self.preprocess.transforms[:-2]:
            image = step(image)
        return torch.from_numpy(np.array(image))

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Encode images `[num_images, height, width, 3]` uint8; returns unit features.

        The features are `[num_images, width]` float32. The pixels are bit-identical to those of
        `preprocess`.
        """
        pixels = images.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        pixels = self.preprocess.transforms[-1](pixels.float().div_(255))
        return _unit(self.net.encode_image(pixels.to(self.dtype)))

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Return unit features of texts, `[num_texts, width]` float32."""
        return _unit(self.net.encode_text(self.tokens.encode(texts).to(self.device)))


def _unit(features: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(features.float(), dim=-1)


_PRECISION = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


def load_clip(
    model: str, *, device: torch.device, dtype: torch.dtype, revision: str | None = None
) -> ClipModel:
    """Load `model` (any form that `curator.core.models` accepts) for inference.

    Raises:
        UsageError, NotFoundError: the name, the folder or its weights cannot be used.
        EngineError: the hub cannot be reached, or the model cannot be loaded from its files.
    """
    folder = models.locate(model, revision=revision, files=OPEN_CLIP_FILES)
    _check_weights(folder)
    source = f"local-dir:{folder}"
    try:
        net, _, preprocess = open_clip.create_model_and_transforms(
            source, precision=_PRECISION[dtype], device=device
        )
        tokenizer = open_clip.get_tokenizer(source)
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, SafetensorError) as error:
        raise EngineError(
            f"cannot load the model ({type(error).__name__}: {error})",
            where=folder,
            reason="model.load",
        ) from error
    # `encode_images` does these two steps, `resize` those before them.
    assert isinstance(preprocess.transforms[-2], ToTensor)
    assert isinstance(preprocess.transforms[-1], Normalize)
    # Pixels have the channels last; convolutions then run 25 % faster, also on CPUs.
    net = net.eval().to(memory_format=torch.channels_last)
    return ClipModel(net, preprocess, ClipTokens(tokenizer), device, dtype)


def _check_weights(folder: Path) -> None:
    """Refuse a folder in which open_clip would load a pickle or an arbitrary weight file."""
    found = [path.name for path in models.weights(folder)]
    if not (folder / "open_clip_config.json").is_file():
        raise UsageError(
            "no open_clip_config.json",
            where=folder,
            hint="the folder of an open_clip model has open_clip_config.json and "
            "open_clip_model.safetensors",
            reason="model.config",
        )
    pickles = [path.name for path in folder.iterdir() if path.suffix in (".bin", ".pth")]
    if not set(_PREFERRED) & set(found) and (pickles or len(found) > 1):
        raise UsageError(
            f"several weight files: {', '.join(sorted(found + pickles))}",
            where=folder,
            hint=f"rename the right one to {_PREFERRED[0]}",
            reason="model.weights",
        )
