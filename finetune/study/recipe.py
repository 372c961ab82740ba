"""Studies as TOML files: arms, seeds and tasks. They run no code. Torch-free.

    name = "captions"
    seeds = 5                        # 0..4, or a list
    baseline = "noisy"               # the arm that gains are measured against
    mae = "masked images"            # optional: the arm for the paper's relative changes
    verdict = ["recaptioned"]        # arms to be judged; default: all but the baseline
    match = "samples"                # or "flops": equal pretraining FLOPs

    [set]                            # defaults of {names} in this file; --set overrides them
    steps = 400

    [pretrain]
    recipe = "tiny"                  # a built-in recipe or a file
    samples_seen = 50_000            # a list makes a ladder of pretraining sizes
    options = { batch_size = 256 }   # any field of the recipe

    [[arm]]
    name = "noisy"
    data = "{demo}/shards@as-is"     # DATASET@VERSION

    [[arm]]
    name = "shuffled"
    data = "{demo}/shards@best"
    control = "shuffled"

    [[arm]]
    name = "random"
    backbone = "random"              # or weights: open_clip:ViT-B-16:FILE, timm:NAME, a run
    seeds = 3                        # only the first three; a control needs fewer seeds

    [[task]]
    task = "segmentation"
    data = "{demo}/segmentation"
    protocol = "solved"              # finetune, quick, ...: docs/reference/finetune.md
    fractions = [0.1, 1.0]
    lrs = [0.001, 0.003]             # learning rates, swept on val before the seeds run
    options = { steps = "{steps}", image_px = [128, 128] }

A value that consists of one {name} has the type of the value set for it. Relative paths start at
the folder of the file; those set for a {name} start at the current folder.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from curator.core.errors import UsageError, nearest
from curator.core.presets import Presets
from curator.core.validation import explain
from finetune.options import DenseOptions, ProtocolName, TaskName, parse_options
from finetune.protocols import PROTOCOLS
from pretrain.data.options import NEED_REFERENCE, Control
from pretrain.objectives import OBJECTIVES
from pretrain.recipe import ObjectiveName

RANDOM = "random"

_Name = Annotated[str, Field(min_length=1, max_length=40)]
_SET_BY_STUDY = frozenset(("task", "protocol", "fraction", "seed", "lr", "swept"))
_PLACEHOLDER = re.compile(r"\{([a-z_][a-z0-9_]*)\}")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _as_tuple(value: object) -> object:
    """Turn a single number or a TOML list into a tuple."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def _as_seeds(value: object) -> object:
    return tuple(range(value)) if isinstance(value, int) else _as_tuple(value)


class Arm(_Strict):
    """One arm: a way to pretrain (`data`), or existing weights (`backbone`).

    An `objective` without text ("mae", "simmim") learns from the images alone. `reference` is the
    version whose text lengths or sample count a control matches. `options` are fields of the
    pretraining recipe. `seeds` limits the arm to the first so many of the study's seeds; None is
    all.
    """

    name: _Name
    data: str | None = None
    control: Control | None = None
    reference: str | None = None
    objective: ObjectiveName | None = None
    backbone: str | None = None
    options: dict[str, Any] = {}
    seeds: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.data is None) == (self.backbone is None):
            raise ValueError("an arm needs either `data` or `backbone`")
        if self.backbone is not None and (self.control or self.objective or self.options):
            raise ValueError("`control`, `objective` and `options` are for arms with `data`")
        if (self.control in NEED_REFERENCE) != (self.reference is not None):
            raise ValueError(f"`reference` goes with `control` = {' or '.join(NEED_REFERENCE)}")
        return self

    @property
    def kind(self) -> str:
        """The kind of the arm: captions, control, images, weights or random."""
        if self.backbone is not None:
            return RANDOM if self.backbone.startswith(RANDOM) else "weights"
        if self.objective is not None and not OBJECTIVES.spec(self.objective).has_text:
            return "images"
        return "captions" if self.control is None else "control"


class Pretraining(_Strict):
    """Pretraining of all arms with data. `samples_seen` defaults to the recipe's."""

    recipe: str
    samples_seen: Annotated[tuple[int, ...], BeforeValidator(_as_tuple)] = ()
    held_out: int | None = Field(default=None, ge=0)
    options: dict[str, Any] = {}


class TaskSettings(_Strict):
    """One dense task. More than one rate in `lrs` means a sweep; `options` are `DenseOptions`.

    `arms` limits a costly task to some arms; empty is all.
    """

    task: TaskName
    data: str
    name: str = Field(default="", max_length=40)
    layout: str | None = None
    protocol: ProtocolName = "finetune"
    fractions: Annotated[tuple[float, ...], BeforeValidator(_as_tuple)] = (1.0,)
    lrs: Annotated[tuple[float, ...], BeforeValidator(_as_tuple)] = ()
    arms: tuple[_Name, ...] = ()
    options: dict[str, Any] = {}

    @model_validator(mode="after")
    def _values(self) -> Self:
        if not self.fractions or any(not 0 < fraction <= 1 for fraction in self.fractions):
            raise ValueError("`fractions` must be above 0 and at most 1")
        taken = sorted(self.options.keys() & _SET_BY_STUDY)
        if taken:
            raise ValueError(f"options: {taken[0]} is set by the study (lr: by `lrs`)")
        if self.lrs and "lr" in PROTOCOLS[self.protocol].unused:
            raise ValueError(f"`lrs`: the protocol {self.protocol} has no learning rate")
        self.dense_options()
        return self

    @property
    def title(self) -> str:
        """The name in tables."""
        return self.name or self.task

    def dense_options(self, **values: Any) -> DenseOptions:
        """Return the options of a cell; `values` are its fraction, seed and lr."""
        return parse_options(
            {"task": self.task, "protocol": self.protocol, **self.options, **values}
        )


