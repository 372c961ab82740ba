"""Load image towers by name, with their weights, for backbones and warm starts.

See `pretrain.towers.backbone` for the forms of a name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import timm
import torch
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.pretrained import get_pretrained_cfg
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import load_checkpoint
from transformers import ViTMAEConfig, ViTMAEForPreTraining, ViTMAEModel

from curator.core import models as hub
from curator.core.errors import EngineError, NotFoundError, UsageError, nearest
from curator.core.model_spec import OPEN_CLIP_FILES
from curator.store import fsops
from pretrain.run_files import MODEL_FOLDER, RUN_FILE, check_model
from pretrain.towers.models import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    Clip,
    build_net,
    load_net,
    model_config,
    resize_timm,
    save_config,
    tensors,
)
from pretrain.towers.sizes import Size, takes, target

MAE_CONFIG_FILE, MAE_WEIGHTS_FILE = "config.json", "model.safetensors"
TOWER_FILE = "image_tower.safetensors"
_FORMS = "a run or model folder, open_clip:ARCH:TAG, timm:NAME, random:ARCH"


class Tower(NamedTuple):
    """An image tower of open_clip or timm, or a ViTMAE encoder; `mean`, `std` of RGB in [0, 1]."""

    net: Any
    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


def open_tower(spec: str, *, image_px: Size, seed: int = 0) -> Tower:
    """Load the tower that `spec` names; see `pretrain.towers.backbone.load_backbone`.

    Raises:
        UsageError, NotFoundError, EngineError: as there.
    """
    scheme, colon, rest = spec.partition(":")
    if not colon:
        return _folder(Path(spec), image_px)
    if scheme == "random":
        return _random(rest, image_px, seed)
    name, _, weights = rest.partition(":")
    if scheme == "timm":
        return _timm(name, weights or None, image_px)
    if scheme == "open_clip":
        return _open_clip(name, weights, image_px)
    raise UsageError(f"unknown backbone {spec!r}", hint=f"write {_FORMS}", reason="model.name")


def _random(name: str, image_px: Size, seed: int) -> Tower:
    if name.startswith("timm:"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = _timm_net(name.removeprefix("timm:"), image_px, pretrained=False)
        return _timm_tower(net, f"random:{name}", image_px)
    name = name.removeprefix("open_clip:")
    if not Path(name).is_dir():
        config = model_config(name)
        return _open_clip_tower(config, f"random:{name}", image_px, seed, {})
    folder = _model_folder(Path(name))
    if (folder / CONFIG_FILE).is_file():
        saved = _json(folder / CONFIG_FILE)
        return _open_clip_tower(
            saved["model_cfg"], f"random:{name}", image_px, seed, saved.get("preprocess_cfg", {})
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = ViTMAEModel(_mae_config(folder))
    return Tower(net, f"random:{name}", OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)


def _open_clip_tower(
    config: dict[str, Any], name: str, image_px: Size, seed: int, preprocess: dict[str, Any]
) -> Tower:
    net = build_net(config, image_px=image_px, seed=seed)
    return Tower(net.visual, name, *_colours(preprocess))


def _colours(preprocess: dict[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean = tuple(preprocess.get("mean") or OPENAI_DATASET_MEAN)
    return mean, tuple(preprocess.get("std") or OPENAI_DATASET_STD)


def _open_clip(name: str, weights: str, image_px: Size) -> Tower:
    config = model_config(name)
    if not weights:
        raise UsageError(
            f"open_clip:{name} does not name weights",
            hint=f"add a tag or file (open_clip:{name}:TAG), or write random:{name}",
            reason="model.name",
        )
    if weights.endswith(".safetensors"):
        path, preprocess = Path(weights), {}
        if not path.is_file():
            raise NotFoundError("no such weights", where=path, reason="model.not_found")
    else:
        path = hub.locate(f"{name}:{weights}", files=OPEN_CLIP_FILES) / WEIGHTS_FILE
        preprocess = get_pretrained_cfg(name, weights)
    net = load_net(config, path, image_px=image_px)
    return Tower(net.visual, f"{name}:{weights}", *_colours(preprocess))


def _model_folder(folder: Path) -> Path:
    """Return the model folder of a run, or the folder itself."""
    if not folder.is_dir():
        raise NotFoundError(
            "no such folder", where=folder, hint=f"write {_FORMS}", reason="model.not_found"
        )
    inner = folder / MODEL_FOLDER
    for found in (inner, folder):
        if (found / CONFIG_FILE).is_file() or (found / MAE_CONFIG_FILE).is_file():
            if found is inner and (folder / RUN_FILE).is_file():
                check_model(folder)
            return found
    hint = "run the same `curator pretrain` again to finish it" if (folder / "run.json").is_file() \
        else f"a model folder has {CONFIG_FILE}"  # fmt: skip
    raise NotFoundError("no model", where=folder, hint=hint, reason="model.not_found")


def _folder(path: Path, image_px: Size) -> Tower:
    folder = _model_folder(path)
    if not (folder / CONFIG_FILE).is_file():
        return Tower(_mae(folder), path.name, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
    saved = _json(folder / CONFIG_FILE)
    alone = (folder / TOWER_FILE).is_file()  # trained without texts
    weights = folder / (TOWER_FILE if alone else WEIGHTS_FILE)
    net = load_net(saved["model_cfg"], weights, image_px=image_px, only_image=alone)
    return Tower(net.visual, path.name, *_colours(saved.get("preprocess_cfg", {})))


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise UsageError(f"not JSON ({error})", where=path, reason="model.config") from error


def save_tower(folder: Path, clip: Clip) -> None:
    """Write the image tower alone, with its model's config, in the form that `open_tower` reads."""
    save_config(folder, clip)
    fsops.write_atomic(folder / TOWER_FILE, tensors(clip.net.visual))


