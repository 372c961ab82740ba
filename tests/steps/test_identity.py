"""One store serves one dataset: however it is addressed, wherever it is moved, and no other."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from curator.core.errors import DamageError, UsageError
from curator.steps import identity
from curator.steps.workspace import Workspace, open_workspace
from curator.store.store import Store
from tests.kit import tars
from tests.kit.cli import Said, curator


def dataset(folder: Path, *, first: int = 0, names: Sequence[str] = ("00000", "00001")) -> Path:
    """Shards of two samples each; other pictures and texts for another `first`."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        files = tars.samples(2, first=first + 2 * number)
        (folder / f"{name}.tar").write_bytes(tars.tar(files))
    return folder


def index(spec: object, *more: object) -> Said:
    return curator("index", spec, "--json", *more)


def texts(spec: object, store: Path) -> list[str]:
    done = curator("query", spec, "select alt_text from samples", "--store", store, "--json")
    assert done.code == 0, done.err
    return [json.loads(line)["alt_text"] for line in done.out.splitlines()]


COMMANDS = (
    ["index"], ["recaption", "--captioner", "echo", "--policy", "replace"],
    ["score", "--scorer", "text"], ["decide", "--policy", "as-is"], ["log"], ["show"], ["fsck"],
    ["gc"], ["quarantine", "list"], ["edits", "list"], ["diff"],
)  # fmt: skip


@pytest.mark.parametrize("first", [["index"], ["index", "old"]])
@pytest.mark.long
def test_another_dataset_is_refused_by_every_command_and_changes_nothing(
    tmp_path: Path, first: list[str]
) -> None:
    one, two = dataset(tmp_path / "one"), dataset(tmp_path / "two", first=100)
    store = tmp_path / "store"
    assert index(one, "--store", store).code == 0
    assert curator("decide", one, "--policy", "as-is", "--store", store).code == 0
    if "old" in first:  # written before stores remembered where their dataset lies
        (store / identity.FILE).unlink()
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    for command in (*COMMANDS, ["export"], ["tag"], ["query"]):
        verb = command[:2] if command[0] in ("quarantine", "edits") else command[:1]
        more = {"export": [tmp_path / "out"], "tag": ["x"], "query": ["select 1"]}
        done = curator(*verb, two, *more.get(verb[0], []), *command[len(verb) :], "--store", store)
        assert done.code == 2, (command, done)
        assert "error[store.other_dataset]" in done.err
        assert "2 of 2 shards" in done.err
        assert "--store" in done.err
        assert "--adopt" in done.err
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before
    assert texts(one, store) == [caption(n) for n in range(4)]


def caption(number: int) -> str:
    ((_, data),) = [file for file in tars.samples(1, first=number) if file[0].endswith(".txt")]
    return data.decode()


def test_one_dataset_however_it_is_addressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, store = dataset(tmp_path / "one"), tmp_path / "store"
    (tmp_path / "link").symlink_to(one)
    monkeypatch.chdir(tmp_path)
    for spec in (one, "one", "./one/", "one/*.tar", "one/{00000..00001}.tar", "one/00001.tar",
                 "link", "link/*.tar", f"{one}/../one"):  # fmt: skip
        done = index(spec, "--store", store)
        assert done.code == 0, (spec, done.err)
        assert "adding it as more shards" not in done.err
    assert identity.roots(Store.open(store)) == [str(one)]


@pytest.mark.parametrize("times", ["kept", "lost"])
@pytest.mark.parametrize("where", ["beside", "inside"])
@pytest.mark.long
def test_a_dataset_that_was_moved_or_is_mounted_elsewhere(
    tmp_path: Path, where: str, times: str
) -> None:
    one = dataset(tmp_path / "one")
    store = one / ".curator" if where == "inside" else tmp_path / "store"
    assert index(one, "--store", store).code == 0
    shutil.copytree(one, tmp_path / "two") if where == "beside" else one.rename(tmp_path / "two")
    store = tmp_path / "two" / ".curator" if where == "inside" else store
    if times == "lost":
        for path in (tmp_path / "two").glob("*.tar"):
            os.utime(path, (1, 1))
    assert curator("log", tmp_path / "two", "--store", store).code == 0
    done = index(tmp_path / "two" / "{00000..00001}.tar", "--store", store)
    assert (done.code, done.json["num_scanned"]) == (0, 0), done.err
    assert identity.roots(Store.open(store)) == [str(one), str(tmp_path / "two")]


