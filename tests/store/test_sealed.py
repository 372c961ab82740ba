"""Files with a checksum: any bit that was flipped is noticed; old files are read as they are."""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.core.errors import DamageError
from curator.store import sealed

VALUE = {"b": [1, 2.5, None], "a": "ein Hund ü", "c": {"x": 1e-7}}


def test_a_file_by_hand() -> None:
    rest = b'","n":1}\n'
    whole = b'{"checksum":"' + hashlib.sha256(rest).hexdigest().encode() + rest
    assert sealed.to_bytes({"n": 1}) == whole
    assert json.loads(whole)["n"] == 1, "other tools read it"
    assert sealed.parse(whole, "x") == ({"n": 1}, True)
    assert sealed.parse(sealed.to_bytes({}), "x") == ({}, True)
    assert sealed.to_bytes({"n": 1}, indent=1).splitlines()[1:] == [b' "n": 1', b"}"]


def test_a_line_by_hand() -> None:
    rest = b'","n":1}'
    line = f'{{"crc":"{zlib.crc32(rest):08x}","n":1}}'
    assert sealed.seal_line('{"n":1}') == line
    assert sealed.lines(line.encode() + b'\n{"old":1}\n{"hal', "x") == ([{"n": 1}, {"old": 1}], 5)


def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for indent in (None, 1):
        whole = sealed.to_bytes(VALUE, indent=indent)
        assert sealed.parse(whole, "x") == (VALUE, True)
        for place in range(len(whole)):
            for bit in range(8):
                bad = whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
                with pytest.raises(DamageError):
                    sealed.parse(bad, "x")
            path.write_bytes(whole[:place])
            with pytest.raises(DamageError) as refused:
                sealed.read(path, hint="do this")
            assert (refused.value.where, refused.value.hint) == (str(path), "do this")
    path.unlink()
    with pytest.raises(DamageError, match="the file is missing"):
        sealed.read(path)


def test_every_flipped_bit_of_a_line_is_noticed() -> None:
    log = "".join(sealed.seal_line(json.dumps({"step": step})) + "\n" for step in range(3)).encode()
    assert sealed.lines(log, "x") == ([{"step": 0}, {"step": 1}, {"step": 2}], 0)
    for place in range(len(log) - 1):
        for bit in range(8):
            bad = log[:place] + bytes([log[place] ^ 1 << bit]) + log[place + 1 :]
            with pytest.raises(DamageError):
                sealed.lines(bad, "x")


def test_lines_that_never_came_to_the_disk_are_left_out() -> None:
    one, two = (sealed.seal_line(json.dumps({"step": step})).encode() + b"\n" for step in (1, 2))
    assert sealed.lines(one + bytes(30) + b"\n" + two, "x") == ([{"step": 1}, {"step": 2}], 31)


def test_old_files_are_read_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for text in (json.dumps(VALUE), json.dumps(VALUE, indent=1), "{}"):
        path.write_text(text)
        assert sealed.load(path) == (json.loads(text), False)
    for text in ("[1]", "1", "{", "", "null"):
        path.write_text(text)
        with pytest.raises(DamageError):
            sealed.load(path)


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none() | st.lists(st.text())))
def test_whatever_is_written_comes_back(value: dict[str, Any]) -> None:
    value.pop("checksum", None)
    try:
        whole = sealed.to_bytes(value)
    except UnicodeEncodeError:
        return  # a lone surrogate, which no file may hold
    assert sealed.parse(whole, "x") == (value, True)


def test_a_file_that_another_one_names(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"picture")
    digest = hashlib.sha256(b"picture").hexdigest()
    assert sealed.check_file(path, digest, "summary.json") == b"picture"
    path.write_bytes(b"pictura")
    with pytest.raises(DamageError, match=r"sha256 is .*, summary.json says " + digest[:12]):
        sealed.check_file(path, digest, "summary.json")
    path.unlink()
    with pytest.raises(DamageError, match=r"the file is missing, but summary.json lists it"):
        sealed.check_file(path, digest, "summary.json")
