"""Used first by the query process: pandas and numpy are then as if they were not installed.

`pyarrow` and DuckDB import them where they find them, which takes a third of the start of a query.
Nothing there uses pandas; numpy can be imported once both are loaded (`numpy_again`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

_absent = {"pandas", "numpy"}


class _Absent(MetaPathFinder):
    def find_spec(
        self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> None:
        if name in _absent:
            raise ModuleNotFoundError(f"{name} is not used by queries", name=name)


def hide() -> None:
    """Hide both from the imports that follow, for the rest of this process."""
    sys.meta_path.insert(0, _Absent())


def numpy_again() -> None:
    """Let numpy be imported: some views are read by modules that need it."""
    _absent.discard("numpy")
