"""Does what a page of docs/extend says, as a newcomer would: one file, one row, the real commands.

    house = Newcomer(tmp_path, "captioner", "curator/captioners/__init__.py")
    house.curator("recaption", shards, "--captioner", "colours")
    house.contract("tests/contracts/test_captioners.py", "colours")

The packages are copied, so that the row can be added to the copy's table; the file of the example
stays in docs/extend, which is put on the path.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.kit.paths import ROOT

EXTEND = ROOT / "docs" / "extend"
_COPIED = ("curator", "pretrain", "finetune", "tests/__init__.py", "tests/conftest.py")
_COPIED_TESTS = ("contracts", "kit")


class Newcomer:
    """A copy of the packages below `folder`, with the row of docs/extend/PAGE.md in its table.

    Rows are the lines of a Python block that begin like those of the table, eight spaces deep.
    """

    def __init__(self, folder: Path, page: str, table: str) -> None:
        self.root = folder / "checkout"
        for name in (*_COPIED, *(f"tests/{name}" for name in _COPIED_TESTS), "pyproject.toml"):
            target = self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_dir():
                shutil.copytree(
                    ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__", "models")
                )
            else:
                shutil.copyfile(ROOT / name, target)
        self.page = (EXTEND / f"{page}.md").read_text()
        (row,) = re.findall(r"```python\n( {8}\"\w+\": .*?)```", self.page, re.DOTALL)
        path = self.root / table
        before = path.read_text()
        # The table is the last one of the file whose rows stand eight spaces deep.
        end = before.rindex("\n    },\n") + 1
        path.write_text(before[:end] + row + before[end:])

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        paths = os.pathsep.join((str(self.root), str(EXTEND)))
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, *command],
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def curator(self, *arguments: object) -> str:
        """Run a command that must end well; gives its stdout."""
        done = self._run("-m", "curator", *map(str, arguments))
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, *arguments: object) -> tuple[int, str]:
        """Run a command that must not; gives its exit code and stderr."""
        done = self._run("-m", "curator", *map(str, arguments))
        assert done.returncode, done.stdout
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr

    def contract(self, suite: str, name: str) -> None:
        """Run the port's contract suite over the new row."""
        flags = ("-q", "-n", "0", "-p", "no:cacheprovider", "-rs")
        done = self._run("-m", "pytest", suite, "-k", name, *flags)
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.search(r"\d+ passed|^\.+", done.stdout, re.MULTILINE), done.stdout
