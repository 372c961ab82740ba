"""The captioner: a small ResNet, a projector and a tiny Qwen2, in transformers' FastVLM class.

The loss is the cross entropy of the caption's words plus the loss of `cells`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import ByteLevelBPETokenizer
from torch.nn import functional as F
from transformers import (
    CLIPImageProcessor,
    FastVlmConfig,
    FastVlmForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from curator.captioners.prompts import PRESETS
from curator.core.stopping import StopRequest
from curator.demo.language import LENGTHS, Length, caption
from curator.demo.scene import Scene
from pretrain.demo_models.cells import CellReader, cell_targets
from pretrain.demo_models.images import GRID, SIDE_PX, SceneImages, as_pixels, batches
from pretrain.loop.loop import train as run_loop
from pretrain.loop.options import LoopOptions
from pretrain.objectives.clip import short_attention

_SPECIAL = ["<pad>", "<|end|>", "<image>", "<|user|>", "<|assistant|>"]
_PAD, _END, _IMAGE = range(3)
_TEMPLATE = (
    "{% for m in messages %}{% if m.role != 'system' %}<|{{ m.role }}|>"
    "{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for c in m.content %}{% if c.type == 'image' %}<image>{% endif %}{% endfor %}"
    "{% for c in m.content %}{% if c.type == 'text' %}{{ c.text }}{% endif %}{% endfor %}"
    "{% endif %}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_VISION_WIDTHS = (32, 64, 128, 192)
_WIDTH = 160
_SHARES: dict[Length, float] = {"kinds": 0.4, "short": 0.1, "detailed": 0.35, "spatial": 0.15}
_NO_TARGET = -100
BATCH = 64


def prompts(length: Length) -> list[str]:
    """Return the presets' prompts for a caption of this length."""
    preset = PRESETS[length]
    return list(dict.fromkeys([preset.text, preset.alternative]))


