"""Copies of a store in an object store: states that are added, and never changed or removed.

    URL/files/PATH@DIGEST       the bytes of a file of the store; DIGEST begins its SHA-256
    URL/states/DIGEST.parquet   the files of one state: path, SHA-256 and size
    URL/pushes/000001.json      THE COMMIT: names a state; written last, put-if-absent
    URL/conditional-put         shows that the server keeps put-if-absent

A push that stops anywhere leaves files that no state names, and no more. Two pushes at once end
with one commit and one refusal. No command deletes anything here.
"""

from __future__ import annotations

import hashlib
import io
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from curator.core import clock, package
from curator.core.errors import (
    CommitUnknownError,
    ConditionalPutError,
    ConflictError,
    DamageError,
    FormatError,
    StorageBusyError,
    StorageError,
)
from curator.shards import objects
from curator.shards.objects import Remote
from curator.store import fsops, parquet, sealed
from curator.store.versions import FORMAT

_SCHEMA = pa.schema(
    [("path", pa.large_string()), ("sha256", pa.large_string()), ("size_bytes", pa.int64())]
)
_NAME_CHARS = 16
_PUSH_BYTES = 1 << 16
_TRIES = 5
_GONE = "it was written, and nothing of this tool removes it: look for a lifecycle rule"


class Entry(NamedTuple):
    """What identifies the bytes of a file."""

    sha256: str
    size_bytes: int


State = Mapping[str, Entry]
"""Path below the store -> its bytes."""


@dataclass(frozen=True, slots=True)
class Push:
    """One commit. `state` is the SHA-256 of its list of files; `newest` the newest version in it.

    `token` tells two commits of the same content apart.
    """

    number: int
    state: str
    created: float
    newest: str | None
    num_files: int
    num_bytes: int
    token: str
    tool_version: str

    def to_bytes(self) -> bytes:
        """Return the object."""
        body = {name: getattr(self, name) for name in self.__slots__ if name != "number"}
        return sealed.to_bytes({"format": FORMAT, **body}, indent=1)


