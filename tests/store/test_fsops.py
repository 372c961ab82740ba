"""The only module that writes: all or nothing, one winner, errors that name the path."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from curator.core.errors import ConflictError, StorageError
from curator.store import fsops


def test_write_atomic_replaces_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b.bin"
    fsops.write_atomic(target, b"one")
    fsops.write_atomic(target, b"two")
    assert target.read_bytes() == b"two"
    assert [path.name for path in target.parent.iterdir()] == ["b.bin"]


def test_a_failing_block_leaves_the_old_content(tmp_path: Path) -> None:
    target = tmp_path / "x"
    fsops.write_atomic(target, b"old")

    def fail_in_the_middle() -> None:
        with fsops.atomic_file(target) as file:
            file.write(b"half of the ne")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_in_the_middle()
    assert target.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_put_if_absent_has_exactly_one_winner_of_16_threads(tmp_path: Path) -> None:
    # A barrier makes all threads reach the write together; without it a race is rarely seen.
    barrier = threading.Barrier(16)
    wins: list[int] = []

    def put(number: int) -> None:
        barrier.wait()
        if fsops.put_if_absent(tmp_path / "commit", str(number).encode()):
            wins.append(number)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == 1
    assert (tmp_path / "commit").read_bytes() == str(wins[0]).encode()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ENOSPC", "storage.no_space"),
        ("EDQUOT", "storage.quota"),
        ("EROFS", "storage.read_only"),
        ("EACCES", "storage.no_permission"),
        ("EMFILE", "storage.too_many_files"),
        ("EIO", "storage.io_error"),
    ],
)
def test_every_permanent_fault_at_every_step_becomes_a_storage_error(
    tmp_path: Path, name: str, reason: str
) -> None:
    fault = getattr(errno, name)
    steps: list[str] = []
    fsops.set_step_hook(lambda operation, _path: steps.append(operation))
    fsops.write_atomic(tmp_path / "count", b"x")
    number_of_steps = len(steps)
    assert steps == ["create", "write", "fsync", "rename", "fsync_dir"]
    for at in range(number_of_steps):
        seen: list[str] = []

        def fail(operation: str, path: Path, seen: list[str] = seen, at: int = at) -> None:
            seen.append(operation)
            if len(seen) == at + 1:
                raise OSError(fault, os.strerror(fault), str(path))

        target = tmp_path / f"{name}-{at}"
        fsops.set_step_hook(fail)
        with pytest.raises(StorageError) as caught:
            fsops.write_atomic(target, b"data")
        assert caught.value.code == 20
        assert caught.value.reason == reason
        assert caught.value.where is not None
        # Before the rename nothing is visible; after it the file is whole.
        assert not target.exists() or target.read_bytes() == b"data"
    fsops.set_step_hook(None)


def test_an_appender_has_one_writer_and_frees_the_lock(tmp_path: Path) -> None:
    first = fsops.Appender(tmp_path / "j")
    with pytest.raises(ConflictError) as caught:
        fsops.Appender(tmp_path / "j")
    assert caught.value.code == 11
    first.append(b"abcd")
    first.sync()
    first.close()
    second = fsops.Appender(tmp_path / "j")
    second.append(b"ef")
    second.sync()
    second.close()
    assert (tmp_path / "j").read_bytes() == b"abcdef"


def test_an_appender_does_not_write_to_a_file_deleted_under_it(tmp_path: Path) -> None:
    # The former owner deletes its journal while it holds the lock; the next one makes a new file.
    path = tmp_path / "j"
    owner = fsops.Appender(path)
    fsops.remove(path)
    owner.close()
    after = fsops.Appender(path)
    after.append(b"kept")
    after.sync()
    after.close()
    assert path.read_bytes() == b"kept"


def test_remove_tree_and_truncate(tmp_path: Path) -> None:
    fsops.write_atomic(tmp_path / "t" / "a" / "b", b"12345")
    fsops.truncate(tmp_path / "t" / "a" / "b", 2)
    assert (tmp_path / "t" / "a" / "b").read_bytes() == b"12"
    fsops.remove_tree(tmp_path / "t")
    assert not (tmp_path / "t").exists()