def build(images: SceneImages) -> tuple[Any, Any]:
    """Build an untrained model of 2 million parameters, and its processor."""
    rng = np.random.default_rng(0)
    texts = [caption(scene, length, rng) for scene in images.scenes[:2000] for length in LENGTHS]
    asked = [prompt for length in LENGTHS for prompt in prompts(length)]
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        texts + asked * 200, vocab_size=640, special_tokens=_SPECIAL, show_progress=False
    )
    tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # no types there
        tokenizer_object=bpe._tokenizer,
        pad_token=_SPECIAL[_PAD],
        eos_token=_SPECIAL[_END],
        padding_side="left",
        model_max_length=512,
        additional_special_tokens=_SPECIAL[2:],
        clean_up_tokenization_spaces=False,
        extra_special_tokens={"image_token": _SPECIAL[_IMAGE]},
    )
    resize = CLIPImageProcessor(
        size={"height": SIDE_PX, "width": SIDE_PX},
        do_center_crop=False,
        resample=3,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    processor: Any = LlavaProcessor(  # type: ignore[no-untyped-call]  # no types there
        image_processor=resize,
        tokenizer=tokenizer,
        patch_size=SIDE_PX // GRID,
        vision_feature_select_strategy="full",
        chat_template=_TEMPLATE,
    )
    return FastVlmForConditionalGeneration(_config(len(tokenizer))), processor


def _config(vocab_size: int) -> FastVlmConfig:
    return FastVlmConfig(  # type: ignore[call-arg]  # **kwargs
        vision_config={
            "model_type": "timm_wrapper",
            "architecture": "resnet10t",
            "do_pooling": True,
            "hidden_size": _VISION_WIDTHS[-1],
            "model_args": {"channels": list(_VISION_WIDTHS), "output_stride": SIDE_PX // GRID},
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": vocab_size,
            "hidden_size": _WIDTH,
            "intermediate_size": 384,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 512,
            "tie_word_embeddings": True,
            "pad_token_id": _PAD,
            "eos_token_id": _END,
            "bos_token_id": None,
        },
        image_token_index=_IMAGE,
        image_seq_length=GRID * GRID,
        tie_word_embeddings=True,
        pad_token_id=_PAD,
        eos_token_id=_END,
    )


class _Asker:
    """Turns scenes into token rows: prompt with image placeholders, caption, end."""

    def __init__(self, processor: Any) -> None:
        self._tokenizer = processor.tokenizer
        self._prompts = {
            length: [self._prompt_ids(processor, prompt) for prompt in prompts(length)]
            for length in LENGTHS
        }

    @staticmethod
    def _prompt_ids(processor: Any, prompt: str) -> list[int]:
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        ids = processor.tokenizer.encode(text, add_special_tokens=False)
        at = ids.index(_IMAGE)
        return [*ids[:at], *[_IMAGE] * GRID**2, *ids[at + 1 :]]

    def rows(
        self, scenes: list[Scene], rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return input_ids and labels, (batch, longest)."""
        asked, labels = [], []
        for scene in scenes:
            length = rng.choice(LENGTHS, p=list(_SHARES.values()))
            prompt = self._prompts[length][int(rng.integers(len(self._prompts[length])))]
            told = self._tokenizer.encode(caption(scene, length, rng), add_special_tokens=False)
            told.append(_END)
            asked.append(torch.tensor(prompt + told))
            labels.append(torch.tensor([_NO_TARGET] * len(prompt) + told))
        pad = torch.nn.utils.rnn.pad_sequence
        return (
            pad(asked, batch_first=True, padding_value=_PAD),
            pad(labels, batch_first=True, padding_value=_NO_TARGET),
        )


class CaptionerObjective(torch.nn.Module):
    """Minimised by `pretrain.loop.loop`. A batch is (pixels, ids, labels, targets of the cells)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.reader = CellReader(_VISION_WIDTHS[-1])

    def losses(self, batch: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return `loss` and its parts, the loss of the words and the loss of the cells."""
        device = self.model.device
        pixels, ids, labels, targets = (part.to(device) for part in batch)
        with short_attention(device):
            features = self.model.model.vision_tower(pixels).last_hidden_state
            words = _words_loss(self.model, features, ids, labels)
            cells = self.reader(features, targets)
        return {"loss": words + 0.5 * cells, "words": words, "cells": cells}


def train(
    images: SceneImages, out: Path, *, steps: int, device: torch.device, stop: StopRequest
) -> None:
    """Train from scratch and save; the same machine and threads give the same weights.

    Raises:
        as `pretrain.loop.loop.train`.
    """
    torch.manual_seed(0)
    model, processor = build(images)
    objective = CaptionerObjective(model).to(device)
    asker = _Asker(processor)
    targets = cell_targets(images)

    def from_step(first: int) -> Iterator[Sequence[torch.Tensor]]:
        drawn = batches(len(images.scenes), BATCH, seed=2, first=first)
        for step, picked in enumerate(drawn, first):
            rng = np.random.default_rng((1, step))
            ids, labels = asker.rows([images.scenes[i] for i in picked], rng)
            yield as_pixels(images.rgb[picked]), ids, labels, torch.from_numpy(targets[picked])

    options = LoopOptions(
        total_steps=steps, lr=2e-3, warmup_steps=steps * 8 // 100, weight_decay=0.05, beta2=0.98
    )
    run_loop(
        objective, from_step, options, folder=out / "training", stop=stop, what="train captioner"
    )
    model.eval().to("cpu")
    model.generation_config.update(
        pad_token_id=_PAD, eos_token_id=_END, max_new_tokens=110, do_sample=False
    )
    model.save_pretrained(out)
    processor.save_pretrained(out)


def _words_loss(
    model: Any, features_BCHW: torch.Tensor, ids: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    embedded = model.get_input_embeddings()(ids)
    places = (ids == _IMAGE).unsqueeze(-1)
    projected = model.model.multi_modal_projector(features_BCHW.flatten(2).mT)
    embedded = embedded.masked_scatter(places, projected.to(embedded.dtype))
    logits = model(inputs_embeds=embedded, attention_mask=ids != _PAD).logits[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1).float(), labels[:, 1:].flatten())
