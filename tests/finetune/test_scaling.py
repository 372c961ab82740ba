"""Scaling of maps: values and gradients are those of torch's kernel, whatever the sizes."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from finetune.scaling import scaled

SIDES = st.integers(1, 20)


def reference(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return interpolate(maps, size=size, mode="bilinear", align_corners=False)


@settings(max_examples=60, deadline=None)
@given(height=SIDES, width=SIDES, to_height=SIDES, to_width=SIDES)
def test_values_and_gradients_are_those_of_the_librarys_kernel(
    height: int, width: int, to_height: int, to_width: int
) -> None:
    torch.manual_seed(0)
    size = (to_height, to_width)
    maps = torch.randn(2, 3, height, width, requires_grad=True)
    wanted = torch.randn(2, 3, *size)
    own, theirs = scaled(maps, size), reference(maps, size)
    torch.testing.assert_close(own, theirs, atol=1e-5, rtol=1e-5)
    (own_gradient,) = torch.autograd.grad(own, maps, wanted)
    (gradient,) = torch.autograd.grad(theirs, maps, wanted)
    torch.testing.assert_close(own_gradient, gradient, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        assert torch.equal(scaled(maps, size), theirs)


def test_a_row_of_two_becomes_four() -> None:
    row = torch.tensor([[[[0.0, 8.0]]]], requires_grad=True)
    assert scaled(row, (1, 4)).tolist() == [[[[0.0, 2.0, 6.0, 8.0]]]]


def test_weights_are_not_rounded_by_autocast() -> None:
    maps = torch.randn(1, 2, 7, 7, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = scaled(maps, (19, 23))
        small = scaled(maps.bfloat16(), (19, 23))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, reference(maps, (19, 23)))
    assert small.dtype == torch.bfloat16
