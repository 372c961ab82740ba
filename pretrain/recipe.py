"""Recipes: small TOML files that say what to train, on how much data, and how. They run no code.

    name = "demo"
    objective = "clip"            # clip | siglip | mae | simmim: a row of pretrain.objectives
    model = "tiny-conv"           # an open_clip architecture, its .json config, or one of ours
    image_px = 64
    samples_seen = 60000          # images drawn in all; sets the number of steps
    batch_size = 256              # images per step, over all processes
    lr = 1e-3

Keys of one objective only are in a table of its name, at the end of the file:

    [mae]
    mask = 0.75

Two arms of a study share a recipe and differ in the version of the captions. Torch-free, because
`curator report` reads recipes too.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from curator.core.errors import UsageError, nearest
from curator.core.hashing import digest
from curator.core.presets import Presets
from curator.core.validation import explain, toml_value
from pretrain.data.options import Captions, Control, DataOptions
from pretrain.loop.options import LoopOptions
from pretrain.objectives import OBJECTIVES, ObjectiveSpec


def _in_the_table(name: str) -> str:
    if name not in OBJECTIVES.rows:
        raise ValueError(nearest(name, OBJECTIVES.rows))
    return name


ObjectiveName = Annotated[str, AfterValidator(_in_the_table)]
"""A row of `pretrain.objectives.OBJECTIVES`."""


class Recipe(BaseModel):
    """All values of a recipe; the module shows an example. Fractions (`warmup`, ...) are in 0 to 1.

    captions: `one` per step, sampled by weight, or `all` of an image as positives, at most
        `max_captions`. `sentences` is the probability that a caption is replaced by one of its
        sentences. `control` changes the texts for a control arm (see `pretrain.data.controls`).
    init: weights of the image tower to start from, as `pretrain.towers.backbone` reads them.
    accumulate: number of parts that each batch is computed in; gradients are those of the whole
    batch. precision: auto is bf16 where the hardware multiplies it, else fp32.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=60)
    description: str = ""
    objective: ObjectiveName = "clip"
    model: str = Field(min_length=1)
    image_px: int = Field(ge=16, le=2048)
    init: str | None = None
    captions: Captions = "one"
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
    seed: int = Field(default=0, ge=0)

    _options: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _with_a_table(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Separate the objective's table from the other keys and validate it by its row."""
        if not isinstance(values, Mapping):
            return handler(values)
        tables = {key: value for key, value in values.items() if key in OBJECTIVES.rows}
        recipe = handler({key: value for key, value in values.items() if key not in tables})
        own = tables.pop(recipe.objective, {})
        if tables:
            other = next(iter(tables))
            raise ValueError(
                f"[{other}] is for objective = {other!r}, but this recipe has "
                f"{recipe.objective!r}: remove the table"
            )
        model = recipe.spec.options_model()
        try:
            recipe._options = model.model_validate(own).model_dump()
        except ValidationError as error:
            raise ValueError(f"[{recipe.objective}] {explain(error, model)}") from error
        return recipe

    @model_serializer(mode="wrap")
    def _and_its_table(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        return values | ({self.objective: self.options} if self._options else {})

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of accumulate {self.accumulate}"
            )
        if self.captions == "all" and not self.spec.takes_all_captions:
            able = [name for name in OBJECTIVES if OBJECTIVES.spec(name).takes_all_captions]
            raise ValueError(f'captions = "all" is for objective = {" or ".join(map(repr, able))}')
        if self.control and not self.has_text:
            raise ValueError(f"control is for objectives with text, not {self.objective}")
        return self

    @property
    def spec(self) -> ObjectiveSpec:
        """The row of `OBJECTIVES` for the recipe's objective."""
        return OBJECTIVES.spec(self.objective)

    @property
    def has_text(self) -> bool:
        """Whether the objective trains on captions."""
        return self.spec.has_text

    @property
    def options(self) -> dict[str, Any]:
        """Values of the objective's own keys, defaults included."""
        return dict(self._options)

    @property
    def total_steps(self) -> int:
        """Number of steps, the smallest that sees at least `samples_seen` images."""
        return -(-self.samples_seen // self.batch_size)

    def data_options(self, *, num_workers: int = 0) -> DataOptions:
        """Return the options of the data pipeline; with 0 workers the training process decodes."""
        return DataOptions(
            image_px=self.image_px,
            batch_size=self.batch_size,
            captions=self.captions,
            max_captions=self.max_captions,
            sentences=self.sentences,
            crop_scale_min=self.crop_scale_min,
            seed=self.seed,
            num_workers=num_workers,
        )

    def loop_options(self) -> LoopOptions:
        """Return the options of the training loop."""
        return LoopOptions(
            total_steps=self.total_steps,
            lr=self.lr,
            warmup_steps=round(self.total_steps * self.warmup),
            weight_decay=self.weight_decay,
            beta2=self.beta2,
            clip_grad=self.clip_grad,
            precision=self.precision,
            accumulate=self.accumulate,
            compile=self.compile,
            seed=self.seed,
        )

    def digest(self) -> str:
        """Return the SHA-256 (hex) of all values except the description."""
        return digest(self.model_dump(exclude={"description"}))

    def changed(self, settings: Sequence[str]) -> Recipe:
        """Return the recipe with `key=value` settings applied.

        Values are written as in TOML, the objective's own keys as `mae.mask=0.6`.

        Raises:
            UsageError: unknown key, or a value that is not allowed.
        """
        values: dict[str, Any] = {}
        for setting in settings:
            key, sign, text = setting.partition("=")
            if not sign:
                raise UsageError(f"--set {setting!r}", hint="write --set key=value")
            table, dot, inner = key.strip().partition(".")
            if dot:
                values[table] = {**values.get(table, {}), inner: toml_value(text.strip())}
            else:
                values[table] = toml_value(text.strip())
        return self.with_values(values, where="--set")

    def with_values(self, values: Mapping[str, Any], *, where: str) -> Recipe:
        """Return the recipe with some values changed; errors name `where` as their source.

        When the objective changes, the table of the previous one is dropped. Otherwise only the
        given keys of the objective's table change.

        Raises:
            UsageError: unknown key, or a value that is not allowed.
        """
        merged = {**self.model_dump(), **values}
        table = values.get(self.objective)
        if merged["objective"] != self.objective and table is None:
            merged.pop(self.objective, None)
        elif isinstance(table, Mapping):
            merged[self.objective] = {**self.options, **table}
        return _validated(merged, where=where)


PRESETS = Presets("recipe", "pretrain", "recipes")
"""The recipes that come with the tool."""


def read_recipe(name_or_path: str) -> Recipe:
    """Read a preset by name, or a TOML file by path.

    Raises:
        UsageError: unknown recipe, not TOML, or a key or value that is not allowed.
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
