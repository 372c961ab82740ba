"""What a newcomer does: put a file of docs/extend on the path, and add the row of its page."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from curator.core.registry import Registry
from tests.kit.paths import ROOT

EXTEND = ROOT / "docs" / "extend"


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
