"""Local copies of a remote store: filled once, and kept beside each other to read from.

    CACHE/stores/KEY/files/PATH@DIGEST    the bytes of a file; KEY stands for the URL and endpoint
    CACHE/stores/KEY/STATE/               one state: hard links to them
    CACHE/stores/KEY/STATE.lock           held by every process that reads it
    CACHE/stores/KEY/lock                 held by the one that fetches

CACHE is the folder of the shards (`curator.shards.cache`). States that nobody reads are removed
when a newer one is copied. All of it can be fetched again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from curator.core import progress
from curator.core.errors import ConflictError, NotFoundError
from curator.core.stopping import StopRequest
from curator.shards import cache
from curator.shards.objects import Remote
from curator.store import fsops
from curator.store.remote import Entry, Push, RemoteStore, State, name_of
from curator.store.store import Store

_AT_ONCE = 16
_CHUNK = 64
_LAST = "store.json"
"""Written last: a folder without it is no store, as a copy that was stopped is none."""
_BRIEF = ("dataset.json", "versions/", "tags/", "listings/versions.log", _LAST)


def newest(remote: RemoteStore) -> Push:
    """Return the newest commit.

    Raises:
        NotFoundError: there is none.
    """
    found = remote.newest()
    if found is None:
        raise NotFoundError(
            "there is no store",
            where=remote.url,
            hint="`curator push DATASET URL` puts one there",
            reason="store.none",
        )
    return found


def fill(remote: RemoteStore, state: State, root: Path, *, stop: StopRequest) -> int:
    """Write the files of a state that `root` lacks; return their number.

    Raises:
        DamageError: a file is missing or damaged there. StoppedError: fetched files are kept.
    """
    paths = sorted(state, key=lambda path: (path == _LAST, path))
    todo = [path for path in paths if not _is_same(root / path, state[path])]
    with progress.bar("fetch the store", len(todo), "files") as advance:

        def read() -> Iterator[tuple[Path, bytes]]:
            for path, data in _fetched(remote, state, todo):
                stop.check("fetched files are kept")
                yield root / path, data
                advance(1)

        fsops.write_many(read())
    return len(todo)


def _is_same(path: Path, entry: Entry) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == entry.sha256
    except FileNotFoundError:
        return False


def _fetched(
    remote: RemoteStore, state: State, paths: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    with ThreadPoolExecutor(_AT_ONCE, "fetch") as pool:
        for start in range(0, len(paths), _CHUNK):
            some = paths[start : start + _CHUNK]
            found = pool.map(lambda path: remote.file(path, state[path]), some)
            yield from zip(some, found, strict=True)


# -- to read from ----------------------------------------------------------------------------------


def read_only(url: Remote, *, brief: bool = False, stop: StopRequest | None = None) -> Store:
    """Return the newest state at `url` as a store that can be read, from a copy on the local disk.

    With `brief` only what says which versions there are is fetched. A request to `stop` is looked
    at between files.

    Raises:
        NotFoundError: there is no store. DamageError, StorageError: it cannot be read.
    """
    remote = RemoteStore(url)
    push = newest(remote)
    home = cache.folder() / "stores" / _key(url)
    root = home / push.state[:16]
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # waits for a process that fetches the same store
        _readers.enter_context(fsops.locked(home / f"{root.name}.lock", shared=True))
        if not (root / ".whole").exists():
            state = remote.state(push)
            if brief:
                state = {path: entry for path, entry in state.items() if path.startswith(_BRIEF)}
            _link(remote, state, home, root, stop or StopRequest())
            if not brief:
                (root / ".whole").touch()
            _remove_others(home, root)
    return Store.open(root, copy_of=url.url)


_readers = contextlib.ExitStack()
"""Locks on copies in use; the kernel releases them when the process ends."""


def _key(url: Remote) -> str:
    same = [url.url, os.environ.get("AWS_ENDPOINT_URL", "")]  # buckets of two servers are two
    return hashlib.sha256("\0".join(same).encode()).hexdigest()[:40]


def _link(remote: RemoteStore, state: State, home: Path, root: Path, stop: StopRequest) -> None:
    """Make `root` of the files of a state, fetching those that no copied state has."""
    pool = home / "files"
    names = {path: pool / name_of(path, entry.sha256) for path, entry in state.items()}
    todo = [path for path in state if not names[path].exists()]
    with progress.bar(f"fetch {remote.url}", len(todo), "files") as advance:

        def read() -> Iterator[tuple[Path, bytes]]:
            for path, data in _fetched(remote, state, todo):
                stop.check("fetched files are kept")
                yield names[path], data
                advance(1)

        fsops.write_many(read())
    for path in sorted(state, key=lambda path: (path == _LAST, path)):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.link(names[path], root / path)


def _remove_others(home: Path, kept: Path) -> None:
    """Remove states that nobody reads, and files that no state has."""
    for folder in home.iterdir():
        if folder.is_dir() and folder not in (kept, home / "files"):
            with contextlib.suppress(ConflictError), fsops.locked(home / f"{folder.name}.lock"):
                shutil.rmtree(folder)
    for path in (home / "files").rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and path.stat().st_nlink == 1:
                path.unlink()
