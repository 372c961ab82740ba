"""timm nets as backbones: what holds for every architecture at any size, and rates by depth.

Weights are random; nothing is fetched.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from curator.core.errors import UsageError
from finetune.options import DenseOptions
from finetune.tasks.base import PixelTask
from pretrain.towers.backbone import Backbone, load_backbone
from pretrain.towers.layer_groups import by_stage
from pretrain.towers.sizes import fit, rounded_up, whole_patches
from tests.kit.dense import TinyConv, TinyPlain

SIZES = [(64, 96), (75, 109)]
"""A size of whole patches, and one that no patch, window or stride divides."""

ARCHITECTURES = [
    # conv nets
    "test_convnext", "test_resnet", "test_efficientnet", "test_nfnet", "test_byobnet",
    "test_mambaout", "fastvit_t8", "resnet50_clip",
    # plain ViTs: position embeddings, relative ones, rotary ones, distilled
    "test_vit", "deit_tiny_distilled_patch16_224", "eva02_tiny_patch14_224",
    "vit_relpos_small_patch16_224",
    # windows and grids
    "swin_tiny_patch4_window7_224", "swinv2_cr_tiny_ns_224", "maxvit_rmlp_pico_rw_256",
    "coatnet_nano_rw_224",
    # hybrids, and nets that are made for a size
    "mobilevit_xxs", "edgenext_xx_small", "hiera_tiny_224", "levit_128s", "cait_xxs24_224",
]  # fmt: skip
MORE = [
    "swinv2_tiny_window8_256", "beit_base_patch16_224", "vit_small_r26_s32_224", "convnextv2_atto",
    "maxvit_tiny_tf_224", "deit3_small_patch16_224", "flexivit_small", "vit_small_patch14_dinov2",
    "vit_small_patch16_dinov3", "pvt_v2_b0", "poolformer_s12", "davit_tiny", "hrnet_w18_small",
    "fastvit_mci2", "mobilenetv4_hybrid_medium", "efficientvit_b0", "swin_s3_tiny_224",
]  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def check(name: str, size: tuple[int, int]) -> None:
    """What holds for every net: four maps over the whole image, and gradients everywhere."""
    backbone = load_backbone(f"random:timm:{name}", image_px=size)
    generator = torch.Generator().manual_seed(0)
    maps = backbone(torch.randn(2, 3, *size, generator=generator))
    assert len(maps) == len(backbone.channels) == len(backbone.strides) == 4
    for found, channels, stride in zip(maps, backbone.channels, backbone.strides, strict=True):
        assert found.shape[:2] == (2, channels)
        assert found.isfinite().all()
        for side, pixels in zip(found.shape[2:], size, strict=True):
            assert abs(side - pixels / stride) <= 1
    grouped = [parameter for group in backbone.layer_groups() for parameter in group]
    assert {id(one) for one in grouped} == {id(one) for one in backbone.parameters()}
    assert len(grouped) == len(list(backbone.parameters()))
    sum(found.sum() for found in maps).backward()
    assert any(one.grad is not None for one in backbone.layer_groups()[0])
    if backbone.image_px is not None:
        assert backbone.image_px == size
        with pytest.raises(UsageError, match="was loaded for images of"):
            backbone(torch.zeros(1, 3, size[0] + 32, size[1]))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_any_net_at_any_size(name: str, size: tuple[int, int]) -> None:
    check(name, size)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", MORE)
def test_more_nets_at_any_size(name: str, size: tuple[int, int]) -> None:
    check(name, size)


def test_a_net_of_one_size_is_refused_with_the_size_that_it_takes() -> None:
    """CrossViT resizes every image to 240 pixels by itself: its maps are not those of the image."""
    with pytest.raises(UsageError, match="it takes 240x240") as error:
        load_backbone("random:timm:crossvit_tiny_240", image_px=(64, 96))
    assert error.value.code == 2
    assert "does not take images of 64x96 pixels" in str(error.value)
    assert load_backbone("random:timm:crossvit_tiny_240", image_px=(240, 240)).is_pyramid


def test_weights_of_one_size_are_refused_at_another_one(tmp_path: Path) -> None:
    """Hiera's position embeddings can be made for a size, but those of a file are of one."""
    net = timm.create_model("hiera_tiny_224", num_classes=0)
    save_file(net.state_dict(), tmp_path / "hiera.safetensors")
    spec = f"timm:hiera_tiny_224:{tmp_path / 'hiera.safetensors'}"
    with pytest.raises(
        UsageError, match=r"does not take images of 64x96 pixels .* it takes 224x224"
    ):
        load_backbone(spec, image_px=(64, 96))
    assert load_backbone(spec, image_px=(224, 224)).image_px is None


