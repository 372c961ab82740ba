"""`curator` itself: help in sections, the version, shell completion."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from curator.cli.commands import SECTIONS
from curator.core.package import tool_version
from tests.kit.cli import curator
from tests.kit.paths import ROOT


@pytest.mark.parametrize("argv", [(), ("demo",), ("edits",), ("quarantine",)])
def test_a_group_alone_shows_its_help(argv: tuple[str, ...]) -> None:
    said = curator(*argv)
    assert (said.code, said.err) == (0, "")
    assert said.out == curator(*argv, "--help").out


def test_help_lists_every_command_in_one_section() -> None:
    text = curator("--help").out
    assert "Commands:" not in text
    blocks = dict.fromkeys(SECTIONS, "")
    section = ""
    for line in text.splitlines():
        section = line[:-1] if line[:-1] in blocks else section
        blocks[section] = blocks.get(section, "") + line + "\n"
    for name, commands in SECTIONS.items():
        listed = [line.split()[0] for line in blocks[name].splitlines()[1:] if line.strip()]
        assert listed == list(commands)


def test_every_command_stands_in_a_section() -> None:
    import typer.main

    from curator.cli.commands import app

    root = typer.main.get_command(app)
    named = [name for names in SECTIONS.values() for name in names]
    assert sorted(named) == sorted(root.commands)  # type: ignore[attr-defined]  # a group


def test_version() -> None:
    said = curator("--version")
    assert (said.code, said.out) == (0, f"caption-curator {tool_version()}\n")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("curator rec", ["recaption"]),
        ("curator edits und", ["undo"]),
        ("curator recaption --caption-f", ["--caption-from", "--caption-field"]),
    ],
)
def test_the_shell_completes(words: str, found: list[str], tmp_path: Path) -> None:
    """A curator.toml is neither read nor reported: it would end up between the suggestions."""
    (tmp_path / "curator.toml").write_text("not TOML")
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    env = {**os.environ, **asked, "_CURATOR_COMPLETE": "complete_bash", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [Path(sys.executable).with_name("curator")],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == found


def test_the_script_for_the_shell_around_it_is_shown() -> None:
    start = f"'{sys.executable}' -m curator --show-completion; true"  # `; true`: bash stays around
    done = subprocess.run(
        ["bash", "-c", start], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "complete -o default" in done.stdout
