"""Listings of the files that must exist, so that a missing one is noticed.

    listings/captions/<maker>.log    fact files and open journals; likewise for scores
    listings/edits.log               logs of edits
    listings/ratings.log             ratings
    listings/versions.log            versions; no other file would reveal that the newest is gone

A listing is a file of batches (`curator.store.batchlog`) of JSON: [mark, path below the store], ...
A file is listed after it exists, and unlisted before it is removed, so no crash leaves a listed
file missing. The first writer of a listing adds files from older versions of the tool. Any number
of processes may add to a listing: each waits for its lock.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from curator.core.errors import DamageError
from curator.store import batchlog, fsops

if TYPE_CHECKING:
    from curator.store.store import Store

Mark = Literal["there", "done", "lost"]
"""`done`: unlisted as planned; `lost`: reported as missing, and the user chose to go on."""

LISTINGS = "listings"
MISSING = "file.missing"
_LOCK_WAIT_SEC = 20.0
_DAMAGED = "listing.damaged"


class Listing:
    """One listing of a store. Reads only what was added since its last read."""

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self.path = root / LISTINGS / f"{name}.log"
        self._marks: dict[str, Mark] = {}
        self._names: list[str] = []  # in the order in which they were listed first
        self._end = self._num_batches = 0

    def add(self, changes: Iterable[tuple[Mark, Path]], *, found: Iterable[Path] = ()) -> None:
        """Append changes; on disk when this returns. `found` is listed first in a new listing.

        Raises:
            DamageError: the listing is damaged. ConflictError: it stays locked.
        """
        file = fsops.appender_when_free(self.path, _LOCK_WAIT_SEC)
        try:
            torn = self._read()
            if torn:
                fsops.truncate(self.path, self._end)
            wanted = [(mark, self._name(path)) for mark, path in changes]
            if not self._num_batches:
                wanted = [("there", self._name(path)) for path in found] + wanted
            new = [(mark, name) for mark, name in wanted if self._marks.get(name) != mark]
            if new:
                body = json.dumps(new, separators=(",", ":")).encode()
                file.append(batchlog.batch(self._num_batches, body))
                file.sync()
                self._read()
        finally:
            file.close()

    def num_listed(self, suffix: str) -> int:
        """Return how many files with this suffix were ever listed and are not done."""
        self._read()
        return sum(mark != "done" and name.endswith(suffix) for name, mark in self._marks.items())

    def listed(self, start: int = 0) -> list[Path]:
        """Return the files that were ever listed, from number `start` on, in this order."""
        self._read()
        return [self.root / name for name in self._names[start:]]

    def lost(self) -> list[Path]:
        """Return the files that were reported as missing, where the user chose to go on."""
        self._read()
        return [self.root / name for name, mark in self._marks.items() if mark == "lost"]

    def missing(self) -> list[Path]:
        """Return listed files that are missing.

        Raises:
            DamageError: the listing is damaged.
        """
        self._read()
        gone = [name for name, mark in self._marks.items() if not self._is_there(name, mark)]
        if gone:
            self._read()  # another process may have unlisted a file before removing it
        return [self.root / name for name in gone if self._marks[name] == "there"]

    def check(self) -> None:
        """Check that no file is missing.

        Raises:
            DamageError: reason `file.missing`; names the first missing file.
        """
        if missing := self.missing():
            raise DamageError(
                f"the file is missing, and {len(missing) - 1} more" if len(missing) > 1
                else "the file is missing",
                where=missing[0],
                did="nothing was changed",
                hint="restore it from a backup; or `curator fsck DATASET --repair` unlists it, and "
                "the next run remakes what can be remade",
                reason=MISSING,
            )  # fmt: skip

    def _is_there(self, name: str, mark: Mark) -> bool:
        return mark != "there" or (self.root / name).exists()

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _read(self) -> int:
        """Read what was added since the last read; return the bytes of an unfinished batch."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._end)
                data = file.read()
        except FileNotFoundError:
            return 0
        found = batchlog.read(data, 0, self.path, reason=_DAMAGED, number=self._num_batches)
        for body in found.bodies:
            for mark, name in json.loads(body):
                if name not in self._marks:
                    self._names.append(name)
                self._marks[name] = mark
        self._end += found.valid
        self._num_batches += len(found.bodies)
        return found.torn


def all_listings(root: Path) -> list[Listing]:
    """Return all listings of a store."""
    folder = root / LISTINGS
    return [
        Listing(root, path.relative_to(folder).as_posix().removesuffix(".log"))
        for path in sorted(folder.rglob("*.log"))
    ]


def listing_of(store: Store, kind: str, maker: str) -> Listing:
    """Return the listing of a maker's fact files and open journals."""
    return Listing(store.root, f"{kind}/{maker}")