def test_a_mixer_can_be_made_for_a_size() -> None:
    """Its weights are of one number of patches: random ones can be of any."""
    backbone = load_backbone("random:timm:mixer_s32_224", image_px=(64, 96))
    assert backbone(torch.zeros(1, 3, 64, 96))[3].shape == (1, 512, 2, 3)


def test_windows_of_swin_stay_as_they_were_trained() -> None:
    """timm would scale windows of 7 on maps of 56 to windows of 16 on maps of 128."""
    backbone: Any = load_backbone("random:timm:swin_tiny_patch4_window7_224", image_px=(512, 512))
    windows = [stage.blocks[0].window_size for stage in backbone.trunk.layers]
    assert windows == [(7, 7)] * 4


def test_a_table_of_biases_is_resized_not_scrambled() -> None:
    """A net of windows of 2 x 3 is made by hand: biases that grow along a row do so afterwards."""
    net = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0)
    last = net.layers[3].blocks[0].attn
    rows = torch.arange(13.0).repeat_interleave(13)
    with torch.no_grad():
        last.relative_position_bias_table.copy_(rows[:, None].expand(-1, 24))
    fit(net, (64, 96), "net")  # the map of the last stage has 2 x 3 cells, 3 x 5 offsets
    assert last.window_size == (2, 3)
    table = last.relative_position_bias_table[:, 0].view(3, 5)
    assert (table.diff(dim=0) > 0).all()
    torch.testing.assert_close(table, table[:, :1].expand(-1, 5))


def test_at_its_own_size_swin_gives_what_timm_gives() -> None:
    backbone: Any = load_backbone("random:timm:swin_tiny_patch4_window7_224", image_px=(224, 224))
    torch.manual_seed(1)
    images = torch.randn(1, 3, 224, 224)
    plain = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0).eval()
    plain.load_state_dict(backbone.trunk.state_dict(), strict=False)
    with torch.no_grad():
        wanted = plain.forward_intermediates(images, intermediates_only=True)
        found = backbone.eval()(images)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_padding_is_the_mean_colour_and_is_cut_off_again() -> None:
    """75 x 109 is padded to 96 x 128; the maps cover 19 x 28 down to 3 x 4 cells."""
    backbone = load_backbone("random:timm:swin_tiny_patch4_window7_224", image_px=(75, 109)).eval()
    around = load_backbone("random:timm:swin_tiny_patch4_window7_224", image_px=(96, 128)).eval()
    around.load_state_dict(backbone.state_dict())
    image = torch.randn(1, 3, 75, 109, generator=torch.Generator().manual_seed(0))
    padded = torch.zeros(1, 3, 96, 128)
    padded[..., :75, :109] = image
    with torch.no_grad():
        found, wanted = backbone(image), around(padded)
    assert [tuple(one.shape[2:]) for one in found] == [(19, 28), (10, 14), (5, 7), (3, 4)]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other[..., : one.shape[2], : one.shape[3]])


def test_sizes_by_hand() -> None:
    assert rounded_up((75, 109), 32) == (96, 128)
    assert rounded_up((64, 96), 32) == (64, 96)
    assert whole_patches((75, 109), 14) == (70, 112)
    net = timm.create_model("test_resnet", num_classes=0)
    assert fit(net, (75, 109), "net") == ((75, 109), False)


