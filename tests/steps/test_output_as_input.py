"""What one command wrote is never taken for the input of another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curator.core.errors import UsageError
from curator.export.version import MANIFEST, export
from curator.pack.shards import pack
from curator.steps.workspace import open_workspace
from curator.store import outputs
from tests.kit import tars
from tests.kit.cli import curator
from tests.kit.store import small_store


def num_samples(spec: Path | str) -> int:
    done = curator("index", str(spec), "--json")
    assert done.code == 0, done.err
    return int(json.loads(done.out)["num_samples"])


@pytest.mark.parametrize("out", ["shards/out", "shards", "shards/a/b", "link", "link/new"])
@pytest.mark.parametrize("spec", ["shards", "shards/**/*.tar"])
@pytest.mark.long
def test_export_into_its_own_dataset_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, out: str
) -> None:
    monkeypatch.chdir(tmp_path)
    small_store(tmp_path / "shards", ["alt"])
    (tmp_path / "shards" / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "shards" / "empty")
    before = sorted(tmp_path.rglob("*"))
    done = curator("export", f"{spec}@v1", out, "--store", "shards/.curator")
    assert (done.code, "error[output.inside_source]" in done.err) == (2, True), done.err
    assert "nothing was written" in done.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("out", [".curator/out", "elsewhere/out"])
def test_export_into_a_store_is_refused(tmp_path: Path, out: str) -> None:
    kit = small_store(tmp_path / "shards", ["alt"], store=tmp_path / "elsewhere")
    other = small_store(tmp_path / "others", ["alt"])  # any store, not only its own
    folder = (other.ws.store.root.parent if out.startswith(".") else tmp_path) / out
    with pytest.raises(UsageError) as caught:
        export(kit.ws.store, kit.ws.shards, kit.versions["alt"], folder, to="wds")
    assert caught.value.reason == "output.inside_source"
    assert not folder.exists()


@pytest.mark.parametrize("to", ["wds", "hf"])
def test_an_export_that_was_put_into_a_dataset_is_left_out_and_said(
    tmp_path: Path, to: str
) -> None:
    small_store(tmp_path / "shards", ["alt"])
    more = ["--license", "cc-by-4.0"] if to == "hf" else []
    assert (
        curator("export", f"{tmp_path}/shards@v1", f"{tmp_path}/out", "--to", to, *more).code == 0
    )
    shutil.move(tmp_path / "out", tmp_path / "shards" / "out")
    done = curator("index", f"{tmp_path}/shards", "--json")
    assert json.loads(done.out)["num_samples"] == 10
    assert f"skipping {tmp_path}/shards/out: it was written by `curator export`" in done.err
    for pattern in ("**/*.tar", "{00000.tar,00001.tar,out}"):
        ws = open_workspace(f"{tmp_path}/shards/{pattern}", None)
        assert [ref.name for ref in ws.shards] == ["00000", "00001"]
    with pytest.raises(UsageError) as caught:
        open_workspace(f"{tmp_path}/shards/*/**/*.tar", None)
    assert "name its folder" in str(caught.value)


def test_an_export_that_is_not_finished_is_left_out_too(tmp_path: Path) -> None:
    small_store(tmp_path / "shards", ["alt"])
    assert curator("export", f"{tmp_path}/shards@v1", f"{tmp_path}/out").code == 0
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_bytes())
    (tmp_path / "out" / MANIFEST).unlink()
    (tmp_path / "out" / outputs.CLAIM).write_text(json.dumps(manifest["recipe"]))
    shutil.copytree(tmp_path / "out", tmp_path / "shards" / "deep" / "er")
    assert num_samples(tmp_path / "shards") == 10


def test_who_names_an_export_itself_means_it_and_is_told(tmp_path: Path) -> None:
    small_store(tmp_path / "shards", ["alt"])
    assert curator("export", f"{tmp_path}/shards@v1", f"{tmp_path}/out").code == 0
    done = curator("index", f"{tmp_path}/out", "--json")
    assert json.loads(done.out)["num_samples"] == 8  # 10, less one dropped and one cut off
    assert "was written by `curator export`: its texts" in done.err


def test_packed_shards_may_be_added_to_a_dataset(tmp_path: Path) -> None:
    """The output of `pack` is a dataset, or a part of one."""
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "p.jpg").write_bytes(tars.image_bytes(7))
    (photos / "p.txt").write_text("a photo")
    small_store(tmp_path / "shards", ["alt"])
    pack(photos, tmp_path / "shards" / "more")
    assert num_samples(tmp_path / "shards") == 11


def test_pack_does_not_take_tables_of_stores_and_outputs_for_its_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = tmp_path / "tables"
    tables.mkdir()
    rows = {"image": [tars.image_bytes(n) for n in range(3)], "caption": ["a", "b", "c"]}
    pq.write_table(pa.table(rows), tables / "part-0.parquet")
    pack(tables, tmp_path / "packed")
    shutil.move(tmp_path / "packed", tables / "packed")
    small_store(tmp_path / "shards", ["alt"], store=tables / ".curator")
    assert pack(tables, tmp_path / "again").num_rows == 3
    assert f"skipped: {tables}/packed was written by curator pack or export" in (
        capsys.readouterr().err
    )
