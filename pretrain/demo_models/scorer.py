"""The scorer: an open_clip model with a small ResNet and a text tower for a few hundred words.

The loss is CLIP's, with one more text per image: its own caption with one thing changed (NegCLIP,
Yuksekgonul et al. 2023, arXiv 2210.01936). Without it a scorer learns which things are in an image,
but not which of them is red. True and false captions are wrapped in the same boilerplate as alt
texts, so that the boilerplate carries no signal. Only texts teach it: as a backbone it shows what
captions alone give.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from safetensors.torch import save
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from curator.core.stopping import StopRequest
from curator.demo.alttext import DEFAULT_RATES, alt_text, dress, wrong
from curator.demo.language import LENGTHS, VOCABULARY, Length, caption
from curator.demo.scene import Scene
from curator.store import fsops
from pretrain.demo_models.images import SIDE_PX, SceneImages, as_pixels, batches
from pretrain.loop.loop import train as run_loop
from pretrain.loop.options import LoopOptions
from pretrain.objectives.clip import short_attention

_CONTEXT = 64
_WIDTH = 24
_SHARES: dict[Length, float] = {"kinds": 0.55, "short": 0.1, "detailed": 0.25, "spatial": 0.1}
BATCH = 128
_SPECIAL = ["<pad>", "</s>", "<unk>"]
_NOISE_SHARE = 8  # one unrelated alt text of any kind per this many images


def config(vocab_size: int) -> dict[str, Any]:
    """Return the model's config in open_clip's format."""
    return {
        "embed_dim": 160,
        "vision_cfg": {
            "image_size": SIDE_PX,
            "layers": [1, 1, 1, 1],
            "width": _WIDTH,
            "head_width": 64,
        },
        "text_cfg": {
            "context_length": _CONTEXT,
            "vocab_size": vocab_size,
            "width": 128,
            "heads": 4,
            "layers": 3,
            "no_causal_mask": True,
            "pool_type": "last",
            "hf_tokenizer_name": "in-this-folder",
            "tokenizer_kwargs": {"clean": "canonicalize"},
        },
    }


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token per caption word and one for all other words."""
    words = [word for word in VOCABULARY if word.isalpha()]
    vocab = {word: number for number, word in enumerate([*_SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # no types there
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


class ScorerObjective(torch.nn.Module):
    """Minimised by `pretrain.loop.loop`. A batch is (pixels, tokens)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def losses(self, batch: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return `loss`, the only one."""
        device = self.model.logit_scale.device
        pixels, tokens = (part.to(device) for part in batch)
        with torch.no_grad():  # as open_clip does after every step
            self.model.logit_scale.clamp_(0, math.log(100))
        with short_attention(device):
            return {"loss": _loss(self.model, self.model.encode_image(pixels), tokens)}


def train(
    images: SceneImages, out: Path, *, steps: int, device: torch.device, stop: StopRequest
) -> None:
    """Train from scratch and save; the same machine and threads give the same weights.

    Raises:
        as `pretrain.loop.loop.train`.
    """
    torch.manual_seed(0)
    fsops.make_dir(out)
    tokenizer = word_tokenizer()
    tokenizer.save_pretrained(str(out))
    tokenize = open_clip.tokenizer.HFTokenizer(
        str(out), context_length=_CONTEXT, clean="canonicalize"
    )
    model_cfg = config(len(tokenizer))
    model = open_clip.CLIP(**model_cfg)
    objective = ScorerObjective(model).to(device)

    def from_step(first: int) -> Iterator[Sequence[torch.Tensor]]:
        drawn = batches(len(images.scenes), BATCH, seed=4, first=first)
        for step, picked in enumerate(drawn, first):
            rng = np.random.default_rng((3, step))
            tokens = tokenize(_texts([images.scenes[i] for i in picked], rng))
            yield as_pixels(images.rgb[picked]), tokens

    options = LoopOptions(
        total_steps=steps, lr=2e-3, warmup_steps=steps // 10, weight_decay=0.1, beta2=0.98
    )
    run_loop(objective, from_step, options, folder=out / "training", stop=stop, what="train scorer")
    _save(model, model_cfg, out)


def _texts(scenes: list[Scene], rng: np.random.Generator) -> list[str]:
    """Return the true captions of a batch, then one false caption each, then some alt texts."""
    lengths = rng.choice(LENGTHS, len(scenes), p=list(_SHARES.values()))
    told = list(zip(scenes, lengths, strict=True))
    right = [dress(caption(scene, length, rng), rng) for scene, length in told]
    false = [dress(wrong(scene, rng, length), rng) for scene, length in told]
    apart = ("good", "wrong_detail", "other_caption", "foreign")  # true, or negatives already
    kept = {noise: rate for noise, rate in DEFAULT_RATES.items() if noise not in apart}
    rates = {noise: rate / sum(kept.values()) for noise, rate in kept.items()}
    noise = [
        alt_text(scene, scenes[0], rates, rng).text or "empty"
        for scene in scenes[1 : 1 + len(scenes) // _NOISE_SHARE]
    ]
    return right + false + noise


def _loss(model: Any, features: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    images = F.normalize(features.float(), dim=-1)
    texts = F.normalize(model.encode_text(tokens).float(), dim=-1)
    logits = model.logit_scale.exp() * images @ texts.T
    target = torch.arange(len(images), device=images.device)
    to_text = F.cross_entropy(logits, target)
    to_image = F.cross_entropy(logits[:, : len(images)].T, target)
    pair = torch.stack([logits.diagonal(), logits.diagonal(len(images))], 1)
    return (to_text + to_image) / 2 + 0.5 * F.cross_entropy(pair, torch.zeros_like(target))


def _save(model: Any, model_cfg: dict[str, Any], out: Path) -> None:
    state = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    half = {n: v.half() if v.is_floating_point() else v for n, v in state.items()}
    fsops.write_atomic(out / "open_clip_model.safetensors", save(half))
    saved = {
        "model_cfg": model_cfg,
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"},
    }
    fsops.write_atomic(out / "open_clip_config.json", json.dumps(saved, indent=2).encode() + b"\n")
