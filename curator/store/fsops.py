"""The only module that writes files. Everything a user could lose passes through here.

Protocol: bytes go to a temporary name, are fsynced and renamed, and the folder is fsynced. A commit
is `put_if_absent`: a hard link to a name that must not exist, the one operation that is atomic and
exclusive on every local file system. So a file under its final name is complete.

Each elementary step (create, write, fsync, rename, link, unlink, mkdir, ...) first calls the
failpoint. `CURATOR_FAILPOINT=7` kills the process with SIGKILL before step 7;
`CURATOR_FAILPOINT=7:ENOSPC` raises that error instead. The crash tests sweep every step.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import random
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import IO

from curator.core.errors import ConflictError, StorageError

TEMP_PREFIX = ".tmp-"

_PERMANENT = {
    errno.ENOSPC: ("storage.no_space", "free some space, then run the same command again"),
    errno.EDQUOT: ("storage.quota", "raise the quota or free some space, then run it again"),
    errno.EROFS: ("storage.read_only", "put the store elsewhere with --store FOLDER"),
    errno.EACCES: ("storage.no_permission", "check the owner, or use --store FOLDER"),
    errno.EPERM: ("storage.no_permission", "check the owner, or use --store FOLDER"),
    errno.EMFILE: ("storage.too_many_files", "raise `ulimit -n`, then run it again"),
    errno.ENAMETOOLONG: ("storage.name_too_long", "use a store with a shorter path"),
    errno.EEXIST: ("storage.not_a_folder", "move that file away, or use --store FOLDER"),
    errno.ENOTDIR: ("storage.not_a_folder", "move that file away, or use --store FOLDER"),
    errno.EIO: ("storage.io_error", "check the disk; no partly written file is visible"),
}

_SPACE = (errno.ENOSPC, errno.EDQUOT)

StepHook = Callable[[str, Path], None]


class _Failpoint:
    """Counts the write steps of this process and fails at the requested one."""

    def __init__(self) -> None:
        self.count = 0
        self.hook: StepHook | None = None
        self.at, self.fault = _parse_failpoint(os.environ.get("CURATOR_FAILPOINT", ""))

    def step(self, operation: str, path: Path) -> None:
        self.count += 1
        if self.hook is not None:
            self.hook(operation, path)
        if self.count != self.at:
            return
        if self.fault is None:
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            raise OSError(self.fault, os.strerror(self.fault), str(path))


def _parse_failpoint(spec: str) -> tuple[int, int | None]:
    number, _, name = spec.partition(":")
    return int(number or 0), getattr(errno, name) if name else None


_failpoint = _Failpoint()


def arm_failpoint(at: int) -> None:
    """Kill this process before its `at`-th write step from now; 0 disarms. For crash tests."""
    _failpoint.count = 0
    _failpoint.at, _failpoint.fault = at, None


def set_step_hook(hook: StepHook | None) -> None:
    """Call `hook(operation, path)` before every write step; None removes it. For tests."""
    _failpoint.count = 0
    _failpoint.hook = hook


def temporary_file() -> IO[bytes]:
    """Open a file without a name in TMPDIR, for what does not fit into memory.

    Nothing is left of it when the process ends, however that happens.
    """
    return tempfile.TemporaryFile()


def temporary_errors() -> contextlib.AbstractContextManager[None]:
    """Turn a full disk of TMPDIR into a StorageError; around what is written to such a file."""
    return storage_errors(Path(tempfile.gettempdir()))


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a permanent OSError into a StorageError with the path and a remedy."""
    try:
        yield
    except OSError as error:
        if error.errno not in _PERMANENT:
            raise
        reason, hint = _PERMANENT[error.errno]
        free = _free_space(path) if error.errno in _SPACE else ""
        raise StorageError(
            f"{os.strerror(error.errno)}{free}",
            where=error.filename or path,
            did="finished work is kept",
            hint=hint,
            reason=reason,
        ) from error


def _free_space(path: Path) -> str:
    for folder in (path, *path.parents):
        if folder.exists():
            return f" ({shutil.disk_usage(folder).free / 2**20:.1f} MiB free)"
    return ""


