"""Decide what a curator.toml that came with a dataset may set: only options marked as harmless.

A stranger's file must not upload images or keys, open a port, write or read outside the dataset,
fetch models, spend time or money, confirm a prompt or sign as an author. No list of harmful options
would stay complete, so an option is refused there unless its definition has a mark of this module:

    Annotated[str | None, typer.Option("--caption-field"), HARMLESS]
    Annotated[str, typer.Option("--policy"), PRESET_POLICY]

Options are harmless when they describe the data, change only how much is printed, or can only make
a command refuse more.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints


@dataclass(frozen=True, slots=True)
class Harmless:
    """Mark for an option. `holds(value, folder of the file)` returns whether a value is harmless.

    `allowed` describes the harmless values in error messages; empty if every value is.
    """

    allowed: str = ""
    holds: Callable[[Any, Path], bool] = lambda _value, _folder: True


def _is_inside(value: Any, folder: Path) -> bool:
    if "://" in value:  # would look like a folder inside
        return False
    # Resolve links: a link in a dataset can point anywhere.
    inner, outer = (os.path.realpath(path) for path in (value, folder))
    return inner == outer or inner.startswith(outer.rstrip(os.sep) + os.sep)


def _is_policy(value: Any, _folder: Path) -> bool:
    from curator.policy.model import PRESETS  # with pydantic

    return value in PRESETS.names()


def _is_prompt(value: Any, _folder: Path) -> bool:
    from curator.captioners.prompts import PRESETS

    return set([value] if isinstance(value, str) else value) <= set(PRESETS)


def _is_bundled(value: Any, _folder: Path) -> bool:
    from curator.demo.bundled import bundled_model

    bundled = {os.path.realpath(bundled_model(which)) for which in ("scorer", "captioner")}
    return os.path.realpath(value) in bundled


HARMLESS = Harmless()
INSIDE = Harmless("a folder inside the file's folder", _is_inside)
PRESET_POLICY = Harmless("the name of a preset", _is_policy)
PRESET_PROMPT = Harmless("the name of a prompt", _is_prompt)
BUNDLED_MODEL = Harmless("a model bundled with this tool", _is_bundled)


def mark_of(command: Any, param: Any) -> Harmless | None:
    """Return the mark of a typer command's parameter; None if it is not harmless."""
    hints = get_type_hints(inspect.unwrap(command.callback), include_extras=True)
    found = getattr(hints.get(param.name), "__metadata__", ())
    return next((mark for mark in found if isinstance(mark, Harmless)), None)
