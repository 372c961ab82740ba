"""The two small models that come with the tool: a scorer and a captioner of the rendered world."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Literal


def bundled_model(which: Literal["scorer", "captioner"]) -> Path:
    """The folder of a model, as `--scorer` and `--model` take it."""
    return Path(str(files("curator.demo") / "models" / which))