def step(operation: str, where: object) -> None:
    """Announce a write that this module does not do itself: of an object in an object store."""
    _failpoint.step(operation, Path(str(where)))


def make_dir(path: Path) -> None:
    """Create a folder and its parents, durably."""
    if path.is_dir():
        return
    make_dir(path.parent)
    with storage_errors(path):
        _failpoint.step("mkdir", path)
        path.mkdir(exist_ok=True)
        _sync_dir(path.parent)


def _sync_dir(path: Path) -> None:
    _failpoint.step("fsync_dir", path)
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _temp_for(path: Path) -> Path:
    return path.parent / f"{TEMP_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"


class _SteppedFile:
    """A binary file whose writes are steps, so that the tests can crash in mid-file."""

    def __init__(self, handle: IO[bytes], path: Path) -> None:
        self._handle = handle
        self._path = path
        self.closed = False

    def write(self, data: bytes | memoryview) -> int:
        _failpoint.step("write", self._path)
        return self._handle.write(data)

    def flush(self) -> None:
        self._handle.flush()

    def tell(self) -> int:
        return self._handle.tell()

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        """Do nothing: pyarrow closes its sinks, but `atomic_file` still has to sync the file."""


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[_SteppedFile]:
    """Open a file for streaming; it gets its final name when the block ends without an error."""
    make_dir(path.parent)
    temp = _temp_for(path)
    with storage_errors(path):
        _failpoint.step("create", temp)
        try:
            with temp.open("xb") as handle:
                yield _SteppedFile(handle, temp)
                handle.flush()
                _failpoint.step("fsync", temp)
                os.fsync(handle.fileno())
            _failpoint.step("rename", path)
            os.replace(temp, path)
        except BaseException:
            temp.unlink(missing_ok=True)
            raise
        _sync_dir(path.parent)


def write_atomic(path: Path, data: bytes) -> None:
    """Create or replace `path` with `data`, all or nothing."""
    with atomic_file(path) as file:
        file.write(data)


def write_many(files: Iterable[tuple[Path, bytes]]) -> None:
    """Like `write_atomic` for many small files; durable when this returns, each all or nothing.

    The fsyncs of up to 64 files run side by side, which a file system commits together, and each
    folder is synced once for them.
    """
    waiting = iter(files)
    with ThreadPoolExecutor(_SYNCS_AT_ONCE) as pool:
        while some := list(islice(waiting, _FILES_AT_ONCE)):
            _write_some(some, pool)


_SYNCS_AT_ONCE = 16
_FILES_AT_ONCE = 64


def _write_some(files: Sequence[tuple[Path, bytes]], pool: ThreadPoolExecutor) -> None:
    temps: list[Path] = []
    with contextlib.ExitStack() as stack:
        try:
            handles = []
            for path, data in files:
                make_dir(path.parent)
                temp = _temp_for(path)
                with storage_errors(path):
                    _failpoint.step("create", temp)
                    handle = stack.enter_context(temp.open("xb"))
                    temps.append(temp)
                    _failpoint.step("write", temp)
                    handle.write(data)
                    handle.flush()
                handles.append(handle)
            with storage_errors(files[0][0]):
                for temp in temps:
                    _failpoint.step("fsync", temp)
                list(pool.map(os.fsync, [handle.fileno() for handle in handles]))
                for temp, (path, _) in zip(temps, files, strict=True):
                    _failpoint.step("rename", path)
                    os.replace(temp, path)
                for folder in dict.fromkeys(path.parent for path, _ in files):
                    _sync_dir(folder)
        except BaseException:
            for temp in temps:
                temp.unlink(missing_ok=True)
            raise


def put_if_absent(path: Path, data: bytes) -> bool:
    """Create `path` with `data` unless it exists; of many writers exactly one gets True."""
    make_dir(path.parent)
    temp = _temp_for(path)
    with storage_errors(path):
        try:
            _failpoint.step("create", temp)
            with temp.open("xb") as handle:
                _failpoint.step("write", temp)
                handle.write(data)
                handle.flush()
                _failpoint.step("fsync", temp)
                os.fsync(handle.fileno())
            _failpoint.step("link", path)
            try:
                os.link(temp, path)
            except FileExistsError:
                return False
            _sync_dir(path.parent)
            return True
        finally:
            temp.unlink(missing_ok=True)


