"""Stores of every format written so far are opened, checked, exported and continued.

`python -m tests.kit.golden COMMIT` adds one.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from curator.edits.log import everything
from curator.shards import digest
from curator.shards.tar import member_bytes
from curator.store import index
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


@pytest.mark.parametrize("path", STORES, ids=lambda path: path.name.partition(".")[0])
def test_a_shard_keeps_the_digest_that_its_versions_know(path: Path, tmp_path: Path) -> None:
    """They know it by the SHA-256 of the file, which is not what a scan finds today."""
    shards = golden.unpack(path, tmp_path)
    tar, store = shards / "00000.tar", Store.open(shards / ".curator")
    old = hashlib.sha256(tar.read_bytes()).hexdigest()
    assert store.version(1).shards[0].digest == old
    said = curator("index", shards, "--caption-field", "caption", "--json")
    assert (said.json["num_scanned"], said.json["num_changed_shards"]) == (1, 0), "read again"
    assert index.shard_facts(store, "00000").digest == old
    os.utime(tar, (1, 1))  # now the digest must say that it is the same
    assert curator("index", shards, "--json").json["num_scanned"] == 0
    assert curator("fsck", shards, "--deep", "--json").json["damage"] == []
    assert curator("export", f"{shards}@good", tmp_path / "out").code == 0
    tar.write_bytes(tar.read_bytes()[:-1024] + member_bytes("z.txt", b"one more") + bytes(1024))
    assert curator("index", shards, "--json").json["num_changed_shards"] == 1
    assert index.shard_facts(store, "00000").digest == digest.of_file(tar) != old
    refused = curator("export", f"{shards}@good", tmp_path / "again", "--json")
    assert refused.exit_line["error"] == "source.changed"


def test_an_older_store_and_one_of_today_are_merged(tmp_path: Path) -> None:
    """Two digests of one shard: what is there says that they are of the same bytes."""
    (path,) = (path for path in STORES if path.name.startswith("9134a67"))
    shards = golden.unpack(path, tmp_path)
    today = tmp_path / "today"
    assert curator("index", shards, "--store", shards / ".curator").code == 0
    assert recaption(shards, "--store", today, "--prompt", "spatial").code == 0
    merged = ("--store", tmp_path / "merged")
    assert curator("merge", shards, shards / ".curator", today, *merged).code == 0
    versions = Store.open(tmp_path / "merged").versions()
    assert len({version.shards[0].digest for version in versions}) == 2
    for version in versions:
        spec = f"{shards}@{version.name}"
        assert curator("export", spec, tmp_path / version.name, *merged).code == 0
    with (shards / "00000.tar").open("ab") as file:
        file.write(b"more")
    said = curator("merge", shards, shards / ".curator", today, "--store", tmp_path / "other")
    assert said.code == 2


def test_a_journal_of_an_older_format_costs_no_second_call(tmp_path: Path) -> None:
    (path,) = (path for path in STORES if path.name.startswith("9134a67"))
    shards = golden.unpack(path, tmp_path)
    (journal,) = (shards / ".curator/journal/captions").rglob("*.jnl")
    assert journal.read_bytes()[3] == 0, "its records have a binary head"
    kept = journal.read_bytes().count(b'"image_sha256"')
    made = recaption(shards, "--prompt", "detailed").json["captioned"]["made"]
    assert kept > 0
    assert made == 6 - kept
