"""Does what a page of docs/extend says, as a newcomer would: one file, one row, the real commands.

    house = Newcomer(tmp_path, "captioner", "curator/captioners/__init__.py")
    house.curator("recaption", shards, "--captioner", "colours")
    house.contract("tests/contracts/test_captioners.py", "colours")

The packages are copied, so that the row can be added to the copy's table; the file of the example
stays in docs/extend, which is put on the path. Where starting processes takes too long (training),
`add_row` puts the row of the page into the table of this process, and `run_contract` its checks.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from curator.core.registry import Registry
from tests.kit.paths import ROOT

EXTEND = ROOT / "docs" / "extend"
_COPIED = ("curator", "pretrain", "finetune", "tests/__init__.py", "tests/conftest.py")
_COPIED_TESTS = ("contracts", "kit")


class Newcomer:
    """A copy of the packages below `folder`, with the row of docs/extend/PAGE.md in its table.

    A Python block of the page that begins with `"name": ` is the row, as deep as those of the
    table; one that begins with `from ` is put below the last import of the table's file.
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
        blocks = re.findall(r"( *)```python\n(.*?)```", self.page, re.DOTALL)
        codes = [re.sub(f"^{indent}", "", code, flags=re.MULTILINE) for indent, code in blocks]
        (row,) = (code for code in codes if re.match(r' +"\w+": ', code))
        imports = "".join(code for code in codes if re.match(r"from \w+ import .*\n\Z", code))
        path = self.root / table
        before = path.read_text()
        # The table is the last one of the file whose rows stand as deep as this one.
        depth = len(row) - len(row.lstrip())
        closing = list(re.finditer(rf"^ {{{depth - 4}}}}},?$", before, re.MULTILINE))
        before = before[: closing[-1].start()] + row + before[closing[-1].start() :]
        (*_, last) = re.finditer(r"^from .*\n", before, re.MULTILINE)
        path.write_text(before[: last.end()] + imports + before[last.end() :])

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


def add_row(
    patch: pytest.MonkeyPatch, page: str, table: Registry[Any], scope: dict[str, Any]
) -> str:
    """Register the row that the page shows first; gives its name."""
    patch.syspath_prepend(EXTEND)
    (row, *_) = re.findall(r"```python\n(.*?)```", (EXTEND / f"{page}.md").read_text(), re.DOTALL)
    ((name, spec),) = eval(f"{{{row}}}", scope).items()
    assert name not in table.rows
    patch.setitem(table.rows, name, spec)
    return str(name)


def run_contract(suite: ModuleType, *row: str, folder: Path) -> int:
    """Run every test of a contract suite on a row; gives how many there were."""
    checks = [value for name, value in vars(suite).items() if name.startswith("test_")]
    for check in checks:
        own = folder / check.__name__
        own.mkdir()
        check(*row, own)
    return len(checks)
