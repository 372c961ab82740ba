"""What the tests of the captioners share: pictures to caption, and folders of tiny models."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from curator.captioners import CaptionRequest
from curator.captioners.options import Sampling
from curator.captioners.prompts import PRESETS
from tests.kit import tinymodels

SHORT, DETAILED = PRESETS["short"].text, PRESETS["detailed"].text
GREEDY = Sampling(max_tokens=10)
SAMPLED = Sampling(max_tokens=10, temperature=1.0, top_p=0.9, seed=3)


def picture(number: int, prompt: str = SHORT, candidate: int = 0) -> CaptionRequest:
    """A blotchy JPEG; its size and content follow from `number`."""
    rng = np.random.default_rng(number)
    width, height = (int(side) for side in rng.integers(40, 200, 2))
    blotches = rng.integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(blotches).resize((width, height)).save(buffer, format="JPEG")
    image = buffer.getvalue()
    return CaptionRequest(hashlib.sha256(image).hexdigest(), image, prompt, candidate)


BROKEN = replace(picture(99), image=picture(99).image[:400], image_sha256="f" * 64)


def coca(folder: Path) -> Path:
    """An open_clip CoCa in open_clip's folder layout, with open_clip's own tokenizer."""
    import open_clip

    towers = {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    model_config = {
        "embed_dim": 32,
        "vision_cfg": {
            "image_size": 56,
            "layers": 1,
            "width": 64,
            "head_width": 32,
            "patch_size": 14,
            "attentional_pool": True,
            "attn_pooler_heads": 2,
            "output_tokens": True,
        },
        "text_cfg": {**towers, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {**towers, "attn_pooler_heads": 2},
        "custom_text": True,
    }
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    config = {"model_cfg": model_config, "preprocess_cfg": preprocess}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config), "utf-8")
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    # open_clip 3.3 leaves this one uninitialised
    torch.nn.init.normal_(model.text_decoder.text_projection, std=0.2)
    tinymodels.spread(model)
    save_file(model.state_dict(), str(folder / "open_clip_model.safetensors"))
    return folder


def tiny_folder(root: Path, family: str) -> str:
    """The folder of a tiny model under `root`, built at its first use."""
    if not (root / family).exists():
        torch.manual_seed(0)
        {**tinymodels.FAMILIES, "coca": coca}[family](root / family)
    return str(root / family)


def damaged(source: str, target: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> str:
    """A copy of a model folder with other weights."""
    target.mkdir()
    for path in Path(source).iterdir():
        if path.suffix != ".safetensors":
            (target / path.name).write_bytes(path.read_bytes())
    weights = load_file(Path(source) / "model.safetensors")
    change(weights)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return str(target)