class Study(_Strict):
    """All values of a study; the module shows an example with every key."""

    name: _Name
    description: str = ""
    seeds: Annotated[tuple[int, ...], BeforeValidator(_as_seeds)] = (0, 1, 2, 3, 4)
    baseline: str
    mae: str | None = None
    verdict: tuple[str, ...] = ()
    match: Literal["samples", "flops"] = "samples"
    notes: tuple[str, ...] = ()
    pretrain: Pretraining
    arm: tuple[Arm, ...] = Field(min_length=1)
    task: tuple[TaskSettings, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        names = [arm.name for arm in self.arm]
        for what, found in (("arm", names), ("task", [task.title for task in self.task])):
            if len(set(found)) < len(found):
                double = next(name for name in found if found.count(name) > 1)
                raise ValueError(f"two {what}s are named {double!r}: give one another `name`")
        for key, arm in (("baseline", self.baseline), ("mae", self.mae)):
            if arm is not None and arm not in names:
                raise ValueError(f"`{key}` {arm!r} is not an arm: {nearest(arm, names)}")
        for arm in self.verdict:
            if arm not in names or arm == self.baseline:
                others = [name for name in names if name != self.baseline]
                raise ValueError(f"`verdict` {arm!r}: {nearest(arm, others)}")
        for task in self.task:
            for arm in task.arms:
                if arm not in names:
                    raise ValueError(
                        f"`arms` of task {task.title}: {arm!r} is not an arm: {nearest(arm, names)}"
                    )
            if task.arms and self.baseline not in task.arms:
                raise ValueError(
                    f"`arms` of task {task.title} lacks the baseline, {self.baseline!r}: nothing "
                    "could be compared"
                )
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError("`seeds` must be a number above 0, or a list of different numbers")
        return self

    def arms_of(self, seed: int) -> tuple[Arm, ...]:
        """Return the arms that use a seed of the study."""
        place = self.seeds.index(seed)
        return tuple(arm for arm in self.arm if arm.seeds is None or place < arm.seeds)

    def arm_named(self, name: str) -> Arm:
        """Return the arm of this name, which must exist."""
        return next(arm for arm in self.arm if arm.name == name)


PRESETS = Presets("study", "finetune", "studies")
"""The studies that come with the tool."""


def read_study(name_or_path: str, values: Mapping[str, str] | None = None) -> Study:
    """Read a built-in study by name, or a TOML file by path; `values` replace its {names}.

    Raises:
        UsageError: unknown study, not TOML, a key or value that is not allowed, or a {name} without
            a value.
    """
    is_file = name_or_path.endswith(".toml")
    folder = Path(name_or_path).parent if is_file else Path()
    text = PRESETS.read(name_or_path)
    return parse_study(text, where=name_or_path, folder=folder, values=values or {})


def parse_study(
    text: str, *, where: str, folder: Path = Path(), values: Mapping[str, str] | None = None
) -> Study:
    """Validate the TOML text of a study; paths in it are relative to `folder`."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(
            f"not valid TOML ({error})", where=where, reason="study.invalid"
        ) from error
    known = found.pop("set", {})
    if not isinstance(known, dict):
        raise UsageError("`set` must be a table: [set]", where=where, reason="study.invalid")
    given = {name: _typed(value) for name, value in (values or {}).items()}
    used = set(_PLACEHOLDER.findall(text)) | known.keys()
    if extra := sorted(given.keys() - used):
        raise UsageError(
            f"the study has no {{{extra[0]}}}",
            where=where,
            hint=nearest(extra[0], used) if used else "it has nothing to set",
            reason="study.set",
        )
    filled = _fill(_anchor(found, folder), {**known, **given}, where)
    try:
        return Study.model_validate(filled)
    except ValidationError as error:
        raise UsageError(
            explain(error, Study), where=f"study {where}", reason="study.invalid"
        ) from error


def _typed(value: str) -> Any:
    """Parse a TOML value (`3`, `[1, 2]`); anything else is a string."""
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value


def _anchor(found: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make the relative paths of a file start at `folder`; values from --set do not change."""

    def anchor(tables: Any, key: str) -> None:
        for table in tables if isinstance(tables, list) else [tables]:
            value = table.get(key) if isinstance(table, dict) else None
            if isinstance(value, str) and is_path(key, value):
                table[key] = str(folder / value)

    def is_path(key: str, value: str) -> bool:
        if value.startswith("{") or "://" in value:
            return False
        if key == "backbone":  # open_clip:NAME, timm:NAME and random are not paths
            return ":" not in value and value != RANDOM
        return key != "recipe" or value.endswith(".toml")

    for key in ("data", "reference", "backbone"):
        anchor(found.get("arm"), key)
    anchor(found.get("task"), "data")
    anchor(found.get("pretrain"), "recipe")
    return found


def _fill(value: Any, known: Mapping[str, Any], where: str) -> Any:
    """Replace every {name} recursively, also in keys."""
    if isinstance(value, dict):
        return {
            str(_fill(key, known, where)): _fill(inner, known, where)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_fill(inner, known, where) for inner in value]
    if not isinstance(value, str):
        return value
    for name in _PLACEHOLDER.findall(value):
        if name not in known:
            raise UsageError(
                f"{{{name}}} has no value",
                where=where,
                hint=f"give it with --set {name}=...",
                reason="study.set",
            )
    whole = _PLACEHOLDER.fullmatch(value)
    if whole:
        return known[whole[1]]
    return _PLACEHOLDER.sub(lambda match: str(known[match[1]]), value)