class Appender:
    """An append-only file with one writer; appended bytes are durable after `sync`.

    The kernel releases the lock when the process dies.

    Raises:
        ConflictError: another process has it open.
    """

    def __init__(self, path: Path) -> None:
        make_dir(path.parent)
        self.path = path
        with storage_errors(path):
            _failpoint.step("open_append", path)
            self._handle = _open_locked(path)
            try:
                _sync_dir(path.parent)
            except OSError:
                self._handle.close()  # else the lock would outlive this object
                raise

    def append(self, data: bytes) -> None:
        """Append bytes; not durable yet."""
        with storage_errors(self.path):
            _failpoint.step("append", self.path)
            # Two halves are two steps, so that the tests also crash in the middle of a record.
            half = len(data) // 2
            self._write(data[:half])
            _failpoint.step("append", self.path)
            self._write(data[half:])

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:  # a nearly full disk writes only a part
            rest = rest[self._handle.write(rest) :]

    def sync(self) -> None:
        """Wait until everything appended is on disk."""
        with storage_errors(self.path):
            _failpoint.step("fsync", self.path)
            os.fsync(self._handle.fileno())

    def close(self) -> None:
        """Close the file and release its lock."""
        self._handle.close()


def appender_when_free(path: Path, wait_sec: float) -> Appender:
    """Open a file for appending, waiting for other writers (each takes a few milliseconds).

    Raises:
        ConflictError: it stays locked for `wait_sec` seconds.
    """
    deadline = time.monotonic() + wait_sec
    while True:
        try:
            return Appender(path)
        except ConflictError:
            if time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.001, 0.01))


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock file for the block, exclusively or `shared`; death releases it too.

    The file of an exclusive lock is removed afterwards, that of a shared one stays.

    Raises:
        ConflictError: another process holds it, and not both are `shared`.
    """
    make_dir(path.parent)
    with storage_errors(path):
        _failpoint.step("lock", path)
        handle = _open_locked(path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    try:
        yield
    finally:
        # Remove the name before the lock: nobody may end up with a lock on a deleted file.
        if not shared:
            path.unlink(missing_ok=True)
        handle.close()


def append_line(path: Path, line: str) -> None:
    """Append a line to a log, without an fsync."""
    make_dir(path.parent)
    with storage_errors(path):
        _failpoint.step("append", path)
        with path.open("a", encoding="utf-8") as handle:
            handle.write(line + "\n")


def rename(path: Path, to: Path) -> None:
    """Rename a file within its folder, durably; an existing target is replaced."""
    with storage_errors(to):
        _failpoint.step("rename", to)
        os.replace(path, to)
        _sync_dir(to.parent)


def truncate(path: Path, size_bytes: int) -> None:
    """Truncate a file, durably: cuts the torn tail of a journal."""
    with storage_errors(path):
        _failpoint.step("truncate", path)
        with path.open("r+b") as handle:
            handle.truncate(size_bytes)
            os.fsync(handle.fileno())


def remove(path: Path) -> None:
    """Delete a file; a missing one is fine."""
    with storage_errors(path):
        _failpoint.step("unlink", path)
        path.unlink(missing_ok=True)


def remove_tree(path: Path) -> None:
    """Delete a folder of the store file by file, so that every deletion is a step."""
    for child in sorted(path.rglob("*"), reverse=True):
        if child.is_dir() and not child.is_symlink():
            with storage_errors(child):
                _failpoint.step("rmdir", child)
                child.rmdir()
        else:
            remove(child)
    with storage_errors(path):
        _failpoint.step("rmdir", path)
        path.rmdir()


def _open_locked(path: Path, kind: int = fcntl.LOCK_EX) -> io.FileIO:
    while True:
        # Unbuffered: closing a buffered file would retry the write that failed on a full disk.
        handle = path.open("ab", buffering=0)
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.close()
            raise ConflictError(
                "another process is writing",
                where=path,
                hint="wait for it or stop it, then run the same command again",
                reason="lock.held",
            ) from None
        # The previous owner may have deleted the file between our open and our lock.
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(handle.fileno()).st_ino:
                return handle
        handle.close()
