"""Remove temporary files and decisions that no version names. Facts are never removed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from curator.store import fsops
from curator.store.store import Store


@dataclass(frozen=True, slots=True)
class Garbage:
    """A file that can be removed, its size in bytes and the reason."""

    path: Path
    size_bytes: int
    why: str


def find_garbage(store: Store, *, grace_days: float = 7.0) -> Iterator[Garbage]:
    """Yield temporary files, and decisions that no version names, older than the grace period.

    The grace period protects a running writer, whose files exist before its commit.

    Raises:
        DamageError: a version cannot be read, so the files that it names are unknown.
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
            continue  # temporary file of a running writer, renamed meanwhile
        if stat.st_mtime <= newest:
            yield Garbage(path, stat.st_size, why)


def collect(store: Store, *, grace_days: float = 7.0) -> list[Garbage]:
    """Remove the garbage and return what was removed. Safe to stop; the next run removes the rest.

    Raises:
        ConflictError: another process is making a version. DamageError: see `find_garbage`.
    """
    with store.collecting():
        found = list(find_garbage(store, grace_days=grace_days))
        for garbage in found:
            fsops.remove(garbage.path)
    return found
