"""Necks and heads: shapes for pyramids and single-stride maps, of odd sizes too; linearity."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from finetune.heads import DECODERS, LinearHead, head_width
from finetune.necks import SimpleFeaturePyramid

CHANNELS = (8, 12, 16, 24)
HEADS = {"linear": LinearHead, **DECODERS}


def pyramid(height: int, width: int, batch: int = 2) -> list[torch.Tensor]:
    """Maps of a conv net that halves and rounds up."""
    maps = []
    for channels in CHANNELS:
        maps.append(torch.randn(batch, channels, height, width))
        height, width = -(-height // 2), -(-width // 2)
    return maps


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("size", [(16, 16), (17, 23), (9, 31), (3, 2)])
def test_a_head_answers_at_the_size_of_the_finest_map(name: str, size: tuple[int, int]) -> None:
    head = HEADS[name](CHANNELS, 5).eval()
    assert head(pyramid(*size)).shape == (2, 5, *size)


@pytest.mark.parametrize("name", HEADS)
def test_every_weight_of_a_head_is_used(name: str) -> None:
    head = HEADS[name](CHANNELS, 5)
    head(pyramid(17, 23)).square().mean().backward()
    assert [n for n, p in head.named_parameters() if p.grad is None] == []


@settings(max_examples=15, deadline=None)
@given(height=st.integers(1, 12), width=st.integers(1, 12))
def test_the_neck_of_a_plain_vit_makes_a_pyramid_of_any_map(height: int, width: int) -> None:
    neck = SimpleFeaturePyramid(16, 16, 8)
    maps = neck([torch.randn(1, 16, height, width)] * 4)
    half = (-(-height // 2), -(-width // 2))
    sizes = [(height * 4, width * 4), (height * 2, width * 2), (height, width), half]
    assert [tuple(level.shape) for level in maps] == [(1, 8, *size) for size in sizes]
    assert (neck.channels, neck.strides) == ((8,) * 4, (4, 8, 16, 32))


@pytest.mark.parametrize("name", ["fpn", "upernet"])
def test_heads_fit_the_neck(name: str) -> None:
    neck = SimpleFeaturePyramid(16, 8, 8)
    head = HEADS[name](neck.channels, 3).eval()
    assert head(neck([torch.randn(2, 16, 5, 7)] * 4)).shape == (2, 3, 20, 28)


def test_the_linear_head_is_the_1x1_convolution_on_concatenated_maps() -> None:
    head = LinearHead(CHANNELS, 5).eval()
    maps = pyramid(12, 10)
    shares = [share.weight for share in head.shares]
    whole = torch.nn.Conv2d(sum(CHANNELS), 5, 1)
    with torch.no_grad():
        whole.weight.copy_(torch.cat(shares, 1))
        whole.bias.copy_(head.shares[0].bias)
        scaled = [
            interpolate(norm(level), size=(12, 10), mode="bilinear", align_corners=False)
            for norm, level in zip(head.norms, maps, strict=True)
        ]
        torch.testing.assert_close(head(maps), whole(torch.cat(scaled, 1)))


def test_heads_are_as_wide_as_the_papers_or_as_the_backbone() -> None:
    assert head_width(256, (80, 160, 320, 640)) == 256
    assert head_width(512, (24, 32, 96, 90)) == 96
    assert head_width(256, (3, 5)) == 16
