"""A name -> "module:object" table that imports nothing until a name is asked for.

This and the bodies of the commands in `curator.cli` are the only two seams where imports are
late, so that `curator --help` never pays for torch (docs/design/index.md).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from curator.core.errors import UsageError, nearest


def load(target: str) -> Any:
    """Import `"package.module:Name"` and return the object."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


class Registry:
    """The table of one port, e.g. all captioners. `kind` names the port in error messages."""

    def __init__(self, kind: str, targets: Mapping[str, str]) -> None:
        self.kind = kind
        self._targets = dict(targets)

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def get(self, name: str) -> Any:
        """Return the object registered under `name`.

        Raises:
            UsageError: the name is not in the table; names the nearest one.
        """
        try:
            return load(self._targets[name])
        except KeyError:
            raise UsageError(
                f"unknown {self.kind} {name!r}",
                hint=nearest(name, self._targets),
                reason=f"{self.kind}.unknown",
            ) from None
