"""Build, save and load open_clip models, by name or from a JSON config.

Text and image tower are always built as two modules (open_clip's `custom_text`), whatever the
config says, so that every tower is called in the same way. open_clip reads the folders written here
(`local-dir:`).
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import open_clip
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.factory import load_checkpoint
from open_clip.model import resize_pos_embed
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from curator.core.errors import EngineError, UsageError, nearest
from curator.store import fsops
from pretrain.towers import sizes
from pretrain.towers.sizes import Size, whole_patches
from pretrain.towers.tokens import Tokenizer, tokenizer

if TYPE_CHECKING:
    from pretrain.recipe import Recipe

Config = dict[str, Any]

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """A model with its config, tokenizer and normalisation; `mean` and `std` are for RGB in [0, 1].

    `tokenize` returns `[num_texts, context]` int64, cut at the context, padded with 0.
    """

    net: Any
    config: Config
    tokenize: Tokenizer
    mean: tuple[float, ...]
    std: tuple[float, ...]


def own_models() -> list[str]:
    """Return the names of this tool's own configs, which open_clip does not have."""
    folder = files("pretrain") / "model_configs"
    return sorted(entry.name.removesuffix(".json") for entry in folder.iterdir())


def model_config(name: str) -> Config:
    """Read a model's config: one of ours, an open_clip architecture, or the path of a JSON file.

    Raises:
        UsageError: unknown model, or the file is not a config.
    """
    if name in own_models():
        return _parsed((files("pretrain") / "model_configs" / f"{name}.json").read_bytes(), name)
    if name.endswith(".json"):
        try:
            return _parsed(Path(name).read_bytes(), name)
        except OSError as error:
            raise UsageError(f"cannot read the config ({error})", reason="model.config") from error
    known = open_clip.list_models()
    if name not in known:
        raise UsageError(
            f"unknown model {name!r}",
            hint=nearest(name, [*own_models(), *known]),
            reason="model.unknown",
        )
    return copy.deepcopy(cast("Config", open_clip.get_model_config(name)))


def _parsed(data: bytes, where: str) -> Config:
    try:
        found = json.loads(data)
        config = found.get("model_cfg", found)
        if {"embed_dim", "vision_cfg", "text_cfg"} <= set(config):
            return cast("Config", config)
        what = "lacks embed_dim, vision_cfg or text_cfg"
    except (ValueError, AttributeError) as error:
        what = f"is not a JSON object ({error})"
    raise UsageError(f"the config {what}", where=where, reason="model.config")


def build_net(config: Config, *, image_px: Size | None = None, seed: int = 0, **more: Any) -> Any:
    """Build a config's model with random weights, in training mode.

    Returns an `open_clip.CustomTextCLIP`; the same seed gives the same weights. A plain ViT is
    built for images of about `image_px` (height, width), rounded to whole patches.

    Raises:
        UsageError: open_clip cannot build the model.
    """
    config = copy.deepcopy(config)
    config.pop("custom_text", None)
    vision = config["vision_cfg"]
    vision["timm_model_pretrained"] = False
    if image_px is not None and is_plain_vit(vision):
        vision["image_size"] = whole_patches(image_px, int(vision.get("patch_size", 16)))
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = open_clip.CustomTextCLIP(**config, **more)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise UsageError(
            f"cannot build the model: {error}", hint="check its config", reason="model.config"
        ) from error
    if image_px is not None:
        resize_timm(getattr(net.visual, "trunk", None), image_px)
    return net


def is_plain_vit(vision: Config) -> bool:
    """Whether the image tower of a config is open_clip's own vision transformer."""
    return "timm_model_name" not in vision and isinstance(vision.get("layers", 12), int)


def resize_timm(trunk: Any, image_px: Size) -> None:
    """Set a timm net that takes one size at a time to about this size; keeps its weights."""
    if hasattr(trunk, "set_input_size") and hasattr(trunk, "feature_info"):
        sizes.set_size(trunk, sizes.target(trunk, image_px))


