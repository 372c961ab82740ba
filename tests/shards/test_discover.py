"""Which shards a user means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from curator.core.errors import NotFoundError, UsageError
from curator.shards.dataset import discover
from curator.shards.scan import ScanOptions, scan_shard
from tests.kit.tars import shard_reasons


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def found(spec: object) -> list[str]:
    return [shard.name for shard in discover(str(spec)).shards]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    root = tmp_path / "shards"
    touch(root, "00001.tar", "00000.tar", "00000.parquet", "00009_stats.json", "more/00000.tar")
    touch(root, ".curator/x.tar", ".hidden.tar", "more/.tmp/y.tar")
    return root


def test_discover_a_folder(shards: Path) -> None:
    dataset = discover(str(shards))
    assert dataset.root == shards
    assert found(shards) == ["00000", "00001", "more/00000"]
    assert dataset.shards[2].path == shards / "more" / "00000.tar"


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.tar", ["00000", "00001"]),
        ("*", ["00000", "00001"]),
        ("**/*.tar", ["00000", "00001", "more/00000"]),
        ("{00000..00001}.tar", ["00000", "00001"]),
        ("{00001,more/*}.tar", ["00001", "more/00000"]),
        ("[0-9]*1.tar", ["00001"]),
        ("{00001.tar,more}", ["00001", "more/00000"]),
    ],
)
def test_discover_patterns(shards: Path, pattern: str, expected: list[str]) -> None:
    assert found(shards / pattern) == expected
    assert discover(str(shards / pattern)).root == shards


def test_discover_one_tar(shards: Path) -> None:
    assert found(shards / "more/00000.tar") == ["00000"]
    assert discover(str(shards / "more/00000.tar")).root == shards / "more"


def test_discover_relative_to_a_folder_with_pattern_characters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "old [1]/a/00000.tar")
    monkeypatch.chdir(tmp_path / "old [1]")
    assert found("a") == ["00000"]
    assert found("a/*.tar") == ["00000"]
    assert found(tmp_path / "old [1]") == ["a/00000"]


def test_discover_a_linked_folder_and_a_loop(shards: Path) -> None:
    (shards / "more" / "up").symlink_to(shards)
    (shards / "link").symlink_to(shards / "more" / "up" / "more")
    assert found(shards)[:2] == ["00000", "00001"]
    assert len(found(shards)) == 3  # each file once


def test_discover_names_missing_shards_of_a_brace_pattern(shards: Path) -> None:
    dataset = discover(str(shards / "{00000..00002}.tar"))
    scans = [scan_shard(shard, options=ScanOptions()) for shard in dataset.shards]
    assert [(one.name, shard_reasons(one)) for one in scans] == [
        ("00000", ["tar.empty"]),
        ("00001", ["tar.empty"]),
        ("00002", ["shard.missing"]),
    ]


@pytest.mark.parametrize("pattern", ["*.zip", "{7..9}.tar", "*/*/*.tar"])
def test_no_shard_found(shards: Path, pattern: str) -> None:
    with pytest.raises(UsageError) as error:
        discover(str(shards / pattern))
    assert (error.value.reason, error.value.code) == ("input.none_found", 2)
    assert "looked for" in str(error.value)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("none.tar", "there is no file 'none.tar' in {shards}; name a folder"),
        ("moer", "there is no folder 'moer' in {shards}; did you mean 'more'?; name a folder"),
        ("a/b", "there is no folder 'a/b' in {shards}; name a folder"),
    ],
)
def test_what_is_named_and_not_there(shards: Path, spec: str, said: str) -> None:
    with pytest.raises(NotFoundError) as error:
        discover(str(shards / spec))
    assert (error.value.reason, error.value.code) == ("input.none_found", 10)
    assert str(error.value).startswith(said.format(shards=shards))


@pytest.mark.parametrize(
    "spec",
    ["pipe:cat x.tar", "http://a/x.tar", "ftp://a/{0..9}.tar", "s3:b/x", "hdfs://b", "file:///x"],
)
def test_schemes_are_refused(spec: str) -> None:
    with pytest.raises(UsageError) as error:
        discover(spec)
    assert (error.value.reason, error.value.code) == ("input.scheme_refused", 2)
    assert "local" in str(error.value)


@pytest.mark.parametrize("pattern", ["{0..3.tar", "{0..99999999}.tar", "{a,../../b}.tar"])
def test_bad_brace_patterns(shards: Path, pattern: str) -> None:
    with pytest.raises(UsageError) as error:
        discover(str(shards / pattern))
    assert error.value.reason == "input.bad_pattern"


def test_file_names_that_no_table_can_hold(shards: Path) -> None:
    (shards / os.fsdecode(b"\xff.tar")).write_bytes(b"")
    with pytest.raises(UsageError) as error:
        discover(str(shards))
    assert error.value.reason == "input.bad_name"


def test_two_files_of_one_name(shards: Path) -> None:
    touch(shards, "00000")
    with pytest.raises(UsageError) as error:
        discover(str(shards / "{00000,00000.tar}"))
    assert error.value.reason == "input.bad_name"
