"""Every `next:` line can be copied into a shell and runs there, whatever was typed before."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.kit import store as storekit
from tests.kit import tars
from tests.kit.cli import Said, curator


def hints(said: Said) -> list[list[str]]:
    """The commands of the `next:` lines, as a shell would split them."""
    assert said.code == 0, said.err
    lines = [line.removeprefix("next: ") for line in said.out.splitlines() if "next:" in line]
    assert lines, said.out
    assert all(line.startswith("curator ") for line in lines)
    return [shlex.split(line)[1:] for line in lines]


def follow(said: Said) -> list[Said]:
    found = [curator(*command) for command in hints(said)]
    assert [one.code for one in found] == [0] * len(found), [one.err for one in found]
    return found


PLACES = {
    "plain": ("photos", None),
    "slash": ("photos/", None),
    "store": ("photos", "elsewhere"),
    "spaces": ("my photos", "my store; rm -rf"),
    "glob": ("photos/*.tar", None),
    "braces": ("photos/{00000..00001}.tar", "st'ore"),
    "at": ("pho@tos", None),
}


@pytest.mark.parametrize("typed", PLACES)
@pytest.mark.long
def test_the_hints_of_all_commands_that_make_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    monkeypatch.chdir(tmp_path)
    spec, store = PLACES[typed]
    more = ["--store", store] if store else []
    place = tmp_path / store if store else None
    kit = storekit.open_kit(tmp_path / spec.partition("/")[0], store=place)
    limit = ["--max-quarantine", "1"]

    first = curator("decide", spec, "--policy", "as-is", *limit, *more)
    assert [command[0] for command in hints(first)] == ["show", "export"], "nothing to compare"
    follow(first)
    assert (tmp_path / f"{kit.ws.dataset.root.name}-v1" / "00000.tar").exists()

    second = curator("recaption", spec, "--captioner", "echo", "--policy", "replace", *limit, *more)
    assert [command[0] for command in hints(second)] == ["diff", "export"]
    compared, _ = follow(second)
    assert "v1" in compared.out
    assert "v2" in compared.out
    again = curator("decide", spec, "--policy", "as-is", *limit, *more)
    assert "nothing changed" in again.out
    follow(again)

    edited = curator("edits", "replace", f"{spec}@v1", "bike", "car", "--yes", "--who", "me", *more)
    (applied,) = follow(edited)
    assert "committed v3" in applied.out
    undo = edited.out.partition("to undo:\n")[2].partition("\n")[0]
    assert curator(*shlex.split(undo)[1:]).code == 0
    for command in (*hints(first), *hints(second), *hints(edited)):
        assert ("--store" in command) == bool(store)
        assert spec in command[1] or spec in command[2]


def test_the_hint_of_pack(tmp_path: Path) -> None:
    (tmp_path / "my pictures").mkdir()
    (tmp_path / "my pictures" / "one.jpg").write_bytes(tars.image_bytes(7))
    (tmp_path / "my pictures" / "one.txt").write_text("a picture")
    (indexed,) = follow(curator("pack", tmp_path / "my pictures", tmp_path / "my shards"))
    assert "1 of 1 samples are usable" in indexed.out


def test_the_hint_of_demo_data(tmp_path: Path) -> None:
    said = curator("demo", "data", tmp_path / "the world", "--images", 4, "--labelled", 0)
    assert hints(said) == [["recaption", str(tmp_path / "the world" / "shards")]]


def test_texts_without_a_score_say_which_scorer_and_store(tmp_path: Path) -> None:
    """With the scorer of the version: another one would score them, and change nothing."""
    rows = {"00000": (storekit.Row("a0", "one", "two", 0.3, None),)}
    kit = storekit.open_kit(tmp_path / "photos", rows, store=tmp_path / "my store")
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\nsources = ["generated", "alt_text"]\npick = "best"\n'
    )
    more = ["--policy", tmp_path / "mine.toml", "--store", tmp_path / "my store"]
    said = curator("decide", kit.ws.spec, *more)
    line = said.out.partition("1 texts have no score; to score them (then decide again):\n")[2]
    assert shlex.split(line.partition("\n")[0]) == [
        *("curator", "score", kit.ws.spec, "--scorer", "PATH/tiny-clip", "--generated"),
        *("--store", str(tmp_path / "my store")),
    ]


@pytest.mark.long
def test_errors_that_name_a_command_name_the_store_too(tmp_path: Path) -> None:
    kit = storekit.open_kit(tmp_path / "my photos", store=tmp_path / "my store")
    more = ["--store", tmp_path / "my store"]
    said = curator("decide", kit.ws.spec, "--policy", "best", *more)
    command = said.err.partition("run `")[2].partition("`")[0]
    assert shlex.split(command) == [
        *("curator", "score", kit.ws.spec, "--scorer", "text"),
        *("--store", str(tmp_path / "my store")),
    ]
    assert curator(*shlex.split(command)[1:]).code == 0