def build_clip(recipe: Recipe, **start: float) -> Clip:
    """Build a recipe's model with random weights and its tokenizer; works offline.

    `start` are further arguments of open_clip's model, also written into its config:
    `init_logit_scale`, `init_logit_bias`.

    Raises:
        UsageError: unknown model, or one whose tokenizer does not come with open_clip.
    """
    config = model_config(recipe.model)
    text = config["text_cfg"]
    if text.get("hf_tokenizer_name") or text.get("hf_model_name"):
        raise UsageError(
            f"the text tower of {recipe.model!r} needs files from a hub",
            hint="use a model with open_clip's own text tower and tokenizer, e.g. ViT-B-16",
            reason="model.tokenizer",
        )
    vision, side = config["vision_cfg"], recipe.image_px
    if is_plain_vit(vision) and side % int(vision.get("patch_size", 16)):
        raise UsageError(
            f"image_px is {side}, not a multiple of the patch size {vision.get('patch_size', 16)}"
        )
    vision["image_size"] = side
    net = build_net(config, image_px=(side, side), seed=recipe.seed, **start)
    trunk = getattr(net.visual, "trunk", None)
    if hasattr(trunk, "set_input_size") and sizes.target(trunk, (side, side)) != (side, side):
        raise UsageError(
            f"image_px is {side}, but {recipe.model!r} takes {sizes.target(trunk, (side, side))[0]}"
        )
    config = {**config, **start, "custom_text": True}
    return Clip(
        net=net,
        config=config,
        tokenize=tokenizer(int(net.context_length)),
        mean=OPENAI_DATASET_MEAN,
        std=OPENAI_DATASET_STD,
    )


def save_config(folder: Path, clip: Clip) -> None:
    """Write the config of a model folder, in open_clip's format."""
    size = clip.config["vision_cfg"]["image_size"]
    preprocess = {
        "mean": list(clip.mean),
        "std": list(clip.std),
        "size": size,
        "interpolation": "bicubic",
        "resize_mode": "squash",
    }
    value = {"model_cfg": clip.config, "preprocess_cfg": preprocess}
    fsops.write_atomic(folder / CONFIG_FILE, json.dumps(value, indent=2).encode() + b"\n")


def save_clip(folder: Path, clip: Clip) -> None:
    """Write a model folder that open_clip reads (`local-dir:`)."""
    save_config(folder, clip)
    fsops.write_atomic(folder / WEIGHTS_FILE, tensors(clip.net))


def tensors(module: torch.nn.Module) -> bytes:
    """Return the weights of a module as the bytes of a safetensors file."""
    return save({n: t.detach().cpu().contiguous() for n, t in module.state_dict().items()})


def load_net(
    config: Config, weights: Path, *, image_px: Size | None = None, only_image: bool = False
) -> Any:
    """Build a config's model with the weights of a file; a plain ViT may take another image size.

    Its position embeddings are then resized. With `only_image` the file holds the image tower alone
    and the text tower is random.

    Raises:
        EngineError: the weights belong to another model.
        UsageError: not a safetensors file.
    """
    if weights.suffix != ".safetensors":
        raise UsageError(
            "weights must be a .safetensors file", where=weights, reason="model.pickle"
        )
    plain = is_plain_vit(config["vision_cfg"])
    net = build_net(config, image_px=image_px if plain else None)
    try:
        if only_image:
            state = {f"visual.{name}": value for name, value in load_file(weights).items()}
            resize_pos_embed(state, net)
            net.visual.load_state_dict({n.removeprefix("visual."): v for n, v in state.items()})
        else:
            load_checkpoint(net, str(weights))
    except (OSError, RuntimeError, KeyError, SafetensorError) as error:
        raise EngineError(
            f"cannot load the model ({type(error).__name__}: {error})",
            where=weights,
            reason="model.load",
        ) from error
    if image_px is not None:
        resize_timm(getattr(net.visual, "trunk", None), image_px)
    return net
