"""Locate the two small bundled models: a scorer and a captioner for the rendered world."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Literal


def bundled_model(which: Literal["scorer", "captioner"]) -> Path:
    """Return the folder of a model, for `--scorer` or `--model`."""
    return Path(str(files("curator.demo") / "models" / which))