def test_a_part_of_the_dataset_on_another_machine(tmp_path: Path) -> None:
    """Machine 2 sees the second half under another path, and nobody has indexed it yet."""
    store = tmp_path / "store"
    assert index(dataset(tmp_path / "a"), "--store", store).code == 0
    half = dataset(tmp_path / "b", first=50, names=("00002", "00003"))
    done = index(half, "--store", store)
    assert done.code == 0
    assert f"was made from {tmp_path}/a and has no shard of {half}" in done.err
    assert "adding it as more shards" not in index(half, "--store", store).err  # said once


def test_a_shard_replaced_in_its_place_is_read_again_and_said(tmp_path: Path) -> None:
    one = dataset(tmp_path / "one")
    assert index(one).json["num_changed_shards"] == 0
    dataset(one, first=200, names=("00001",))
    done = index(one)
    assert (done.code, done.json["num_scanned"], done.json["num_changed_shards"]) == (0, 1, 1)
    assert "1 shards changed since they were last indexed" in done.err


def test_a_moved_dataset_with_a_replaced_shard(tmp_path: Path) -> None:
    """In its own folder the store moves with it; elsewhere somebody has to say so."""
    inside = dataset(tmp_path / "inside")
    assert index(inside).code == 0
    inside.rename(tmp_path / "moved")
    dataset(tmp_path / "moved", first=200, names=("00001",))
    assert index(tmp_path / "moved").json["num_changed_shards"] == 1

    beside, store = dataset(tmp_path / "beside"), tmp_path / "store"
    assert index(beside, "--store", store).code == 0
    beside.rename(tmp_path / "moved2")
    dataset(tmp_path / "moved2", first=200, names=("00001",))
    done = index(tmp_path / "moved2", "--store", store)
    assert (done.code, "1 of 2 shards" in done.err) == (2, True)
    done = index(tmp_path / "moved2", "--store", store, "--adopt")
    assert (done.code, done.json["num_changed_shards"]) == (0, 1)
    assert index(tmp_path / "moved2", "--store", store).code == 0


def test_a_store_that_was_copied_into_another_dataset(tmp_path: Path) -> None:
    one, two = dataset(tmp_path / "one"), dataset(tmp_path / "two", first=100)
    assert index(one).code == 0
    shutil.copytree(one / ".curator", two / ".curator")
    assert "error[store.other_dataset]" in index(two).err


def test_a_store_of_an_older_tool_takes_over_where_it_lies(tmp_path: Path) -> None:
    one = dataset(tmp_path / "one")
    assert index(one).code == 0
    path = one / ".curator" / identity.FILE
    path.unlink()
    dataset(one, first=200)  # replaced as a whole, in its place
    assert curator("log", one).code == 0
    assert not path.exists()
    assert index(one).json["num_changed_shards"] == 2
    assert identity.roots(Store.open(one / ".curator")) == [str(one)]


@pytest.mark.parametrize("place", [3, 20, -10])
def test_a_flipped_bit_in_what_the_store_remembers(tmp_path: Path, place: int) -> None:
    one = dataset(tmp_path / "one")
    assert index(one).code == 0
    path = one / ".curator" / identity.FILE
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamageError) as caught:
        open_workspace(str(one), None)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == data


def test_opening_is_what_refuses(tmp_path: Path) -> None:
    """So that whoever opens a workspace is safe: the dashboard and training do, too."""
    one, two = dataset(tmp_path / "one"), dataset(tmp_path / "two", first=100)
    opened = open_workspace(str(one), tmp_path / "store", create=True)
    assert isinstance(opened, Workspace)
    assert index(one, "--store", tmp_path / "store").code == 0
    with pytest.raises(UsageError):
        open_workspace(str(two), tmp_path / "store", create=True)
