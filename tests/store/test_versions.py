"""Versions: identity by content, contiguous numbers, one winner, damage and newer formats named."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from curator.core import hashing
from curator.core.errors import DamageError, FormatError, NotFoundError, UsageError
from curator.store import versions
from curator.store.store import Store
from curator.store.versions import ShardEntry, Version

SHARD = ShardEntry(
    name="00000",
    digest="a" * 64,
    num_samples=3,
    counts={"captioned": 1, "kept": 1, "dropped": 1, "quarantined": 0},
    rows_digest="b" * 64,
    file="captions/00000.bbbbbbbbbbbb.parquet",
    file_sha256="c" * 64,
)


def draft(name: str = "best", shard: ShardEntry = SHARD) -> Version:
    policy = {"name": name}
    return Version(
        number=0,
        id=versions.version_id(policy, [shard]),
        parent=None,
        created=0.0,
        tool_version="0",
        policy=policy,
        thresholds={},
        makers={},
        totals={"num_texts": 2},
        shards=(shard,),
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "store")


def test_the_id_depends_on_the_decision_and_not_on_time_or_file_bytes() -> None:
    other_bytes = replace(SHARD, file_sha256="d" * 64)
    assert draft().id == draft(shard=other_bytes).id
    assert draft().id != draft("replace").id
    assert draft().id != draft(shard=replace(SHARD, rows_digest="e" * 64)).id


def test_commits_are_numbered_and_chained(store: Store) -> None:
    first, new = store.commit(draft("a"))
    second, _ = store.commit(draft("b"))
    assert (first.number, first.parent, new) == (1, None, True)
    assert (second.number, second.parent) == (2, first.id)
    assert second.created > first.created
    assert store.newest() == second
    assert store.version(2).counts == {"captioned": 1, "kept": 1, "dropped": 1, "quarantined": 0}


def test_the_same_decision_is_not_committed_twice(store: Store) -> None:
    first, _ = store.commit(draft("a"))
    store.commit(draft("b"))
    again, new = store.commit(draft("a"))
    assert (again, new) == (first, False)
    assert store.numbers() == [1, 2]


def test_a_clock_that_runs_backwards_keeps_the_order(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "2000000000")
    first, _ = store.commit(draft("a"))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1999913600")  # a day earlier
    second, _ = store.commit(draft("b"))
    assert second.created == first.created + 1


def test_resolve_by_number_tag_prefix_and_default(store: Store) -> None:
    first, _ = store.commit(draft("a"))
    second, _ = store.commit(draft("b"))
    store.tag("good", first)
    assert store.resolve(None) == second
    assert store.resolve("v1") == store.resolve("1") == store.resolve("good") == first
    assert store.resolve(second.id[:8]) == second
    with pytest.raises(NotFoundError, match="did you mean 'good'") as caught:
        store.resolve("goood")
    assert caught.value.code == 10


@pytest.mark.parametrize("name", ["v3", "7", "", "a b", "../x", "a" * 65])
def test_a_tag_must_not_look_like_a_version_or_a_path(store: Store, name: str) -> None:
    version, _ = store.commit(draft())
    with pytest.raises(UsageError):
        store.tag(name, version)


def test_manifest_row_59(store: Store) -> None:
    """Row 59: truncated and wrong hash 12, unknown field kept, newer format 13."""
    store.commit(draft())
    path = store.manifest_path(1)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(DamageError) as caught:
        store.version(1)
    assert caught.value.code == 12
    path.write_bytes(whole.replace(b'"num_samples":3', b'"num_samples":4'))
    with pytest.raises(DamageError, match="checksum"):
        store.version(1)
    body = json.loads(whole)["manifest"] | {"later": "x"}
    path.write_bytes(hashing.canonical_json({"sha256": hashing.digest(body), "manifest": body}))
    assert store.version(1).extra == {"later": "x"}
    assert b'"later":"x"' in versions.to_json(store.version(1))
    body["format"] = versions.FORMAT + 1
    path.write_bytes(hashing.canonical_json({"sha256": hashing.digest(body), "manifest": body}))
    with pytest.raises(FormatError) as newer:
        store.version(1)
    assert newer.value.code == 13


def test_a_newer_store_is_refused(store: Store) -> None:
    (store.root / "store.json").write_text('{"format": 99}')
    with pytest.raises(FormatError):
        Store.open(store.root)


def test_a_failed_link_that_happened_is_read_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A commit can succeed and still report an error (reliability finding 4): read it back.
    from curator.store import fsops

    real = fsops.put_if_absent

    def put_then_fail(path: Path, data: bytes) -> bool:
        real(path, data)
        raise OSError(110, "timed out")

    monkeypatch.setattr(fsops, "put_if_absent", put_then_fail)
    version, new = store.commit(draft())
    assert (version.number, new) == (1, True)


def _commit_many(root: Path, writer: int, count: int) -> None:
    store = Store.open(root)
    for number in range(count):
        store.commit(draft(f"{writer}-{number}"))


@pytest.mark.long
def test_16_concurrent_writers_lose_no_update(store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [
        context.Process(target=_commit_many, args=(store.root, writer, 10)) for writer in range(16)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 16
    found = list(store.versions())
    assert [version.number for version in found] == list(range(1, 161))
    assert {version.policy["name"] for version in found} == {
        f"{writer}-{number}" for writer in range(16) for number in range(10)
    }
    for before, after in pairwise(found):
        assert after.parent == before.id
