"""A CLIP of 60 thousand weights beside its vocabulary, random, saved as open_clip saves a model."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

CONTEXT = 16
IMAGE_SIDE = 32
WORDS = "a the and dog cat man runs sits on in grass beach red . , end".split()  # noqa: SIM905 - reads better


def save_tiny_clip(
    folder: Path,
    *,
    hf_tokenizer: bool = False,
    edit: Callable[[dict[str, torch.Tensor]], None] | None = None,
) -> Path:
    """Write a `local-dir:` folder; `edit` changes the weights before they are saved.

    With `hf_tokenizer` the text side is like SigLIP's: no start token, own vocabulary of words.
    """
    text_cfg: dict[str, Any] = {"context_length": CONTEXT, "width": 32, "heads": 2, "layers": 2}
    if hf_tokenizer:
        text_cfg |= {"vocab_size": len(WORDS) + 3, "hf_tokenizer_name": "in-this-folder"}
        text_cfg |= {"tokenizer_kwargs": {"clean": "canonicalize"}, "pool_type": "last"}
    else:
        text_cfg["vocab_size"] = 49408
    config = {
        "embed_dim": 16,
        "vision_cfg": {
            "image_size": IMAGE_SIDE,
            "patch_size": 8,
            "width": 32,
            "head_width": 16,
            "layers": 2,
        },
        "text_cfg": text_cfg,
    }
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    state = open_clip.CLIP(**config).state_dict()
    # Fresh positions and projections are so small that all texts look alike.
    state["token_embedding.weight"] *= 50
    if edit is not None:
        edit(state)
    save_file(
        {name: value.contiguous() for name, value in state.items()},
        folder / "open_clip_model.safetensors",
    )
    saved = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(saved))
    if hf_tokenizer:
        _word_tokenizer().save_pretrained(str(folder))
    return folder


def _word_tokenizer() -> PreTrainedTokenizerFast:
    vocab = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def photo(seed: int, *, side: int = 48) -> bytes:
    """A PNG of coloured noise: every seed another picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()