class RemoteStore:
    """The copy of a store at a URL; nothing is asked before a method is called."""

    def __init__(self, url: Remote) -> None:
        self.url = url

    def check_conditional_put(self) -> None:
        """Refuse a server that writes over an object which it was told only to create.

        Raises:
            ConditionalPutError: two writers could each believe that their push is the newest.
            UsageError: nothing can be written to such a URL (output.foreign).
        """
        objects.check_writable(self.url)
        place = self.url / "conditional-put"
        data = b"curator: this object shows that the server creates an object once only\n"
        fsops.step("put", place)
        if objects.put(place, data, is_new=True) and objects.put(place, data, is_new=True):
            raise ConditionalPutError(
                "the server ignores If-None-Match: it wrote over an object that it was told only "
                f"to create ({objects.server_name(self.url)})",
                where=self.url,
                did="no state was pushed",
                hint="two pushes at once could each lose the other's captions there: use AWS S3, "
                "GCS, Azure, or a server with conditional writes",
            )

    def newest(self) -> Push | None:
        """Return the newest commit; None if there is none.

        Raises:
            DamageError, FormatError: it cannot be read. StorageError: as `objects`.
        """
        found = objects.listing(self.url / "pushes")
        numbers = [int(place.stem) for place in found if place.stem.isdigit()]
        return self._push(max(numbers)) if numbers else None

    def _push(self, number: int) -> Push:
        place = self._place_of(number)
        data = objects.read_small(place, most_bytes=_PUSH_BYTES)
        if data is None:
            raise DamageError("the object is missing", where=place, hint=_GONE)
        body = sealed.parse(data, place).value
        if body.pop("format") > FORMAT:
            raise FormatError(
                "the copy was pushed by a newer version of this tool",
                where=place,
                hint="upgrade caption-curator",
            )
        return Push(number=number, **body)

    def _place_of(self, number: int) -> Remote:
        return self.url / "pushes" / f"{number:06d}.json"

    def state(self, push: Push) -> dict[str, Entry]:
        """Return the files of a commit.

        Raises:
            DamageError: the list is missing or damaged.
        """
        place = self.url / "states" / f"{push.state}.parquet"
        data = self._checked(place, push.state)
        table = pq.read_table(io.BytesIO(data), use_threads=False)
        columns = [table[name].to_pylist() for name in _SCHEMA.names]
        return {path: Entry(sha, size) for path, sha, size in zip(*columns, strict=True)}

    def put_state(self, state: State) -> str:
        """Write the list of files; return its digest."""
        paths = sorted(state)
        columns = [
            pa.array(paths, pa.large_string()),
            pa.array([state[path].sha256 for path in paths], pa.large_string()),
            pa.array([state[path].size_bytes for path in paths], pa.int64()),
        ]
        data = parquet.to_bytes(pa.Table.from_arrays(columns, schema=_SCHEMA))
        digest = hashlib.sha256(data).hexdigest()
        place = self.url / "states" / f"{digest}.parquet"
        fsops.step("put", place)
        objects.put(place, data)
        return digest

    def files(self) -> dict[str, int]:
        """Return all files of all states, as `name_of` -> size in bytes."""
        folder = self.url / "files"
        found = objects.listing(folder)
        return {one.below(folder): one.stamp.size_bytes for one in found if one.stamp}

    def put_file(self, path: str, data: bytes, sha256: str) -> None:
        """Write the bytes of a file."""
        place = self.url / "files" / name_of(path, sha256)
        fsops.step("put", place)
        objects.put(place, data)

    def file(self, path: str, entry: Entry) -> bytes:
        """Return the bytes of a file, verified.

        Raises:
            DamageError: it is missing or damaged.
        """
        return self._checked(self.url / "files" / name_of(path, entry.sha256), entry.sha256)

    def _checked(self, place: Remote, sha256: str) -> bytes:
        for _ in range(_TRIES):  # a broken transfer is not yet a damaged object
            data = objects.read_small(place, most_bytes=1 << 62)
            if data is None:
                raise DamageError("the object is missing", where=place, hint=_GONE)
            found = hashlib.sha256(data).hexdigest()
            if found == sha256:
                return data
        raise DamageError(
            f"sha256 is {found[:12]}, expected {sha256[:12]}",
            where=place,
            hint="push again from a store that has it, into another URL",
        )

    def commit(self, number: int, state: str, of: State, newest: str | None) -> Push:
        """Make a state the newest, if it is still the commit before `number` that is the newest.

        A put may succeed although its answer is an error, or says that the object exists (the
        client asked twice): so whatever the answer is, what counts is what is there afterwards.

        Raises:
            ConflictError: another push was faster.
            CommitUnknownError: the server does not say whether the commit is there.
        """
        num_bytes = sum(entry.size_bytes for entry in of.values())
        token, tool = secrets.token_hex(8), package.tool_version()
        push = Push(number, state, clock.now(), newest, len(of), num_bytes, token, tool)
        place = self._place_of(number)
        for tried in range(_TRIES):
            time.sleep(tried)
            found = self._put_and_look(place, push.to_bytes())
            if found is not None:
                break
        else:
            raise StorageBusyError(
                "the commit was refused again and again, and is not there",
                where=place,
                did="all files are there, the commit is not",
                hint="run the same command again",
            )
        if found == push.to_bytes():
            return push
        there = self._push(number)
        if there.state == state:  # of another process with the same store
            return there
        raise ConflictError(
            f"another push was faster (of {clock.iso(there.created)})",
            where=place,
            did="the files are there, the commit is not",
            hint="`curator pull` adds what it brought; then push again",
        )

    def _put_and_look(self, place: Remote, data: bytes) -> bytes | None:
        """Create the object unless it is there; return what is there then; None: nothing."""
        error: StorageError | None = None
        try:
            fsops.step("put", place)
            if objects.put(place, data, is_new=True):
                return data
        except StorageBusyError as busy:
            error = busy
        try:
            found = objects.read_small(place, most_bytes=_PUSH_BYTES)
        except StorageError as unreadable:
            error, found = error or unreadable, None
            unknown = True
        else:
            unknown = error is not None and found is None  # a late put may still arrive
        if unknown:
            raise CommitUnknownError(
                f"the commit may or may not have happened ({error and error.what})",
                where=place,
                did="nothing was removed",
                hint="run the same command again: it looks which it was",
            ) from error
        return found


def name_of(path: str, sha256: str) -> str:
    """Return the name of a file's bytes below `files`."""
    return f"{path}@{sha256[:_NAME_CHARS]}"


# -- what a store knows of its copies --------------------------------------------------------------

FOLDER = "remote"
"""Folder of the store for what concerns its copies; not part of a state."""
_KEPT = 20


def contained(root: Path, url: Remote) -> list[str]:
    """Return the states at `url` that the store contains, as it was pulled or pushed."""
    path = root / FOLDER / "contained.json"
    if not path.exists():
        return []
    hint = f"remove it and run `curator pull` from {url}"
    found = sealed.read(path, hint=hint).get(url.url, [])
    return [str(state) for state in found]


def remember(root: Path, url: Remote, state: str) -> None:
    """Record that the store contains a state. Call it before the commit, which may be unknown."""
    path = root / FOLDER / "contained.json"
    known = sealed.read(path) if path.exists() else {}
    states = [one for one in known.get(url.url, []) if one != state]
    sealed.write(path, {**known, url.url: [*states, state][-_KEPT:]})
