"""Stores of every format written so far are opened, checked, exported and continued.

`python -m tests.kit.golden COMMIT` adds one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from curator.edits.log import everything
from curator.store.store import Store
from tests.kit import golden
from tests.kit.cli import check_whole, curator, recaption

STORES = sorted(golden.FOLDER.glob("*.tar.xz"))


def test_there_are_golden_stores() -> None:
    assert {"9438e47", "c24d8ba", "52e5520", "9134a67"} <= {
        path.name.partition(".")[0] for path in STORES
    }
    assert all(path.stat().st_size < 40_000 for path in STORES)


@pytest.mark.parametrize("path", STORES, ids=lambda path: path.name.partition(".")[0])
def test_a_store_of_an_older_format_goes_on(path: Path, tmp_path: Path) -> None:
    shards = golden.unpack(path, tmp_path)
    said = curator("fsck", shards, "--json")
    assert (said.code, said.json["damage"]) == (0, []), said.err
    notes = " ".join(note["what"] for note in said.json["notices"])
    assert "have no checksum" in notes, "it says that there are no checksums"
    assert "facts of an unfinished run" in notes
    assert curator("log", shards).code == 0
    assert curator("show", f"{shards}@good", "--json").json["number"] == 1
    edited = len(everything(Store.open(shards / ".curator")))
    done = recaption(shards, "--prompt", "detailed")
    assert done.code == 0, done.err
    assert curator("decide", shards, "--policy", "as-is").code == 0
    assert curator("export", f"{shards}@good", tmp_path / "out").code == 0
    assert len(everything(Store.open(shards / ".curator"))) == edited
    check_whole(shards)


def test_a_journal_of_an_older_format_costs_no_second_call(tmp_path: Path) -> None:
    (path,) = (path for path in STORES if path.name.startswith("9134a67"))
    shards = golden.unpack(path, tmp_path)
    (journal,) = (shards / ".curator/journal/captions").rglob("*.jnl")
    assert journal.read_bytes()[3] == 0, "its records have a binary head"
    kept = journal.read_bytes().count(b'"image_sha256"')
    made = recaption(shards, "--prompt", "detailed").json["captioned"]["made"]
    assert kept > 0
    assert made == 6 - kept
