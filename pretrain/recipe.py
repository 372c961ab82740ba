"""What to train, on how much, and how: a recipe is a small TOML file. It runs no code.

    name = "demo"
    objective = "clip"            # clip | siglip | mae | simmim
    model = "tiny-conv"           # an open_clip architecture, a .json of one, or one of ours
    image_px = 64
    samples_seen = 60000          # images drawn; the steps follow from it
    batch_size = 256              # over all processes
    lr = 1e-3

Two arms of a study share a recipe: what they differ in is the version of the captions. No torch
here: `curator report` reads recipes too.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from curator.core.errors import UsageError
from curator.core.hashing import digest
from curator.core.presets import Presets
from curator.core.validation import explain

ObjectiveName = Literal["clip", "siglip", "mae", "simmim"]
Control = Literal[
    "shuffled", "length-matched", "count-matched", "captions-only", "filter-only", "alt-only"
]


class Recipe(BaseModel):
    """A whole recipe; see the module for an example. Shares (`warmup`, ...) are from 0 to 1.

    captions: `one` sampled by weight a step, or `all` of a sample as positives, at most
        `max_captions`. `sentences` is the probability that a caption is replaced by one of its
        sentences. `control` changes the texts for a control arm (see `pretrain.data.controls`).
    init: weights of the image tower to start from, as `pretrain.towers.backbone` reads them.
    accumulate: take each batch in so many parts, with the gradients of the whole.
    precision: auto is bf16 where the hardware multiplies it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=60)
    description: str = ""
    objective: ObjectiveName = "clip"
    model: str = Field(min_length=1)
    image_px: int = Field(ge=16, le=2048)
    init: str | None = None
    captions: Literal["one", "all"] = "one"
    max_captions: int = Field(default=4, ge=1)
    sentences: float = Field(default=0.0, ge=0, le=1)
    control: Control | None = None
    samples_seen: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    accumulate: int = Field(default=1, ge=1)
    lr: float = Field(gt=0, allow_inf_nan=False)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    weight_decay: float = Field(default=0.2, ge=0)
    beta2: float = Field(default=0.95, gt=0, lt=1)
    clip_grad: float = Field(default=1.0, ge=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False
    crop_scale_min: float = Field(default=0.9, gt=0, le=1)
    mask_ratio: float = Field(default=0.75, gt=0, lt=1)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} is no multiple of accumulate")
        if self.captions == "all" and self.objective == "siglip":
            raise ValueError('captions = "all" is for objective = "clip"')
        if self.control and not self.needs_text:
            raise ValueError(f"control is for objectives with text, not {self.objective}")
        return self

    @property
    def needs_text(self) -> bool:
        """Whether captions are trained on."""
        return self.objective in ("clip", "siglip")

    @property
    def total_steps(self) -> int:
        """Steps that see at least `samples_seen` images."""
        return -(-self.samples_seen // self.batch_size)

    def digest(self) -> str:
        """SHA-256 (hex) of every value but the description."""
        return digest(self.model_dump(exclude={"description"}))

    def changed(self, settings: Sequence[str]) -> Recipe:
        """The recipe with `key=value` settings on top; values are written as in TOML.

        Raises:
            UsageError: no such key, or a value it cannot have.
        """
        values = self.model_dump()
        for setting in settings:
            key, sign, text = setting.partition("=")
            if not sign:
                raise UsageError(f"--set {setting!r}", hint="write --set key=value")
            values[key.strip()] = _value(text.strip())
        return _validated(values, where="--set")


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return None if text in ("none", "None") else text  # a bare word is a string


PRESETS = Presets("recipe", "pretrain", "recipes")
"""The recipes that come with the tool."""


def read_recipe(name_or_path: str) -> Recipe:
    """Read a preset by name, or a TOML file by path.

    Raises:
        UsageError: no such recipe, not TOML, or a key or value that is not allowed.
    """
    text = PRESETS.read(name_or_path)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(
            f"not valid TOML ({error})", where=name_or_path, reason="recipe.invalid"
        ) from error
    return _validated(values, where=name_or_path)


def _validated(values: dict[str, Any], *, where: str) -> Recipe:
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise UsageError(
            explain(error, Recipe), where=f"recipe {where}", reason="recipe.invalid"
        ) from error
