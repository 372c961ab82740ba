"""Map names to "module:object" and import an object only when its name is asked for.

Only here and in the command functions of `curator.cli` are imports late, so that `curator --help`
does not import torch (docs/design/index.md).
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
    """Table of one kind of component, e.g. all captioners. `kind` names it in error messages."""

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
