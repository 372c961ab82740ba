"""Warm starts: a recipe's image tower begins with the weights that `init` names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curator.core.errors import UsageError
from pretrain.towers.towers import open_tower

if TYPE_CHECKING:
    from pretrain.recipe import Recipe


def warm_start(visual: Any, recipe: Recipe) -> None:
    """Put the weights of `recipe.init` into an image tower; nothing to do without.

    Takes an open_clip tower, or a timm model for the trunk of one; its projection stays random.

    Raises:
        UsageError: another architecture.
    """
    if recipe.init is None:
        return
    side = recipe.image_px
    found = open_tower(recipe.init, image_px=(side, side), seed=recipe.seed).net
    is_trunk = hasattr(visual, "trunk") and not hasattr(found, "trunk")
    target = visual.trunk if is_trunk else visual
    try:
        target.load_state_dict(found.state_dict())
    except RuntimeError as error:
        raise UsageError(
            f"init {recipe.init!r} is {type(found).__name__} with other weights than "
            f"the image tower of {recipe.model!r} ({str(error).splitlines()[-1].strip()})",
            hint="use the architecture of `model`",
            reason="recipe.init",
        ) from error
