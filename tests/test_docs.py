"""Made pages are in step with the code, and every command has help and an example."""

from __future__ import annotations

from pathlib import Path

import pytest

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
