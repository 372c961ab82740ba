"""Warm starts: load the weights of a recipe's `init` into its image tower."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curator.core.errors import UsageError
from pretrain.towers.towers import open_tower

if TYPE_CHECKING:
    from pretrain.recipe import Recipe


def warm_start(visual: Any, recipe: Recipe) -> None:
    """Load the weights of `recipe.init`, if set, into an image tower.

    Takes the weights of an open_clip tower, or of a timm model for an open_clip tower's trunk,
    whose projection then stays random.

    Raises:
        UsageError: the weights are of another architecture.
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
            f"init {recipe.init!r}, a {type(found).__name__}, does not fit the image tower of "
            f"{recipe.model!r} ({str(error).splitlines()[-1].strip()})",
            hint="use the architecture of `model`",
            reason="recipe.init",
        ) from error
