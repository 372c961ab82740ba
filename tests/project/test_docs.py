"""Made pages are in step with the code, and every command has help and an example."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from pretrain.recipe import PRESETS, Recipe
from tests.kit.paths import ROOT
from tests.write_docs import PAGES, commands, help_of


@pytest.fixture(autouse=True)
def _same_width_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_page_is_in_step_with_the_code(path: Path) -> None:
    assert path.read_text() == PAGES[path](), "run `make docs`"


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_has_help_and_an_example(words: list[str]) -> None:
    text = help_of(words)
    if words in (["quarantine"], ["demo"], ["edits"]):  # a group: its members have the examples
        assert "Commands:" in text
    else:
        assert "Example:" in text
        assert f"curator {' '.join(words)}" in text.split("Example:")[1]


def test_the_recipe_that_is_shown_has_every_key_and_its_default() -> None:
    text = (ROOT / "docs" / "training.md").read_text()
    shown = text.split("```toml\n")[1].split("```")[0]
    needed, others = shown.split("\n\n")
    assert set(re.findall(r"^(?:# )?(\w+) =", shown, re.M)) | {"description"} == set(
        Recipe.model_fields
    )
    whole = Recipe.model_validate(tomllib.loads(shown))
    assert whole == Recipe.model_validate(tomllib.loads(needed))
    Recipe.model_validate(tomllib.loads(needed + "\n" + others.replace("# control", "control")))
    assert all(f"`{name}`" in text for name in PRESETS.names())
