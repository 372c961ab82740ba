"""Copy a store to an object store, so that other machines can read, pull and merge it.

A push writes the files that are not there yet, then the list of all files, then the commit
(`curator.store.remote`). It is a copy of one moment although jobs go on: what refers to a file is
read before it, and the listings must be the same before and after. Of a log that grows, what had
been written when its turn came counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa

from curator.core import progress
from curator.core.errors import ConflictError, DamageError
from curator.core.stopping import StopRequest
from curator.shards.objects import Remote
from curator.steps.workspace import Workspace
from curator.store import fsops, parquet, remote
from curator.store.listing import LISTINGS
from curator.store.remote import Entry, RemoteStore, name_of
from curator.store.store import Store

_FILES = ("dataset.json", "store.json")
_FOLDERS = ("tags", "versions", "captions", "edits", "facts", "journal", "index", "runs")
"""What refers to a file comes before it: tags to versions, versions to decisions."""
_AT_ONCE = 16
_TRIES = 3
_SEEN = pa.schema(
    [
        ("path", pa.large_string()),
        ("size_bytes", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("sha256", pa.large_string()),
    ]
)


@dataclass(frozen=True, slots=True)
class PushReport:
    """What was pushed; `num_new_files` and `num_new_bytes` were not there before.

    `number` counts the commits at the URL; `is_new` is false if the newest one had this state.
    """

    number: int
    is_new: bool
    newest: str | None
    num_files: int
    num_bytes: int
    num_new_files: int
    num_new_bytes: int

    def to_json(self) -> dict[str, object]:
        """For `--json`."""
        return asdict(self)


def push(ws: Workspace, url: Remote, *, stop: StopRequest) -> PushReport:
    """Make the present state of the store of `ws` the newest one at `url`.

    Raises:
        ConflictError: the newest state there is not in this store (push.behind), or another push
            was faster; or a job wrote to the store all the while.
        ConditionalPutError, CommitUnknownError, StorageError: as `RemoteStore`.
        StoppedError: a signal arrived; the same command goes on.
    """
    store, to = ws.store, RemoteStore(url)
    to.check_conditional_put()
    with store.deciding():  # so that no garbage is collected meanwhile
        before = to.newest()
        if before is not None and before.state not in remote.contained(store.root, url):
            raise ConflictError(
                f"this store does not have what was pushed last (push {before.number})",
                where=url,
                did="nothing was pushed",
                hint=f"`{ws.command('pull', url)}` adds it; then push again",
                reason="push.behind",
            )
        work = _Work(store, to, stop)
        work.copy()
        state = to.put_state(work.state)
        numbers = store.numbers()
        newest = f"v{numbers[-1]}" if numbers else None
        is_new = before is None or before.state != state
        if before is None or is_new:
            remote.remember(store.root, url, state)
            number = before.number + 1 if before else 1
            made = to.commit(number, state, work.state, newest)
        else:
            made = before
    return PushReport(
        made.number,
        is_new,
        made.newest,
        made.num_files,
        made.num_bytes,
        work.num_new,
        work.num_new_bytes,
    )


class _Work:
    """One push. `state` has the files that were found."""

    def __init__(self, store: Store, to: RemoteStore, stop: StopRequest) -> None:
        self.root = store.root
        self.to = to
        self.stop = stop
        self.there = to.files()
        self.seen = _Seen(store.root)
        self.state: dict[str, Entry] = {}
        self.num_new = self.num_new_bytes = 0

    def copy(self) -> None:
        """Write the files that are not there."""
        for _ in range(_TRIES):
            listings = self._listings()
            self.state = {}
            paths = [*self._paths()]
            with (
                progress.bar("push", len(paths), "files") as advance,
                ThreadPoolExecutor(_AT_ONCE, "push") as pool,
            ):
                try:
                    for path, entry in zip(paths, pool.map(self._one, paths), strict=True):
                        if entry is not None:
                            self.state[path] = entry
                        advance(1)
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
            for path, data in listings.items():
                self.state[path] = self._put(path, data)
            self.seen.write()
            if self._listings() == listings:
                return
        raise ConflictError(
            "a job wrote to the store all the while",
            where=self.root,
            did="files were copied, nothing was committed",
            hint="push again when it has finished",
            reason="push.busy",
        )

    def _listings(self) -> dict[str, bytes]:
        return {
            path.relative_to(self.root).as_posix(): path.read_bytes()
            for path in sorted((self.root / LISTINGS).rglob("*.log"))
        }

    def _paths(self) -> Iterator[str]:
        for folder in _FOLDERS:
            for path in sorted((self.root / folder).rglob("*")):
                if path.is_file() and not path.name.startswith(fsops.TEMP_PREFIX):
                    yield path.relative_to(self.root).as_posix()
        yield from (name for name in _FILES if (self.root / name).exists())

    def _one(self, path: str) -> Entry | None:
        """Copy one file, unless it is there; None if it is gone."""
        self.stop.check("files that were copied stay there")
        try:
            known = self.seen.find(path)
            if known is not None and self.there.get(name_of(path, known.sha256)) is not None:
                return known
            before = (self.root / path).stat()
            data = (self.root / path).read_bytes()
        except FileNotFoundError:  # a journal that became a fact file: the listing says so
            return None
        entry = self._put(path, data)
        self.seen.add(path, before.st_size, before.st_mtime_ns, entry)
        return entry

    def _put(self, path: str, data: bytes) -> Entry:
        entry = Entry(hashlib.sha256(data).hexdigest(), len(data))
        name = name_of(path, entry.sha256)
        if self.there.get(name) != len(data):
            self.to.put_file(path, data, entry.sha256)
            self.there[name] = len(data)
            self.num_new += 1
            self.num_new_bytes += len(data)
        return entry


class _Seen:
    """Digests of files by size and time, so that the next push reads only what changed.

    A copy that can be made again: if it is unreadable, all files are read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / remote.FOLDER / "seen.parquet"
        try:
            frame = parquet.read(self.path, _SEEN)
        except DamageError:  # or there is none
            frame = parquet.empty(_SEEN)
        self.known = {path: tuple(rest) for path, *rest in frame.iter_rows()}

    def find(self, path: str) -> Entry | None:
        """Return what is known of a file, if it has not changed."""
        size, mtime_ns, sha256 = self.known.get(path, (-1, -1, ""))
        found = (self.root / path).stat()
        if (found.st_size, found.st_mtime_ns) == (size, mtime_ns):
            return Entry(sha256, size)
        return None

    def add(self, path: str, size_bytes: int, mtime_ns: int, entry: Entry) -> None:
        """Record what a file had, if it did not grow while it was read."""
        if entry.size_bytes == size_bytes:
            self.known[path] = (size_bytes, mtime_ns, entry.sha256)

    def write(self) -> None:
        """Write the digests for the next push."""
        rows = [(path, *rest) for path, rest in sorted(self.known.items())]
        frame = pl.DataFrame(rows, schema=pl.Schema(_SEEN), orient="row")
        parquet.write(self.path, parquet.to_table(frame, _SEEN))
