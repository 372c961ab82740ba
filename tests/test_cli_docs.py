"""Made pages are in step with the code, and every command has help and an example."""

from __future__ import annotations

import pytest

from tests.write_cli_docs import DOCS, PAGES, commands, help_of


@pytest.fixture(autouse=True)
def _same_width_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_in_step_with_the_code(name: str) -> None:
    assert (DOCS / name).read_text() == PAGES[name](), "run `make docs`"


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_has_help_and_an_example(words: list[str]) -> None:
    text = help_of(words)
    if words == ["quarantine"]:  # a group: its members have the examples
        assert "Commands:" in text
    else:
        assert "Example:" in text
        assert f"curator {' '.join(words)}" in text.split("Example:")[1]
