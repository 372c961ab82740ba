"""A disk that is really full: a named error, and with space again the run ends as without one."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit import tars
from tests.kit.cli import curator, recaption
from tests.kit.crash_worker import tree

SIZE_BYTES = 4 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        pytest.skip(f"there is no mount ({error})")
    if done.returncode:
        pytest.skip(f"a file system in memory cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def made(store: Path) -> dict[str, str]:
    """What of a store does not depend on when it was made."""
    kept = ("captions/", "facts/captions/", "facts/scores/")
    return {name: digest for name, digest in tree(store).items() if name.startswith(kept)}


def test_ten_full_disks(disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    shards = tmp_path / "shards"
    shards.mkdir()
    for number in range(2):
        data = tars.tar(tars.samples(40, first=40 * number))
        (shards / f"{number:05d}.tar").write_bytes(data)
    assert recaption(shards, "--store", tmp_path / "reference").code == 0
    wanted, generator = made(tmp_path / "reference"), random.Random(0)
    needed = sum(path.stat().st_size for path in (tmp_path / "reference").rglob("*.*"))
    num_full = 0
    for turn in range(10):
        store = disk / f"store{turn}"
        ballast = disk / "ballast"
        left = generator.randrange(4096, needed)
        ballast.write_bytes(bytes(shutil.disk_usage(disk).free - left // 4096 * 4096))
        said = recaption(shards, "--store", store)
        if said.code:
            num_full += 1
            assert (said.code, said.exit_line["error"]) == (20, "storage.no_space"), said.err
            assert "free some space, then run the same command again" in said.err
        ballast.unlink()
        assert recaption(shards, "--store", store).code == 0
        assert made(store) == wanted
        assert curator("fsck", shards, "--deep", "--store", store).code == 0
        shutil.rmtree(store)
    assert num_full >= 5, "the disk was hardly ever full"
