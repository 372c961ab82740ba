"""gc: remove what no version names and no run will miss. Facts are never removed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from curator.store import fsops
from curator.store.store import Store


@dataclass(frozen=True, slots=True)
class Garbage:
    """A file that can go, its size in bytes and why."""

    path: Path
    size_bytes: int
    why: str


def find_garbage(store: Store, *, grace_days: float = 7.0) -> Iterator[Garbage]:
    """Temporary files, and decisions that no version names, older than the grace period.

    The grace period protects a writer that runs right now: its files exist before its commit.

    Raises:
        DamageError: a version cannot be read; then nobody knows what it names.
    """
    named = {entry.file for version in store.versions() for entry in version.shards}
    newest = time.time() - grace_days * 86400
    candidates = [(path, "temporary file") for path in store.root.rglob(f"{fsops.TEMP_PREFIX}*")]
    for path in (store.root / "captions").rglob("*.parquet"):
        if path.relative_to(store.root).as_posix() not in named:
            candidates.append((path, "a decision that no version names"))
    for path, why in sorted(candidates):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue  # the temporary file of a writer at work, renamed since
        if stat.st_mtime <= newest:
            yield Garbage(path, stat.st_size, why)


def collect(store: Store, *, grace_days: float = 7.0) -> list[Garbage]:
    """Remove the garbage and say what went. Stopped halfway, the next run does the rest.

    Raises:
        ConflictError: somebody decides right now. DamageError: as `find_garbage`.
    """
    with store.collecting():
        found = list(find_garbage(store, grace_days=grace_days))
        for garbage in found:
            fsops.remove(garbage.path)
    return found
