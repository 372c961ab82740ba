"""The contract of every objective, run over the whole table on a tiny tower.

A new objective needs nothing here: its row says how a tiny one is built, or the tiny ViT of
`tests.kit.train.recipe` does. The tests take a name and an empty folder and no other fixture, so
that a row that is registered at run time goes through them as well (tests/extend).
"""

from __future__ import annotations

from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from curator.core.errors import UsageError
from curator.core.registry import load
from pretrain.loop.loop import train
from pretrain.objectives import OBJECTIVES, Accumulating, objective_class
from pretrain.recipe import Recipe
from pretrain.towers.backbone import Backbone, load_backbone
from tests.kit.train import batch, batches, gradients, objective, recipe

every_objective = pytest.mark.parametrize("name", list(OBJECTIVES))


def tiny(name: str, folder: Path, **changes: Any) -> Recipe:
    spec = OBJECTIVES.spec(name)
    folder.mkdir(exist_ok=True)
    values = load(spec.tiny)(folder) if spec.tiny else {}
    return recipe(folder, **{"objective": name, **values, **changes})


def losses(made: Any, step: int, side: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    found: dict[str, torch.Tensor] = made.losses(batch(step, side=side))
    return found


def loaded(made: Any, asked: Recipe, folder: Path) -> Backbone:
    made.save(folder)
    size = (asked.image_px, asked.image_px)
    return load_backbone(str(folder), image_px=size).eval()


@every_objective
def test_the_row_says_what_it_is_and_the_class_keeps_the_contract(
    name: str, tmp_path: Path
) -> None:
    asked = tiny(name, tmp_path)
    assert OBJECTIVES.spec(name).help
    assert name not in Recipe.model_fields, "its table in a recipe would hide a key"
    assert asked.options.keys() == OBJECTIVES.spec(name).options.keys()
    assert Recipe.model_validate(asked.model_dump()) == asked
    assert issubclass(objective_class(asked), torch.nn.Module)


@every_objective
def test_a_step_is_finite_and_teaches_every_layer_of_the_backbone(
    name: str, tmp_path: Path
) -> None:
    asked = tiny(name, tmp_path, samples_seen=16)
    made = objective(asked)
    found = losses(made, 0, asked.image_px)
    assert all(value.shape == () and value.isfinite() for value in found.values())
    before = loaded(made, asked, tmp_path / "before")
    sides = batches(side=asked.image_px)
    train(made, sides, asked.loop_options(), folder=None)
    after = loaded(made, asked, tmp_path / "after")
    for old, new in zip(before.layer_groups(), after.layer_groups(), strict=True):
        assert any(not torch.equal(*pair) for pair in zip(old, new, strict=True))


@every_objective
def test_the_loss_falls(name: str, tmp_path: Path) -> None:
    asked = tiny(name, tmp_path)
    made = objective(asked)
    optimizer = torch.optim.AdamW(made.parameters(), 3e-3)
    seen = []
    for _ in range(8):
        loss = losses(made, 0, asked.image_px)["loss"]
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        seen.append(loss.item())
    assert seen[-1] < 0.95 * seen[0], seen


@every_objective
def test_a_seed_gives_the_same_weights_and_losses_and_leaves_the_random_state(
    name: str, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    made = [objective(tiny(name, tmp_path, seed=seed)) for seed in (0, 0, 1)]
    assert torch.equal(state, torch.get_rng_state())
    one, same, other = (dict(each.state_dict()) for each in made)
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)
    side = tiny(name, tmp_path).image_px
    first, second, third = (losses(each, 0, side)["loss"].item() for each in made)
    assert first == second != third


@every_objective
def test_what_is_saved_is_loaded_with_the_same_weights_and_outputs(
    name: str, tmp_path: Path
) -> None:
    asked = tiny(name, tmp_path)
    made = objective(asked)
    found = loaded(made, asked, tmp_path / "model")
    known = {value.detach().numpy().tobytes() for value in made.state_dict().values()}
    for key, value in found.state_dict().items():
        assert value.numpy().tobytes() in known, key
    images = torch.rand(2, 3, asked.image_px, asked.image_px)
    again = load_backbone(str(tmp_path / "model"), image_px=tuple(images.shape[-2:])).eval()
    with torch.no_grad():
        pairs = list(zip(found(images), again(images), strict=True))
    assert len(pairs) == 4
    assert all(torch.equal(one, other) for one, other in pairs)


@every_objective
def test_a_batch_in_parts_has_the_gradients_of_the_whole(name: str, tmp_path: Path) -> None:
    asked = tiny(name, tmp_path)
    made = objective(asked)
    if not isinstance(made, Accumulating):
        with pytest.raises(UsageError, match="has no method `backward_in_parts"):
            objective_class(tiny(name, tmp_path, accumulate=2))
        return
    torch.autograd.backward(losses(made, 0, asked.image_px)["loss"])
    wanted = gradients(made)
    made.zero_grad()
    torch.manual_seed(7)
    made.backward_in_parts(batch(0, side=asked.image_px), 2, nullcontext)
    for key, value in gradients(made).items():
        torch.testing.assert_close(value, wanted[key], rtol=1e-4, atol=1e-6, msg=key)


@every_objective
def test_texts_are_encoded_where_it_has_any_and_refused_where_not(
    name: str, tmp_path: Path
) -> None:
    asked = tiny(name, tmp_path)
    if not asked.has_text:
        with pytest.raises(ValueError, match="control is for objectives with text"):
            tiny(name, tmp_path, control="shuffled")
        with pytest.raises(ValueError, match='captions = "all" is for objective = '):
            tiny(name, tmp_path, captions="all")
        return
    made = objective(asked)
    drawn = batch(0, side=asked.image_px)
    tokens = made.tokenizer()(["a red cube", "snow"])
    assert tokens.shape == (2, made.tokenizer().context_length)
    for features in (made.encode_images(drawn.images), made.encode_texts(drawn.tokens)):
        torch.testing.assert_close(features.norm(dim=1), torch.ones(len(features)))


@every_objective
def test_keys_of_its_table_are_checked_and_those_of_others_refused(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=rf"\[{name}\] unknown key 'nothing'"):
        tiny(name, tmp_path, **{name: {"nothing": 1}})
    for this, other in pairwise([*OBJECTIVES, next(iter(OBJECTIVES))]):
        if this == name:
            with pytest.raises(ValueError, match=rf"\[{other}\] is for objective = '{other}'"):
                tiny(name, tmp_path, **{other: {}})
