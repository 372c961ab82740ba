from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import ViTMAEForPreTraining

from curator.core.errors import CuratorError, EngineError, NotFoundError, UsageError
from pretrain.towers.backbone import Backbone, load_backbone, spread
from tests.kit.train import CONV, SIDE, batch, objective, recipe


def maps_of(backbone: Backbone, height: int, width: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        return backbone.eval()(torch.randn(2, 3, height, width, generator=generator))


def check(backbone: Backbone, height: int, width: int) -> None:
    """What holds for every backbone."""
    maps = maps_of(backbone, height, width)
    assert len(maps) == len(backbone.channels) == len(backbone.strides) == 4
    for found, channels, stride in zip(maps, backbone.channels, backbone.strides, strict=True):
        assert found.shape[:2] == (2, channels)
        for side, wanted in zip(found.shape[2:], (height, width), strict=True):
            assert abs(side * stride - wanted) < stride
    groups = backbone.layer_groups()
    grouped = [parameter for group in groups for parameter in group]
    assert len(groups) > 2
    assert {id(p) for p in grouped} == {id(p) for p in backbone.parameters()}
    assert len(grouped) == len(list(backbone.parameters()))
    backbone.train()
    sum(found.sum() for found in backbone(torch.randn(2, 3, height, width))).backward()
    assert all(parameter.grad is not None for parameter in grouped)
    assert len(backbone.mean) == len(backbone.std) == 3


@pytest.mark.parametrize(
    ("name", "size", "channels", "strides"),
    [
        ("random:tiny-conv", (96, 64), (96, 192, 384, 768), (4, 8, 16, 32)),
        ("random:tiny-vit", (30, 41), (192,) * 4, (4,) * 4),
        ("random:timm:test_convnext", (64, 96), (24, 32, 48, 64), (4, 8, 16, 32)),
        ("random:timm:test_resnet", (64, 96), (32, 48, 192, 96), (4, 8, 16, 32)),
        ("random:timm:test_vit", (60, 100), (64,) * 4, (16,) * 4),
    ],
)
def test_four_maps_of_any_size(
    name: str, size: tuple[int, int], channels: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    backbone = load_backbone(name, image_px=size)
    assert (backbone.name, backbone.channels, backbone.strides) == (name, channels, strides)
    assert backbone.is_pyramid is (len(set(strides)) > 1)
    check(backbone, *size)


@pytest.mark.parametrize("name", ["random:tiny-vit", "random:timm:test_vit"])
def test_the_final_norm_of_a_plain_vit_is_left_out_unless_asked_for(name: str) -> None:
    """A layer norm that was not trained gives mean 0 and variance 1 over the channels."""
    without, normed = (
        maps_of(load_backbone(name, image_px=(32, 32), final_norm=asked), 32, 32)[-1]
        for asked in (False, True)
    )
    assert normed.mean(1).abs().max() < 1e-5
    assert (normed.var(1, correction=0) - 1).abs().max() < 1e-2
    assert without.mean(1).abs().max() > 1e-3
    centred = without - without.mean(1, keepdim=True)
    wanted = centred / (without.var(1, correction=0, keepdim=True) + 1e-6).sqrt()
    assert torch.allclose(normed, wanted, atol=1e-2)


@pytest.mark.slow
def test_mobileclip_s2_at_the_size_of_a_camera_image() -> None:
    backbone = load_backbone("random:MobileCLIP-S2", image_px=(360, 480))
    assert backbone.channels == (80, 160, 320, 640)
    assert backbone.strides == (4, 8, 16, 32)
    maps = maps_of(backbone, 360, 480)
    assert [tuple(m.shape[2:]) for m in maps] == [(90, 120), (45, 60), (23, 30), (12, 15)]


@pytest.mark.slow
def test_vit_b16_at_the_size_of_a_camera_image() -> None:
    backbone = load_backbone("random:ViT-B-16", image_px=(360, 480))
    assert [tuple(m.shape[1:]) for m in maps_of(backbone, 360, 480)] == [(768, 22, 30)] * 4


@pytest.mark.parametrize("layers", [1, 2, 3, 4, 5, 6, 12, 24])
def test_layers_are_spread_over_the_depth(layers: int) -> None:
    found = spread(layers)
    assert found[-1] == layers - 1
    assert len(found) == min(4, layers)
    assert spread(12) == [2, 5, 8, 11]


# -- what a run leaves -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["clip", "siglip", "simmim", "mae"])
def test_a_run_of_every_objective_comes_out_with_its_weights(tmp_path: Path, name: str) -> None:
    made = objective(recipe(tmp_path, objective=name, seed=4))
    made.save(tmp_path / "run/model")
    backbone = load_backbone(str(tmp_path / "run"), image_px=(SIDE, SIDE))
    assert (backbone.name, backbone.channels, backbone.strides) == ("run", (32,) * 4, (4,) * 4)
    check(backbone, SIDE, SIDE)
    pixels = made.normalise(batch(0).images)
    with torch.no_grad():
        found = load_backbone(str(tmp_path / "run"), image_px=(SIDE, SIDE))(pixels)[-1]
        wanted = _last_tokens(made, name, pixels)
    torch.testing.assert_close(found.flatten(2).mT, wanted)
    other = load_backbone(f"random:{tmp_path / 'run'}", image_px=(24, 20), seed=1)
    assert other.channels == backbone.channels
    check(other, 24, 20)


def _last_tokens(made: Any, name: str, pixels: torch.Tensor) -> torch.Tensor:
    """Patches after the last block, by the library's own forward."""
    if name == "mae":
        net: ViTMAEForPreTraining = made.net
        net.config.mask_ratio = 0.0
        noise = torch.arange(16.0).expand(len(pixels), -1)
        net.vit.layernorm = torch.nn.Identity()
        hidden: torch.Tensor = net.vit(pixels, noise=noise).last_hidden_state
        return hidden[:, 1:]
    visual = made.clip.net.visual
    visual.ln_post = torch.nn.Identity()
    tokens: torch.Tensor = visual._pool(visual.transformer(visual._embeds(pixels)))[1]
    return tokens


def test_a_conv_run_takes_any_size_and_a_vit_only_its_own(tmp_path: Path) -> None:
    side = int(CONV["image_size"])
    objective(recipe(tmp_path, vision=CONV, image_px=side)).save(tmp_path / "conv/model")
    conv = load_backbone(str(tmp_path / "conv"), image_px=(64, 64))
    assert conv.image_px is None
    assert conv(torch.zeros(1, 3, 96, 32))[0].shape[2:] == (24, 8)
    objective(recipe(tmp_path)).save(tmp_path / "vit/model")
    vit = load_backbone(str(tmp_path / "vit"), image_px=(20, 24))
    assert vit.image_px == (20, 24)
    with pytest.raises(UsageError, match=r"was loaded for images of \(20, 24\) pixels"):
        vit(torch.zeros(1, 3, 24, 20))


def test_at_the_size_of_pretraining_positions_are_untouched(tmp_path: Path) -> None:
    made = objective(recipe(tmp_path, objective="mae"))
    made.save(tmp_path / "run/model")
    backbone: Any = load_backbone(str(tmp_path / "run"), image_px=(SIDE, SIDE))
    assert torch.equal(backbone.positions, made.net.vit.embeddings.position_embeddings)
    assert backbone.positions.requires_grad


def test_a_seed_gives_the_same_random_weights() -> None:
    one, same, other = (
        load_backbone("random:tiny-conv", image_px=(64, 64), seed=seed) for seed in (0, 0, 1)
    )
    first = maps_of(one, 64, 64)[3]
    assert torch.equal(first, maps_of(same, 64, 64)[3])
    assert not torch.equal(first, maps_of(other, 64, 64)[3])


# -- files and names -------------------------------------------------------------------------------


def test_weights_from_files(tmp_path: Path) -> None:
    made = objective(recipe(tmp_path))
    made.save(tmp_path / "model")
    config, weights = made.clip.config, tmp_path / "model/open_clip_model.safetensors"
    assert config["vision_cfg"]["width"] == 32
    named = load_backbone(f"open_clip:{tmp_path / 'tiny.json'}:{weights}", image_px=(SIDE, SIDE))
    folder = load_backbone(str(tmp_path / "model"), image_px=(SIDE, SIDE))
    assert torch.equal(maps_of(named, SIDE, SIDE)[3], maps_of(folder, SIDE, SIDE)[3])
    trunk: Any = load_backbone("random:timm:test_convnext", image_px=(64, 64), seed=5)
    save_file(trunk.trunk.state_dict(), tmp_path / "timm.safetensors")
    again = load_backbone(f"timm:test_convnext:{tmp_path / 'timm.safetensors'}", image_px=(64, 64))
    assert torch.equal(maps_of(again, 64, 64)[3], maps_of(trunk, 64, 64)[3])


def test_a_file_of_another_timm_model_is_refused(tmp_path: Path) -> None:
    other: Any = load_backbone("random:timm:test_vit", image_px=(64, 64))
    save_file(other.trunk.state_dict(), tmp_path / "vit.safetensors")
    with pytest.raises(EngineError, match=r"the file lacks [0-9]+ weights of timm:test_convnext"):
        load_backbone(f"timm:test_convnext:{tmp_path / 'vit.safetensors'}", image_px=(64, 64))


@pytest.mark.parametrize(
    ("spec", "kind", "what"),
    [
        ("runs/none", NotFoundError, "no such folder"),
        ("huge:model", UsageError, "unknown backbone 'huge:model'"),
        ("open_clip:ViT-B-16", UsageError, "does not name weights"),
        ("open_clip:ViT-B-16:none.safetensors", NotFoundError, "no such weights"),
        ("timm:convnext_tinny", UsageError, "did you mean 'convnext_tiny'"),
        ("timm:test_vit:weights.pth", UsageError, "must be a .safetensors file"),
        ("random:tiny-cov", UsageError, "did you mean 'tiny-conv'"),
    ],
)
def test_names_that_stand_for_nothing(spec: str, kind: type[CuratorError], what: str) -> None:
    with pytest.raises(kind) as error:
        load_backbone(spec, image_px=(64, 64))
    assert what in str(error.value)


def test_an_unfinished_run_says_how_to_finish_it(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(NotFoundError, match="run the same `curator pretrain` again"):
        load_backbone(str(tmp_path), image_px=(64, 64))
