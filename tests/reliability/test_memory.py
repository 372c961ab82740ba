"""Memory does not grow with the dataset: ten shards need what one needs."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.kit import tars

PER_SHARD = 10_000
COMMANDS = {
    "recaption": ("recaption", "{data}", "--captioner", "echo", "--scorer", "text",
                  "--policy", "replace"),
    "decide": ("decide", "{data}", "--policy", "as-is"),
    "diff": ("diff", "{data}@v1", "{data}@v2"),
    "query": ("query", "{data}", "select count(distinct text) from captions"),
    "export": ("export", "{data}@v1", "{out}"),
    "fsck": ("fsck", "{data}", "--deep"),
}  # fmt: skip


def write_shard(folder: Path, number: int) -> None:
    """Images that all differ, so that each is a fact of its own."""
    folder.mkdir(exist_ok=True)
    members = []
    for index in range(PER_SHARD * number, PER_SHARD * (number + 1)):
        out = io.BytesIO()
        Image.new("RGB", (32, 32), (index & 255, index >> 8 & 255, index >> 16)).save(out, "PNG")
        members += [(f"{index:09d}.png", out.getvalue()), (f"{index:09d}.txt", b"photo %d" % index)]
    (folder / f"{number:05d}.tar").write_bytes(tars.tar(members))


def peak_mb(command: tuple[str, ...], folder: Path) -> float:
    """The largest resident size of any process of a command."""
    data, out = folder / "shards", folder / "out"
    arguments = [part.format(data=data, out=out) for part in command]
    process = subprocess.Popen(
        [sys.executable, "-m", "curator", *arguments],
        env={**os.environ, "POLARS_MAX_THREADS": "2", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    assert process.returncode == 0, said.decode()[-2000:]
    return usage.ru_maxrss / 1024


@pytest.mark.slow
def test_memory_is_flat_from_10_000_to_100_000_samples(tmp_path: Path) -> None:
    peaks: dict[int, dict[str, float]] = {}
    for num_shards in (1, 10):
        folder = tmp_path / str(num_shards)
        folder.mkdir()
        for number in range(num_shards):
            write_shard(folder / "shards", number)
        peaks[num_shards] = {verb: peak_mb(asked, folder) for verb, asked in COMMANDS.items()}
    for verb in COMMANDS:
        assert peaks[10][verb] < 1.25 * peaks[1][verb], (verb, peaks)
