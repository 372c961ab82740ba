"""The objective port: its contract, and the table of pretraining objectives.

A new objective is a class in a file of its own and a row in `OBJECTIVES`; docs/extend/objective.md
shows one. Torch-free: the class is imported when a run starts, and its contract is checked before
the data are opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from curator.core.registry import Registry, Spec, check_contract

if TYPE_CHECKING:
    import torch
    from pydantic import BaseModel

    from pretrain.recipe import Recipe
    from pretrain.towers.tokens import Tokenizer

Autocast = Callable[[], AbstractContextManager[Any]]


class Objective(Protocol):
    """What the training loop minimises; also a `torch.nn.Module`, whose children are compiled.

    It is built on the CPU as Class(recipe), with random or pretrained weights that depend only on
    the recipe and its seed. Randomness comes from torch's default generator, which the loop seeds
    with (seed, step).
    """

    def losses(self, batch: Any) -> dict[str, torch.Tensor]:
        """Return scalars, means over the batch: `loss` is minimised, all others are logged.

        `batch` is a `pretrain.data.batches.Batch`. Called under autocast, in each process with that
        process's part of the global batch. The objective moves the batch to its device.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write a model folder that `pretrain.towers.backbone.load_backbone` reads."""
        ...

    def parameters(self) -> Any:
        """Return the trained parameters, as `torch.nn.Module` does."""
        ...


class TextObjective(Objective, Protocol):
    """An objective with a text tower; checked on held-out pairs, and its cut texts are counted."""

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer, which also knows the context length."""
        ...

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Return unit features `[B, width]` of uint8 images."""
        ...

    def encode_texts(self, tokens_NL: torch.Tensor) -> torch.Tensor:
        """Return unit features `[N, width]` of tokens."""
        ...


@runtime_checkable
class Accumulating(Protocol):
    """An objective that can compute a batch in parts, with the gradients of the whole batch."""

    def backward_in_parts(
        self, batch: Any, num_parts: int, autocast: Autocast
    ) -> dict[str, torch.Tensor]:
        """Add the gradients of `losses(batch)` to the parameters; return the losses."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveSpec(Spec):
    """One row of `OBJECTIVES`; `target` is the class.

    Attributes:
        has_text: whether it learns from captions; the class is then a `TextObjective`.
        takes_all_captions: whether it can use several captions per image (`captions = "all"`).
        options: its own keys, in a recipe's table of its name (`[mae] mask = 0.75`):
            key -> (type, keywords of pydantic's Field: its default, limits and description).
        tiny: function (an empty folder) -> fields of a tiny recipe for the contract suite, if those
            of `tests.kit.train.recipe` do not fit.
    """

    has_text: bool
    takes_all_captions: bool = False
    options: Mapping[str, tuple[Any, Mapping[str, Any]]] = field(default_factory=dict)

    def options_model(self) -> type[BaseModel]:
        """Return the pydantic model that validates the objective's table in a recipe."""
        from pydantic import ConfigDict, Field, create_model  # 60 ms: not for `curator --help`

        fields: dict[str, Any] = {
            name: (kind, Field(**about)) for name, (kind, about) in self.options.items()
        }
        return create_model("Options", __config__=ConfigDict(extra="forbid"), **fields)


def _mask(default: float, what: str) -> dict[str, tuple[Any, Mapping[str, Any]]]:
    return {"mask": (float, {"default": default, "gt": 0, "lt": 1, "description": what})}


OBJECTIVES: Registry[ObjectiveSpec] = Registry(
    "objective",
    {
        "clip": ObjectiveSpec(
            "pretrain.objectives.clip:ClipObjective",
            help="image-text pairs, a softmax over the batch (Radford et al. 2021)",
            has_text=True,
            takes_all_captions=True,
        ),
        "siglip": ObjectiveSpec(
            "pretrain.objectives.siglip:SigLipObjective",
            help="image-text pairs, a sigmoid for every pair (Zhai et al. 2023)",
            has_text=True,
        ),
        "mae": ObjectiveSpec(
            "pretrain.objectives.mae:MaeObjective",
            help="masked images, for plain ViTs (He et al. 2022)",
            has_text=False,
            options=_mask(0.75, "fraction of the patches that is hidden"),
        ),
        "simmim": ObjectiveSpec(
            "pretrain.objectives.simmim:SimMimObjective",
            help="masked images, for any tower (Xie et al. 2022)",
            has_text=False,
            options=_mask(0.75, "fraction of the squares that is hidden"),
        ),
    },
    protocol=Objective,
)


def objective_class(recipe: Recipe) -> Any:
    """Import the class of a recipe's objective and check that it has all members the recipe needs.

    Raises:
        UsageError: the class is missing or lacks a member; names class, file and member.
    """
    found = OBJECTIVES.get(recipe.objective)
    if OBJECTIVES.spec(recipe.objective).has_text:
        check_contract("objective", recipe.objective, found, TextObjective)
    if recipe.accumulate > 1:
        check_contract("objective", recipe.objective, found, Accumulating)
    return found
