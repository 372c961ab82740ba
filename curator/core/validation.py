"""Read the values of options, and explain a pydantic validation error in one sentence."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from curator.core.errors import nearest

_SCALARS = (str, int, float, bool)


def toml_value(text: str) -> Any:
    """Return a value written as in TOML: 3, [1, 2], true; a bare word is a string, none is None."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return None if text in ("none", "None") else text


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return the first error: its place, what is allowed (or the nearest name), what was found."""
    first: Any = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        owner = _owner(model, first["loc"][:-1])
        return f"unknown key {place!r}: {nearest(str(first['loc'][-1]), owner.model_fields)}"
    message: str = first["msg"].removeprefix("Value error, ")
    if not place:
        return message
    found = f" is {first['input']!r}" if isinstance(first["input"], _SCALARS) else ""
    return f"{place}{found}: {message}"


def _owner(model: type[BaseModel], path: Sequence[int | str]) -> type[BaseModel]:
    """Return the model at the end of a path of field names and list indices."""
    for part in path:
        if isinstance(part, str):
            model = _model_in(model.model_fields[part].annotation) or model
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model in `Rule`, `tuple[Rule, ...]` or `Surgery | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_model_in(part) for part in get_args(annotation))
    return next((found for found in inner if found is not None), None)
