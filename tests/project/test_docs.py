"""Generated pages match the code, every command has help and an example, no link is dead.

Links between pages of docs/ are checked by `make site`; here are those that it does not see.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer.main

from curator.cli.app import app
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
    text = (ROOT / "docs" / "reference" / "recipe.md").read_text()
    shown = text.split("```toml\n")[1].split("```")[0]
    needed, others = shown.split("\n\n")
    assert set(re.findall(r"^(?:# )?(\w+) =", shown, re.M)) | {"description"} == set(
        Recipe.model_fields
    )
    whole = Recipe.model_validate(tomllib.loads(shown))
    assert whole == Recipe.model_validate(tomllib.loads(needed))
    Recipe.model_validate(tomllib.loads(needed + "\n" + others.replace("# control", "control")))
    assert all(f"`{name}`" in text for name in PRESETS.names())


# -- commands that pages tell to type --------------------------------------------------------------


_PAGES = sorted((ROOT / "docs").rglob("*.md"))  # cli.md is generated


def shown_commands(text: str) -> list[str]:
    """Lines of code blocks that call curator, joined where a backslash ends them."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = (re.search(r"(?:^|\$ |&& |-m )curator (.*)", line.strip()) for line in lines)
    return [match[1].partition(" #")[0] for match in found if match]


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", *(path for path in _PAGES if path.name != "cli.md")],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_pages_show_commands_and_options_that_exist(page: Path) -> None:
    for line in shown_commands(page.read_text()):
        command = typer.main.get_command(app)
        words = shlex.split(line.partition("&&")[0])
        while words and hasattr(command, "commands") and not words[0].startswith("-"):
            assert words[0] in command.commands, f"curator {line}"
            command = command.commands[words.pop(0)]
        known = {"--help", *(name for param in command.params for name in param.opts)}
        known |= {name for param in command.params for name in param.secondary_opts}
        typed = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert typed <= known, f"curator {line}: {sorted(typed - known)}"


# -- links that mkdocs does not see ----------------------------------------------------------------

_OUTSIDE = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
_OUTSIDE += sorted((ROOT / "benchmarks").glob("*.md"))
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors_of(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.M)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in kept}


@pytest.mark.parametrize("page", _OUTSIDE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_link_is_dead(page: Path) -> None:
    for target in _LINK.findall(page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        assert not anchor or anchor in anchors_of(path), target


def test_code_cites_pages_that_are_there() -> None:
    """Comments, error hints and studies name pages of docs/ by their path."""
    for folder in ("curator", "pretrain", "finetune", "ui", "benchmarks", "tests"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".toml", ".html", ".md"):
                for page in re.findall(r"(?<![\w./-])docs/[a-z0-9_/.-]+\.md", path.read_text()):
                    assert (ROOT / page).exists(), f"{path.relative_to(ROOT)}: {page}"


@pytest.mark.long
@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("[x](nowhere.md)", "nowhere.md"),
        ("[x](reference/cli.md#curator-nowhere)", "curator-nowhere"),
        ("", ""),
    ],
)
def test_the_site_is_built_and_a_dead_link_fails(more: str, said: str, tmp_path: Path) -> None:
    """With the options of `make site`."""
    if find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    with (tmp_path / "docs" / "index.md").open("a") as file:
        file.write(f"\n{more}\n")
    makefile = (ROOT / "Makefile").read_text()
    options = re.findall(r"\$\(BIN\)/mkdocs (.+)", makefile)[0].split()
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode != 0) == bool(more), done.stderr
    assert said in done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|link|img)[^>]+(?:src|href)=\"?(https?:[^\s\">]+)", page.read_text()
        )
        assert not loaded, f"{page.name} loads {loaded[0]}"
