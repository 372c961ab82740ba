"""Tables of shards without a store are read once, kept within limits, and never outlive a file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from curator.core.errors import DamageError
from curator.shards.dataset import ShardRef, discover
from curator.shards.scan import ScanOptions, ShardScan, scan_shard
from pretrain.data import tars as sources
from pretrain.data.tables import ROWS
from pretrain.data.tars import TarTables
from tests.kit import tars


@pytest.fixture
def scanned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the shards that are read as a whole, each time they are."""
    names: list[str] = []

    def scan(ref: ShardRef, *, options: ScanOptions) -> ShardScan:
        names.append(ref.name)
        return scan_shard(ref, options=options)

    monkeypatch.setattr(sources, "scan_shard", scan)
    return names


def two_shards(folder: Path) -> TarTables:
    for number in range(2):
        tars.write(folder, tars.tar(tars.samples(3, first=3 * number)), name=f"0000{number}")
    return TarTables(discover(str(folder)))


def test_counting_and_every_epoch_read_a_shard_once(tmp_path: Path, scanned: list[str]) -> None:
    tables = two_shards(tmp_path)
    assert tables.counts().tolist() == [3, 3]
    first = [tables.read(shard).rows for shard in (0, 1)]
    again = [tables.read(shard).rows for shard in (1, 0)]
    assert [rows["key"].to_list() for rows in first] == [
        ["000000000", "000000001", "000000002"],
        ["000000003", "000000004", "000000005"],
    ]
    assert first[0].equals(again[1])
    assert sorted(scanned) == ["00000", "00001"]


def test_a_shard_that_was_touched_is_read_again(tmp_path: Path, scanned: list[str]) -> None:
    tables = two_shards(tmp_path)
    tables.counts()
    os.utime(tmp_path / "00001.tar", (1, 1))
    tables.read(0)
    tables.read(1)
    tables.read(1)
    assert sorted(scanned) == ["00000", "00001", "00001"]


def test_a_shard_that_is_gone_is_not_read_from_memory(tmp_path: Path) -> None:
    tables = two_shards(tmp_path)
    tables.read(0)
    (tmp_path / "00000.tar").unlink()
    with pytest.raises(DamageError, match="cannot be opened"):
        tables.read(0)


def test_only_the_tables_that_fit_are_kept(
    tmp_path: Path, scanned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = two_shards(tmp_path).read(0).rows.estimated_size()
    monkeypatch.setattr(sources, "KEPT_BYTES", 1.5 * size)
    scanned.clear()
    tables = two_shards(tmp_path)
    tables.counts()
    assert sorted(scanned) == ["00000", "00001"]
    scanned.clear()
    for shard in (0, 1, 0, 1):
        tables.read(shard)
    assert len(scanned) == 2  # one of them fits
    assert len(set(scanned)) == 1
    kept = 1 - int(scanned[0])
    os.utime(tmp_path / f"0000{kept}.tar", (1, 1))  # gives up its place, and takes it again
    scanned.clear()
    for _ in range(2):
        tables.read(kept)
    assert scanned == [f"0000{kept}"]


def test_texts_stay_with_their_samples(tmp_path: Path) -> None:
    """Two texts, none, one: in the types of ROWS, lists empty rather than missing."""
    captions = [{"text": text, "weight": 3.0, "source": "x"} for text in ("one", "two")]
    field = json.dumps({"curator": {"captions": captions}}).encode()
    files = [("a.jpg", tars.image_bytes(1)), ("a.json", field)]
    files += tars.sample("b", 2, caption=None) + tars.sample("c", 3, caption="three")
    tars.write(tmp_path, tars.tar(files))
    everything = TarTables(discover(str(tmp_path)), need_text=False).read(0).rows
    assert everything.schema == ROWS
    assert everything.select("key", "texts", "weights", "written_by").rows() == [
        ("a", ["one", "two"], [0.5, 0.5], ["x", "x"]),
        ("b", [], [], []),
        ("c", ["three"], [1.0], ["alt_text"]),
    ]
    with_text = TarTables(discover(str(tmp_path))).read(0).rows
    assert with_text.equals(everything[[0, 2]])