def test_trying_a_size_moves_no_statistic() -> None:
    net = timm.create_model("test_resnet", num_classes=0)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    fit(net, (64, 64), "net")
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


# -- rates by depth --------------------------------------------------------------------------------


def scales(backbone: Backbone, **options: Any) -> list[float]:
    """Shares of the head's rate, deepest layer first."""
    task = PixelTask(backbone, DenseOptions(task="segmentation", **options), 3)
    heads, *layers = task.groups()
    assert heads.lr_scale == 1
    return [group.lr_scale for group in layers]


def test_rates_of_a_plain_vit_fall_by_block() -> None:
    """12 blocks and the embedding: 0.65, 0.65^2, ... 0.65^13 = 0.0037."""
    backbone = load_backbone("random:timm:vit_tiny_patch16_224", image_px=(64, 64))
    found = scales(backbone)
    assert found == pytest.approx([0.65**depth for depth in range(1, 14)])
    assert found[-1] == pytest.approx(0.0037, abs=1e-4)
    embedding = {id(one) for one in backbone.layer_groups()[0]}
    trunk: Any = backbone.trunk  # type: ignore[attr-defined]  # a timm net
    assert {id(trunk.pos_embed), id(trunk.patch_embed.proj.weight)} <= embedding


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("random:timm:test_convnext", (64, 64)),
        ("random:timm:fastvit_mci2", (64, 64)),
        ("random:timm:swin_tiny_patch4_window7_224", (64, 64)),
        ("random:tiny-conv", (64, 64)),
    ],
)
def test_rates_of_a_pyramid_fall_by_stage(name: str, size: tuple[int, int]) -> None:
    """Four stages and a stem: 0.9, 0.81, 0.729, 0.6561, 0.59049, however many blocks there are."""
    backbone = load_backbone(name, image_px=size)
    assert scales(backbone) == pytest.approx([0.9, 0.81, 0.729, 0.6561, 0.59049])


@pytest.mark.parametrize("name", ["test_convnext", "fastvit_mci2", "swin_tiny_patch4_window7_224"])
def test_each_stage_is_one_group(name: str) -> None:
    backbone: Any = load_backbone(f"random:timm:{name}", image_px=(64, 64))
    stages = backbone.trunk.stages if hasattr(backbone.trunk, "stages") else backbone.trunk.layers
    stem, *groups = backbone.layer_groups()
    for group, stage in zip(groups, stages, strict=True):
        assert {id(one) for one in stage.parameters()} <= {id(one) for one in group}
    inside = {id(one) for stage in stages for one in stage.parameters()}
    assert stem
    assert not inside & {id(one) for one in stem}


def test_blocks_that_are_not_sorted_into_stages_are_grouped_by_the_maps_that_they_end_in() -> None:
    """Hiera's twelve blocks are in one list; its stages end with blocks 0, 2, 9 and 11."""
    backbone: Any = load_backbone("random:timm:hiera_tiny_224", image_px=(224, 224))
    names = {id(one): name for name, one in backbone.trunk.named_parameters()}
    blocks = [
        {int(names[id(one)].split(".")[1]) for one in group if names[id(one)].startswith("blocks.")}
        for group in backbone.layer_groups()
    ]
    assert blocks == [set(), {0}, {1, 2}, set(range(3, 10)), {10, 11}]


def test_a_net_without_groups_of_timm_is_divided_by_its_modules() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 1)
            self.stages = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(2))
            self.act = nn.ReLU()

    net = Net()
    groups = by_stage(net, ["stages.0", "act"])
    assert [len(group) for group in groups] == [2, 2, 2]
    assert groups[2] == list(net.stages[1].parameters())


def test_layer_decay_can_be_set() -> None:
    assert scales(TinyConv(), layer_decay=0.5) == [0.5, 0.25, 0.125, 0.0625]
    assert scales(TinyPlain(), layer_decay=1.0) == [1.0] * 5
    assert math.prod(scales(TinyConv())) == pytest.approx(0.9 ** (1 + 2 + 3 + 4))
