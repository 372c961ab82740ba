"""What is printed: valid JSON, whatever the numbers; an escape, whatever the terminal lacks."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.cli.output import escape_what_cannot_be_shown, show_json, table, to_json
from tests.kit import tars
from tests.kit.cli import curator

ENCODINGS = ("utf-8", "latin-1", "ascii", "cp1252", "cp932")


def printed(value: object, encoding: str) -> bytes:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace")
    stream.write(to_json(value, stream))
    stream.flush()
    return raw.getvalue()


def no_constant(name: str) -> None:
    raise AssertionError(name)


@given(st.text(), st.sampled_from(ENCODINGS))
def test_json_is_read_back_as_the_same_text(text: str, encoding: str) -> None:
    assert json.loads(printed({"t": text}, encoding).decode(encoding)) == {"t": text}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_byte_of_a_file_name_that_is_no_text(encoding: str) -> None:
    assert json.loads(printed(["a\udce9"], encoding)) == ["a\udce9"]


def test_json_has_no_nan() -> None:
    value = {"a": math.nan, "b": [math.inf, 1.5], "c": {"d": -math.inf}}
    said = to_json(value, io.StringIO())
    assert json.loads(said, parse_constant=no_constant) == {
        "a": None, "b": [None, 1.5], "c": {"d": None}
    }  # fmt: skip


def test_decimals_are_numbers_where_nothing_is_lost() -> None:
    huge = Decimal("170141183460469231731687303715884105727")
    exact = Decimal("0.1000000000000000000000000001")
    said = to_json([huge, Decimal("1.5"), Decimal("3.0"), exact, Decimal("NaN")], io.StringIO())
    assert said == f'[{huge}, 1.5, 3, "{exact}", "NaN"]'


def test_control_characters_stay_in_their_cell() -> None:
    assert table([("a\nb", "\x1b[2Jc"), ("é", "d")], ["x", "y"]).split("\n") == [
        "x     y", "a\\nb  \\x1b[2Jc", "é     d"
    ]  # fmt: skip


def test_stdout_of_any_alphabet(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    escape_what_cannot_be_shown()
    sys.stdout.write("кот\n")
    show_json({"t": "é"})
    sys.stdout.flush()
    assert raw.getvalue() == b'\\u043a\\u043e\\u0442\n{"t": "\\u00e9"}\n'


def real(*arguments: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "curator", *map(os.fsencode, map(str, arguments))],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
        timeout=240,
    )


@pytest.mark.long
def test_a_run_in_ascii_ends_as_in_utf_8(tmp_path: Path) -> None:
    shards = tmp_path / "кошки"
    shards.mkdir()
    members = [("0.png", tars.image_bytes(1)), ("0.txt", "кошка на диване, 猫 😀".encode())]
    (shards / "00000.tar").write_bytes(tars.tar(members))
    made = real("decide", shards, "--policy", "as-is", PYTHONIOENCODING="ascii")
    assert b"error[store.none]" in made.stderr
    assert curator("index", shards).code == 0
    made = real("decide", shards, "--policy", "as-is", PYTHONIOENCODING="latin-1")
    assert made.returncode == 0, made.stderr
    posix = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    asked = real("query", shards, "select text, 'é' from captions", "--json", **posix)
    assert asked.returncode == 0, asked.stderr
    assert list(json.loads(asked.stdout).values()) == ["кошка на диване, 猫 😀", "é"]


def test_a_folder_whose_name_is_no_text(tmp_path: Path) -> None:
    shards = tmp_path / os.fsdecode(b"f\xe9\xff")
    shards.mkdir()
    (shards / "00000.tar").write_bytes(tars.tar(tars.samples(2)))
    done = [
        curator("index", shards),
        curator("decide", shards, "--policy", "as-is"),
        curator("query", shards, "select key from captions", "--json"),
        curator("fsck", shards, "--deep"),
        curator("export", f"{shards}@v1", tmp_path / os.fsdecode(b"out\xe9")),
    ]
    assert [(said.code, said.err) for said in done if said.code] == []
    assert len(done[2].out.splitlines()) == 2


def test_a_bug_names_the_log_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("a bug")

    (tmp_path / "00000.tar").write_bytes(tars.tar(tars.samples(2)))
    monkeypatch.setattr("curator.steps.workspace.discover", broken)
    said = curator("index", tmp_path)
    assert said.code == 1
    assert "a bug; this is a bug; its traceback is shown with CURATOR_TRACEBACK=1" in said.err
    monkeypatch.undo()
    monkeypatch.setattr("curator.steps.index.make_index", broken)
    said = curator("index", tmp_path)
    (log,) = tmp_path.glob(".curator/runs/*/log.jsonl")
    assert f"its traceback is in {log}" in said.err
    assert "in broken" in log.read_text()
