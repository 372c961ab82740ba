"""MAE (He et al. 2022, arXiv 2111.06377) with the plain ViT of a recipe's model.

The encoder is transformers' ViTMAE, with the width, depth, heads and patch size of the model's
image tower; as in the paper, its patch embedding has a bias and its position embeddings are fixed.
Targets are normalised within a patch. The decoder is the paper's for a base model and smaller for
smaller models.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from curator.core.errors import UsageError
from curator.store import fsops
from pretrain.objectives.masked import Masked
from pretrain.towers.init_weights import warm_start
from pretrain.towers.models import is_plain_vit, model_config, tensors
from pretrain.towers.towers import MAE_CONFIG_FILE, MAE_WEIGHTS_FILE

if TYPE_CHECKING:
    from pretrain.recipe import Recipe

_DECODER_WIDTH, _DECODER_LAYERS, _DECODER_HEAD = 512, 8, 32


def mae_config(recipe: Recipe) -> ViTMAEConfig:
    """Return the config of the recipe's image tower as a ViTMAE, with a decoder to match.

    Raises:
        UsageError: the image tower is not a plain ViT.
    """
    vision = model_config(recipe.model)["vision_cfg"]
    if not is_plain_vit(vision):
        raise UsageError(
            f"mae needs a plain ViT, and {recipe.model!r} is not one",
            hint='use objective = "simmim" for other towers',
            reason="recipe.invalid",
        )
    width, layers = int(vision.get("width", 768)), int(vision.get("layers", 12))
    patch = int(vision.get("patch_size", 16))
    if recipe.image_px % patch:
        raise UsageError(f"image_px is {recipe.image_px}, not a multiple of the patch size {patch}")
    decoder = min(_DECODER_WIDTH, max(1, width * 2 // 3 // 64) * 64)
    return ViTMAEConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // int(vision.get("head_width", 64)),
        intermediate_size=int(width * float(vision.get("mlp_ratio", 4.0))),
        layer_norm_eps=1e-6,
        image_size=recipe.image_px,
        patch_size=patch,
        decoder_hidden_size=decoder,
        decoder_intermediate_size=4 * decoder,
        decoder_num_hidden_layers=min(_DECODER_LAYERS, layers),
        decoder_num_attention_heads=decoder // _DECODER_HEAD,
        mask_ratio=recipe.options["mask"],
        norm_pix_loss=True,
    )


class MaeObjective(Masked):
    """Predicts the pixels of hidden patches from the visible ones."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.net = ViTMAEForPreTraining(mae_config(recipe))
        warm_start(self.net.vit, recipe)
        self.num_units = int(self.net.vit.embeddings.patch_embeddings.num_patches)

    def loss_of(self, pixels: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return the mean squared error over the hidden patches."""
        loss: torch.Tensor = self.net(pixels, noise=noise).loss
        return loss

    def save(self, folder: Path) -> None:
        """Write encoder and decoder as a folder that transformers reads."""
        config = json.loads(self.net.config.to_json_string(use_diff=False))
        config["architectures"] = [type(self.net).__name__]
        data = json.dumps(config, indent=2).encode() + b"\n"
        fsops.write_atomic(folder / MAE_CONFIG_FILE, data)
        fsops.write_atomic(folder / MAE_WEIGHTS_FILE, tensors(self.net))
