from __future__ import annotations

import json
import pickle
from pathlib import Path

import open_clip
import pytest
import torch

from curator.core.errors import EngineError, UsageError
from pretrain.recipe import read_recipe
from pretrain.towers.init_weights import warm_start
from pretrain.towers.models import (
    build_clip,
    build_net,
    load_net,
    model_config,
    own_models,
    save_clip,
)
from tests.kit.train import CONV, SIDE, VIT, batch, config_file, objective, recipe


@pytest.mark.parametrize("name", own_models())
def test_our_own_models_can_be_built(name: str) -> None:
    config = model_config(name)
    side = config["vision_cfg"]["image_size"]
    net = build_net(config)
    assert net.visual(torch.zeros(2, 3, side, side)).shape == (2, config["embed_dim"])


def test_open_clip_reads_what_is_written(tmp_path: Path) -> None:
    """As any other local folder: the same features from the same weights."""
    clip = build_clip(recipe(tmp_path))
    clip.net.eval()
    save_clip(tmp_path / "model", clip)
    source = f"local-dir:{tmp_path / 'model'}"
    net, _, preprocess = open_clip.create_model_and_transforms(source)
    net.eval()
    pixels = torch.randn(2, 3, SIDE, SIDE)
    assert torch.equal(net.encode_image(pixels), clip.net.encode_image(pixels))
    tokens = open_clip.get_tokenizer(source)(["a red cube", "two dogs"])
    assert torch.equal(tokens, clip.tokenize(["a red cube", "two dogs"]))
    assert torch.equal(net.encode_text(tokens), clip.net.encode_text(tokens))
    assert tuple(preprocess.transforms[-1].mean) == clip.mean


def test_a_siglip_model_starts_with_its_scale_and_bias_and_keeps_the_bias(tmp_path: Path) -> None:
    clip = objective(recipe(tmp_path, objective="siglip")).clip
    assert clip.net.logit_scale.exp().item() == pytest.approx(10)
    assert clip.net.logit_bias.item() == -10
    save_clip(tmp_path / "model", clip)
    net = open_clip.create_model(f"local-dir:{tmp_path / 'model'}")
    assert net.logit_bias.item() == -10


def test_the_tokenizer_travels_to_worker_processes() -> None:
    tokenize = build_clip(read_recipe("demo")).tokenize
    again = pickle.loads(pickle.dumps(tokenize))
    assert torch.equal(again(["a red cube"]), tokenize(["a red cube"]))


def test_a_vit_takes_another_size_with_its_positions(tmp_path: Path) -> None:
    clip = build_clip(recipe(tmp_path))
    save_clip(tmp_path / "model", clip)
    config = json.loads((tmp_path / "model/open_clip_config.json").read_text())["model_cfg"]
    weights = tmp_path / "model/open_clip_model.safetensors"
    net = load_net(config, weights, image_px=(22, 31))  # 5.5 and 7.75 patches: 6 and 8
    assert net.visual.grid_size == (6, 8)
    assert net.visual.positional_embedding.shape == (1 + 48, 32)
    old, new = clip.net.visual.positional_embedding, net.visual.positional_embedding
    assert torch.equal(old[0], new[0])
    assert new[1:].mean().item() == pytest.approx(old[1:].mean().item(), abs=0.02)


@pytest.mark.parametrize(
    ("content", "what"),
    [("{", "is not a JSON object"), ("[]", "is not a JSON object"), ("{}", "lacks embed_dim")],
)
def test_a_file_that_is_no_config_is_said(tmp_path: Path, content: str, what: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=what):
        model_config(str(path))


def test_unknown_models_get_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'ViT-B-16'"):
        model_config("ViT-B16")
    with pytest.raises(UsageError, match="did you mean 'tiny-conv'"):
        model_config("tiny-cov")
    with pytest.raises(UsageError, match="cannot read the config"):
        model_config(str(tmp_path / "none.json"))


def test_a_config_that_makes_no_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot build the model"):
        build_net(model_config(config_file(tmp_path, VIT | {"width_": 3})))


def test_a_text_tower_from_a_hub_is_refused() -> None:
    with pytest.raises(UsageError, match="needs files from a hub"):
        build_clip(read_recipe("vit-b16").changed(["model=ViT-B-16-SigLIP"]))


def test_sizes_that_are_no_whole_patches_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="image_px is 18, not a multiple of the patch size 4"):
        build_clip(recipe(tmp_path, image_px=18))
    with pytest.raises(UsageError, match="image_px is 18, not a multiple of the patch size 4"):
        objective(recipe(tmp_path, image_px=18, objective="mae"))


def test_weights_of_another_model_and_pickles_are_refused(tmp_path: Path) -> None:
    save_clip(tmp_path / "model", build_clip(recipe(tmp_path)))
    weights = tmp_path / "model/open_clip_model.safetensors"
    other = model_config(config_file(tmp_path, VIT | {"width": 64}))
    with pytest.raises(EngineError, match="cannot load the model"):
        load_net(other, weights)
    with pytest.raises(UsageError, match=r"must be a \.safetensors file"):
        load_net(other, tmp_path / "weights.pt")


# -- warm starts -----------------------------------------------------------------------------------


def test_a_warm_start_takes_the_image_tower_and_leaves_the_texts(tmp_path: Path) -> None:
    first = objective(recipe(tmp_path, seed=1))
    first.save(tmp_path / "run/model")
    second = objective(recipe(tmp_path, seed=2, init=str(tmp_path / "run")))
    images, tokens = batch(0).images, batch(0).tokens
    assert torch.equal(first.encode_images(images), second.encode_images(images))
    assert not torch.equal(first.encode_texts(tokens), second.encode_texts(tokens))


def test_mae_and_simmim_start_from_their_like(tmp_path: Path) -> None:
    for name in ("mae", "simmim"):
        first = objective(recipe(tmp_path, objective=name, seed=1))
        first.save(tmp_path / name / "model")
        second = objective(recipe(tmp_path, objective=name, seed=2, init=str(tmp_path / name)))
        key = next(key for key in first.state_dict() if key.endswith("conv1.weight") or
                   key.endswith("projection.weight"))  # fmt: skip
        assert torch.equal(first.state_dict()[key], second.state_dict()[key])


def test_a_timm_model_starts_the_trunk(tmp_path: Path) -> None:
    side = int(CONV["image_size"])
    made = recipe(tmp_path, vision=CONV, image_px=side, init="random:timm:test_convnext", seed=3)
    visual = build_clip(made.changed(["init=none"])).net.visual
    before = visual.trunk.stem[0].weight.clone()
    warm_start(visual, made)
    assert not torch.equal(before, visual.trunk.stem[0].weight)


def test_another_architecture_is_no_start(tmp_path: Path) -> None:
    made = recipe(tmp_path, init="random:tiny-vit")
    with pytest.raises(UsageError, match="does not fit the image tower"):
        objective(made)
