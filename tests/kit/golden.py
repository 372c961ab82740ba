"""Stores as each format was first written, kept for ever: what today's code must still open.

    python -m tests.kit.golden COMMIT    adds tests/golden/COMMIT.tar.xz, made by that commit

The maker runs with the code of the commit, in a work tree of its own, and only uses what every
version of the engine had: the command line.
"""

from __future__ import annotations

import io
import lzma
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tests.kit import tars
from tests.kit.paths import ROOT

FOLDER = ROOT / "tests" / "golden"
_COMMANDS = (
    ("recaption", "shards", "--captioner", "echo", "--policy", "replace", "--max-quarantine", "1"),
    ("decide", "shards", "--policy", "as-is"),
    ("tag", "shards@v1", "good"),
    ("edits", "replace", "shards@v2", "photo", "picture", "--yes"),  # not in the first versions
    ("edits", "apply", "shards@v2"),
)
_KILLED = ("recaption", "shards", "--captioner", "echo", "--policy", "replace", "--prompt",
           "detailed", "--batch-size", "2")  # fmt: skip


def make(commit: str) -> Path:
    """Write the store of a commit; a run that was killed leaves a journal in it."""
    with tempfile.TemporaryDirectory() as folder:
        code, work = Path(folder) / "code", Path(folder) / "work"
        (work / "shards").mkdir(parents=True)
        data = tars.tar(tars.samples(6))
        (work / "shards" / "00000.tar").write_bytes(data)
        subprocess.run(["git", "worktree", "add", "--detach", code, commit], cwd=ROOT, check=True)
        try:
            env = {**os.environ, "PYTHONPATH": str(code), "SOURCE_DATE_EPOCH": "1700000000"}
            for command in _COMMANDS:
                subprocess.run([sys.executable, "-m", "curator", *command], cwd=work, env=env,
                               check=False)  # fmt: skip
            for at in range(12, 80):  # killed as late as leaves a journal with something in it
                env["CURATOR_FAILPOINT"] = str(at)
                subprocess.run([sys.executable, "-m", "curator", *_KILLED], cwd=work, env=env,
                               check=False)  # fmt: skip
                journals = [*(work / "shards/.curator/journal/captions").rglob("*.jnl")]
                if any(path.stat().st_size > 500 for path in journals):
                    break
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", code], cwd=ROOT, check=True)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.add(work / "shards", "shards")
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{commit}.tar.xz"
    path.write_bytes(lzma.compress(buffer.getvalue(), preset=9))
    return path


def unpack(path: Path, folder: Path) -> Path:
    """The shards of a golden store with their store; times of files are as they were."""
    with tarfile.open(path) as archive:
        archive.extractall(folder, filter="data")
    return folder / "shards"


if __name__ == "__main__":
    print(make(sys.argv[1]))  # noqa: T201 - the result
