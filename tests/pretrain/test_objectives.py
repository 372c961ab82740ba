from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.loss import SigLipLoss
from torch.nn import functional as F

from curator.core.errors import UsageError
from pretrain.objectives import Accumulating
from pretrain.objectives.clip import multi_positive
from pretrain.objectives.images import Normalise
from pretrain.objectives.mae import mae_config
from pretrain.objectives.simmim import square_px
from tests.kit.train import CONV, VIT, batch, gradients, objective, recipe

E = math.e


def unit(*angles_deg: float) -> torch.Tensor:
    radians = torch.tensor(angles_deg).deg2rad()
    return torch.stack([radians.cos(), radians.sin()], 1)


# -- contrastive, by hand --------------------------------------------------------------------------


def test_two_images_and_three_texts_worked_out_by_hand() -> None:
    """Image 0 owns texts 0 and 1, image 1 owns text 2; the cosines are 1, 0 and 0 or 1 and scale 1.

    images x texts = [[1, 1, 0], [0, 0, 1]]
    image 0: both texts have e / (2e + 1); image 1: its text has e / (e + 2)
    texts: each has e / (e + 1) for its image; image 0's two count as one
    """
    images, texts = unit(0, 90), unit(0, 0, 90)
    loss = multi_positive(images, texts, torch.tensor([0, 0, 1]), torch.tensor(1.0))
    to_text = (-math.log(E / (2 * E + 1)) - math.log(E / (E + 2))) / 2
    to_image = -math.log(E / (E + 1))
    assert loss.item() == pytest.approx((to_text + to_image) / 2, abs=1e-6)


def test_an_image_with_many_texts_weighs_no_more() -> None:
    """Text to image: the ten wrong texts of image 0 are averaged before image 1 is counted."""
    owners = torch.tensor([0] * 10 + [1])
    texts = unit(*[90] * 10, 90)
    scale = torch.tensor(1.0)
    loss = multi_positive(unit(0, 90), texts, owners, scale)
    wrong, right = -math.log(1 / (E + 1)), -math.log(E / (E + 1))
    to_text = math.log(11)  # all texts are alike for either image
    assert loss.item() == pytest.approx((to_text + (wrong + right) / 2) / 2, abs=1e-6)


def test_with_one_text_an_image_it_is_clip() -> None:
    generator = torch.Generator().manual_seed(0)
    images, texts = (F.normalize(torch.randn(6, 8, generator=generator), dim=1) for _ in range(2))
    scale = torch.tensor(7.0)
    mine = multi_positive(images, texts, torch.arange(6), scale)
    theirs: Any = open_clip.ClipLoss()
    torch.testing.assert_close(mine, theirs(images, texts, scale))


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_the_loss_and_its_gradients_are_those_of_open_clip(tmp_path: Path, name: str) -> None:
    """Through the model's own forward, with texts at full length and in their own order."""
    mine, whole = objective(recipe(tmp_path, objective=name)), batch(0, size=64)
    losses = mine.losses(whole)
    torch.autograd.backward(losses["loss"])
    found = gradients(mine)
    mine.zero_grad()
    pixels = mine.normalise(whole.images)
    outputs = mine.model(image=pixels, text=whole.tokens)
    reference: Any = open_clip.ClipLoss() if name == "clip" else SigLipLoss()
    loss = reference(*outputs)
    torch.autograd.backward(loss)
    torch.testing.assert_close(losses["loss"], loss)
    for key, value in gradients(mine).items():
        torch.testing.assert_close(found[key], value, msg=key)
    assert losses["logit_scale"].item() == pytest.approx(10 if name == "siglip" else 1 / 0.07)


def test_accuracy_is_the_share_of_images_nearest_to_a_text_of_their_own(tmp_path: Path) -> None:
    made = objective(recipe(tmp_path, captions="all"))
    owners = torch.tensor([0, 0, 1])
    losses = made._losses(unit(0, 40), unit(5, 90, 45), owners)
    assert losses["accuracy"].item() == 1
    losses = made._losses(unit(0, 40), unit(30, 90, 0), owners)  # each is nearest to the other's
    assert losses["accuracy"].item() == 0


def test_the_logit_scale_stays_below_a_hundred(tmp_path: Path) -> None:
    made = objective(recipe(tmp_path))
    with torch.no_grad():
        made.model.logit_scale.fill_(9.0)
    assert made.losses(batch(0))["logit_scale"].item() == pytest.approx(100, rel=1e-5)


# -- a batch in parts ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["clip", "siglip", "mae", "simmim"])
@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_has_the_loss_and_gradients_of_the_whole(
    tmp_path: Path, name: str, parts: int
) -> None:
    whole = batch(0)
    made = objective(recipe(tmp_path, objective=name))
    assert isinstance(made, Accumulating)
    torch.manual_seed(5)
    losses = made.losses(whole)
    torch.autograd.backward(losses["loss"])
    wanted = gradients(made)
    made.zero_grad()
    torch.manual_seed(5)
    found = made.backward_in_parts(whole, parts, nullcontext)
    torch.testing.assert_close(found["loss"], losses["loss"])
    got = gradients(made)
    assert set(got) == set(wanted)
    for key, value in wanted.items():
        torch.testing.assert_close(got[key], value, rtol=1e-4, atol=1e-6, msg=key)


def test_parts_may_have_different_numbers_of_texts(tmp_path: Path) -> None:
    whole = batch(0, texts=(1, 4, 2, 1, 1, 3, 1, 1))
    made = objective(recipe(tmp_path, captions="all"))
    losses = made.losses(whole)
    torch.autograd.backward(losses["loss"])
    wanted = gradients(made)
    made.zero_grad()
    made.backward_in_parts(whole, 3, nullcontext)
    for key, value in gradients(made).items():
        torch.testing.assert_close(value, wanted[key], rtol=1e-4, atol=1e-6, msg=key)


