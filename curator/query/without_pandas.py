"""Imported first by the query process: an import of pandas then fails as if it were not installed.

`pyarrow.dataset` and DuckDB import pandas where they find it, which takes a third of the start of a
query, and nothing there uses it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType


class _NoPandas(MetaPathFinder):
    def find_spec(
        self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("pandas is not used by queries", name=name)


sys.meta_path.insert(0, _NoPandas())