def _mae_config(folder: Path) -> ViTMAEConfig:
    return ViTMAEConfig(**_json(folder / MAE_CONFIG_FILE))


def _mae(folder: Path) -> ViTMAEModel:
    """Load the encoder of a ViTMAE, without its decoder."""
    net = ViTMAEForPreTraining(_mae_config(folder))
    path = folder / MAE_WEIGHTS_FILE
    try:
        net.load_state_dict(load_file(path))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise EngineError(
            f"cannot load the model ({error})", where=path, reason="model.load"
        ) from error
    return net.vit


def _timm(name: str, weights: str | None, image_px: Size) -> Tower:
    # Weights in a file are taken to be of the net's default size.
    net = _timm_net(name, None if weights else image_px, pretrained=weights is None)
    if weights is not None:
        path = Path(weights)
        if path.suffix != ".safetensors":
            raise UsageError(
                "weights must be a .safetensors file", where=path, reason="model.pickle"
            )
        if not path.is_file():
            raise NotFoundError("no such weights", where=path, reason="model.not_found")
        try:
            found = load_checkpoint(net, weights, strict=False)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise EngineError(
                f"cannot load the model ({error})", where=path, reason="model.load"
            ) from error
        # The head is not used, so a file may have a head that the net lacks, or none.
        missing = [key for key in found.missing_keys if not key.startswith("head.")]
        if missing:
            raise EngineError(
                f"the file lacks {len(missing)} weights of timm:{name}, e.g. {missing[0]}",
                where=path,
                hint="give a file of exactly this model",
                reason="model.load",
            )
    return _timm_tower(net, f"timm:{name}", image_px)


def _timm_net(name: str, image_px: Size | None, *, pretrained: bool) -> Any:
    """Build a timm net without a head, for `image_px` if its size cannot be changed afterwards."""
    if not timm.is_model(name):
        raise UsageError(
            f"unknown timm model {name!r}",
            hint=nearest(name.partition(".")[0], timm.list_models()),
            reason="model.unknown",
        )
    try:
        net = timm.create_model(name, pretrained=pretrained, num_classes=0)
        if image_px is None or _can_change(net):
            return net
        return _built_for(net, name, image_px, pretrained=pretrained)
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.HTTPError, OSError) as error:
        raise EngineError(
            f"cannot fetch the weights of timm:{name} ({type(error).__name__})",
            hint=f"give a file (timm:{name}:FILE.safetensors), or write random:timm:{name}",
            reason="model.fetch",
        ) from error


def _can_change(net: Any) -> bool:
    return hasattr(net, "set_input_size") or not net.default_cfg.get("fixed_input_size")


def _built_for(net: Any, name: str, image_px: Size, *, pretrained: bool) -> Any:
    """Build a net of fixed size for `image_px` if possible, else for its own (see `sizes.fit`)."""
    size = target(net, image_px)
    try:
        made = timm.create_model(name, pretrained=pretrained, num_classes=0, img_size=size)
    except (TypeError, RuntimeError, AssertionError):  # no such option, or weights of one size
        return net
    return made if takes(made, size) else net


def _timm_tower(net: Any, name: str, image_px: Size) -> Tower:
    resize_timm(net, image_px)
    return Tower(net, name, tuple(net.default_cfg["mean"]), tuple(net.default_cfg["std"]))