# -- texts by length -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 31, 70])
def test_texts_are_encoded_as_if_alone_and_in_their_order(tmp_path: Path, size: int) -> None:
    made = objective(recipe(tmp_path))
    tokens = batch(0, size=size).tokens
    alone = made.model.encode_text(tokens, normalize=True)
    torch.testing.assert_close(made.encode_texts(tokens), alone)
    longest = int(tokens.argmax(1).max()) + 1
    torch.testing.assert_close(made._cut(tokens, longest), alone)  # as a GPU does


def test_texts_in_groups_have_the_gradients_of_texts_alone(tmp_path: Path) -> None:
    made = objective(recipe(tmp_path))
    tokens = batch(0, size=70).tokens
    weights = torch.randn(70, 1, generator=torch.Generator().manual_seed(0))
    (made.encode_texts(tokens) * weights).sum().backward()
    found = gradients(made)
    made.zero_grad()
    (made.model.encode_text(tokens, normalize=True) * weights).sum().backward()
    alone = gradients(made)
    assert found.keys() == alone.keys()
    for name, value in found.items():
        assert (value - alone[name]).norm() < 1e-5 * alone[name].norm(), name


# -- pixels ----------------------------------------------------------------------------------------


def test_pixels_are_normalised_as_torchvision_does() -> None:
    images = torch.arange(2 * 3 * 4 * 4).view(2, 3, 4, 4).byte()
    found = Normalise((0.5, 0.4, 0.3), (0.2, 0.25, 0.5))(images)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.5, 0.4, 0.3), (0.2, 0.25, 0.5)))
    torch.testing.assert_close(found, (images / 255 - mean) / std)
    assert found.is_contiguous(memory_format=torch.channels_last)


# -- masked images ---------------------------------------------------------------------------------


def test_mae_is_the_library_on_the_same_noise(tmp_path: Path) -> None:
    made = objective(recipe(tmp_path, objective="mae"))
    pixels = made.normalise(batch(0).images)
    torch.manual_seed(3)
    noise = torch.rand(8, 16)
    wanted = made.net(pixels, noise=noise)
    torch.manual_seed(3)
    assert made.losses(batch(0))["loss"].item() == wanted.loss.item()
    assert wanted.mask.sum(1).tolist() == [12] * 8  # 75 % of 16 patches


def test_mae_has_the_shape_of_the_image_tower(tmp_path: Path) -> None:
    found = mae_config(recipe(tmp_path, objective="mae"))
    assert (found.hidden_size, found.num_hidden_layers, found.num_attention_heads) == (32, 2, 2)
    assert (found.patch_size, found.image_size, found.norm_pix_loss) == (4, 16, True)
    base = mae_config(recipe(tmp_path, objective="mae", model="ViT-B-16", image_px=224))
    decoder = (base.decoder_hidden_size, base.decoder_num_hidden_layers)
    assert decoder == (512, 8)
    assert base.decoder_num_attention_heads == 16


def test_mae_of_a_conv_net_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='objective = "simmim"'):
        objective(recipe(tmp_path, objective="mae", vision=CONV))


@pytest.mark.parametrize("vision", [VIT, CONV], ids=["vit", "conv"])
def test_simmim_trains_any_tower(tmp_path: Path, vision: dict[str, Any]) -> None:
    side = int(vision["image_size"])
    made = objective(recipe(tmp_path, objective="simmim", vision=vision, image_px=side))
    torch.autograd.backward(made.losses(batch(0, side=side))["loss"])
    grads = gradients(made)
    first = "conv1" if vision is VIT else "stem.0"
    assert any(first in key and grad.abs().sum() > 0 for key, grad in grads.items())
    assert grads["net.colour"].abs().sum() > 0


def test_simmim_looks_at_hidden_squares_only(tmp_path: Path) -> None:
    """With 16 px there are 8 x 8 squares of 2 px; 60 % of 64 are hidden: 38 with the most noise."""
    made = objective(recipe(tmp_path, objective="simmim", simmim={"mask": 0.6}))
    made.square, made.side, made.num_units, made.num_hidden = 2, 8, 64, 38
    pixels, noise = made.normalise(batch(0).images), torch.arange(64.0).expand(8, -1)
    with torch.no_grad():
        first = made.loss_of(pixels, noise)
        seen = noise[0].view(8, 8).repeat_interleave(2, 0).repeat_interleave(2, 1) < 64 - 38
        made.net.forward = lambda *_: torch.where(seen, 1e6, 0.0).expand(8, 3, 16, 16)
        second = made.loss_of(pixels, noise)
    assert first.isfinite()
    assert second < 10  # what is rebuilt of the squares that are seen does not count


def test_simmim_targets_are_normalised_within_a_square(tmp_path: Path) -> None:
    made = objective(recipe(tmp_path, objective="simmim"))
    targets = made._targets(made.normalise(batch(0).images))
    squares = targets.unfold(2, made.square, made.square).unfold(3, made.square, made.square)
    values = squares.permute(0, 2, 3, 1, 4, 5).flatten(3)
    torch.testing.assert_close(values.mean(3), torch.zeros(values.shape[:3]), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        values.std(3, correction=0), torch.ones(values.shape[:3]), atol=1e-2, rtol=0
    )


@pytest.mark.parametrize(
    ("image_px", "patch", "side"), [(64, 1, 8), (192, 1, 32), (224, 16, 32), (224, 14, 42)]
)
def test_squares_are_about_an_eighth_of_the_side(image_px: int, patch: int, side: int) -> None:
    assert square_px(image_px, patch) == side
