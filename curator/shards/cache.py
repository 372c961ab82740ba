"""Whole shards of an object store as local files: a cache of bounded size, shared by processes.

    NAME.tar     a whole shard, named by the SHA-256 of its URL, size and etag (or time)
    NAME.part    a download; who writes it holds a lock on it, and a dead process holds none

A shard in use is held open with a shared lock and is never removed; others go, least recently used
first, when a download needs room. Shards in use may exceed the limit: it bounds what is kept. A
download becomes NAME.tar after an fsync, so a stopped one, or a power loss, leaves nothing that
counts. Nothing here can be lost: all of it can be fetched again.

Set by $CURATOR_CACHE_DIR (default: below $XDG_CACHE_HOME or ~/.cache) and $CURATOR_CACHE_SIZE in GB
of 10^9 bytes; `--cache-dir` and `--cache-size` set them for the processes that a command starts.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import IO, Self

from curator.core.errors import CuratorError, StorageError, UsageError
from curator.shards import objects
from curator.shards.objects import Remote

DIR_VARIABLE = "CURATOR_CACHE_DIR"
SIZE_VARIABLE = "CURATOR_CACHE_SIZE"
DEFAULT_SIZE_GB = 20.0

_AHEAD = 3
_OPEN = 8
_SHARD, _PART = ".tar", ".part"


def folder() -> Path:
    """Return the folder of the cache."""
    named = os.environ.get(DIR_VARIABLE)
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.abspath(os.path.expanduser(named or f"{home}/caption-curator/shards")))


def limit_bytes() -> int:
    """Return the most bytes to keep.

    Raises:
        UsageError: $CURATOR_CACHE_SIZE is not a number above 0.
    """
    text = os.environ.get(SIZE_VARIABLE) or str(DEFAULT_SIZE_GB)
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not 0 < size < float("inf"):
        raise UsageError(
            f"{SIZE_VARIABLE} is {text!r}",
            hint="allowed: gigabytes above 0, such as 20",
            reason="option.value",
        )
    return int(size * 1e9)


@contextlib.contextmanager
def whole(place: Remote) -> Iterator[Path]:
    """Hold the shard as a local file for the block, fetched if it is not in the cache.

    Raises:
        DamageError, StorageError: as `objects.download`.
    """
    with _acquire(place) as held:
        yield Path(str(held.name))


def read(place: Remote, offset: int, length: int) -> bytes:
    """Read a few bytes of a shard that is to be used whole; the last few shards stay open."""
    with _reading:
        held = _open.pop(place, None) or _acquire(place)
        _open[place] = held
        while len(_open) > _OPEN:
            _open.popitem(last=False)[1].close()
        return os.pread(held.fileno(), length, offset)


_open: OrderedDict[Remote, FileIO] = OrderedDict()
_reading = Lock()


def close() -> None:
    """Close the shards that `read` keeps open."""
    with _reading:
        while _open:
            _open.popitem()[1].close()


class Ahead:
    """Fetches shards before they are needed; a context manager. Errors are left to who reads."""

    def __init__(self, places: Sequence[Path | Remote]) -> None:
        self._places = places
        self._pool: ThreadPoolExecutor | None = None
        self._started = set[int]()

    def after(self, number: int, *, more: int = 0) -> None:
        """Start fetching the shard with this number and the few after it (`more` than usual)."""
        num_bytes = 0
        for at in range(number, min(number + 1 + _AHEAD + more, len(self._places))):
            place = self._places[at]
            if not isinstance(place, Remote) or place.stamp is None:
                continue
            num_bytes += place.stamp.size_bytes
            if at > number and 2 * num_bytes > limit_bytes():
                return  # shards fetched too early would remove each other
            if at not in self._started:
                self._started.add(at)
                self._pool = self._pool or ThreadPoolExecutor(1 + _AHEAD, "fetch")
                self._pool.submit(fetch, place)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=error is None, cancel_futures=True)


def fetch(place: Path | Remote) -> None:
    """Put a shard into the cache, if it can be had."""
    if isinstance(place, Remote) and place.stamp is not None:
        with contextlib.suppress(CuratorError):
            _acquire(place).close()


def _acquire(place: Remote) -> FileIO:
    path = folder() / f"{_key(place)}{_SHARD}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            held = _shared(path)
            if held is not None:
                # Only the time of use: the scan takes another time of writing for a change.
                os.utime(path, ns=(time.time_ns(), os.fstat(held.fileno()).st_mtime_ns))
                return held
            _download(place, path)
    except OSError as error:
        raise StorageError(
            f"the cache of shards cannot be used: {error.strerror or error}",
            where=error.filename or path.parent,
            did="finished work is kept",
            hint="choose a folder and a size that fit: --cache-dir FOLDER --cache-size GB",
            reason="storage.cache",
        ) from error


def _key(place: Remote) -> str:
    stamp = place.stamp or objects.Stamp(0, 0)
    # Without an etag the time of writing stands for the content.
    same = [place.url, str(stamp.size_bytes), stamp.etag or str(stamp.mtime_ns)]
    same.append(os.environ.get("AWS_ENDPOINT_URL", ""))  # buckets of two servers are two
    return hashlib.sha256("\0".join(same).encode()).hexdigest()[:40]


def _shared(path: Path) -> FileIO | None:
    """Open a whole shard and lock it against removal; None if it is not there (any more)."""
    try:
        file = FileIO(path)
    except FileNotFoundError:
        return None
    fcntl.flock(file, fcntl.LOCK_SH)
    if _is_at(file, path):
        return file
    file.close()
    return None


def _is_at(file: IO[bytes] | FileIO, path: Path) -> bool:
    """Whether this open file still has this name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _download(place: Remote, path: Path) -> None:
    """Make `path`, unless another process does it first."""
    part = path.with_suffix(_PART)
    with part.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # waits for a process that fetches the same shard
        if path.exists() or not _is_at(file, part):
            return
        try:
            file.truncate(0)
            _make_room(place.stamp.size_bytes if place.stamp else 0)
            objects.download(place, file)
            file.flush()
            os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _make_room(size_bytes: int) -> None:
    """Remove shards that nobody uses, oldest first, until `size_bytes` more fit."""
    found = []
    total = size_bytes
    for entry in os.scandir(folder()):
        with contextlib.suppress(FileNotFoundError):
            stat = entry.stat()
            if entry.name.endswith(_PART):
                _remove_unused(Path(entry.path))  # of a process that died
            elif entry.name.endswith(_SHARD):
                total += stat.st_size
                found.append((stat.st_atime_ns, stat.st_size, Path(entry.path)))
    for _, size, path in sorted(found):
        if total <= limit_bytes():
            return
        if _remove_unused(path):
            total -= size


def _remove_unused(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError, BlockingIOError), FileIO(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
        return True
    return False
