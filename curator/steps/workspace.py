"""DATASET[@VERSION] -> the shards, the store, the version."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from curator.errors import UsageError
from curator.shards import Dataset, ShardRef, discover
from curator.store import Store
from curator.versions import Version

STORE_FOLDER = ".curator"


@dataclass(frozen=True, slots=True)
class Workspace:
    """A dataset and its store, opened together. `spec` is what the user typed, without @VERSION."""

    spec: str
    dataset: Dataset
    store: Store
    version_name: str | None = None

    @property
    def shards(self) -> tuple[ShardRef, ...]:
        """The shards of the dataset, sorted by name."""
        return self.dataset.shards

    def version(self) -> Version:
        """The version that was named, the newest if none was."""
        return self.store.resolve(self.version_name)

    def ref(self, shard: str) -> ShardRef:
        """The shard of this name.

        Raises:
            UsageError: the dataset as given does not hold it.
        """
        for ref in self.dataset.shards:
            if ref.name == shard:
                return ref
        raise UsageError(
            f"shard {shard!r} is not among the {len(self.shards)} shards of {self.spec}",
            hint="name the dataset that the version was made from",
            reason="shard.unknown",
        )


def split_spec(spec: str) -> tuple[str, str | None]:
    """`shards/@v2` -> `shards/`, `v2`; an existing path with an @ in it stays whole."""
    if Path(spec).exists():
        return spec, None
    head, at, tail = spec.rpartition("@")
    if not at or "/" in tail:
        return spec, None
    return head, tail


def open_workspace(spec: str, store: Path | None, *, create: bool = False) -> Workspace:
    """Find the shards and open their store, `<shards>/.curator` unless told otherwise.

    Raises:
        UsageError: no shard was found. NotFoundError: there is no store and `create` is false.
    """
    where, version_name = split_spec(spec)
    dataset = discover(where)
    env = os.environ.get("CURATOR_STORE")
    root = store or (Path(env) if env else dataset.root / STORE_FOLDER)
    opened = Store.create(root) if create else Store.open(root)
    return Workspace(where, dataset, opened, version_name)
