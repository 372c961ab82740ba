"""A small rendered world, with a version that keeps its captions as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from curator.cli.app import app
from curator.cli.output import run_app


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    sizes = ["--images", "40", "--labelled", "12", "--side", "32"]
    assert run_app(app, ["demo", "data", str(folder), *sizes]) == 0
    assert run_app(app, ["index", str(folder / "shards")]) == 0
    assert run_app(app, ["decide", str(folder / "shards"), "--policy", "as-is"]) == 0
    return folder
