"""Human edits of captions, as facts: appended, on disk before they are acknowledged, never changed.

    edits/<shard>.log    batches (`curator.store.batchlog`) of lines, a fact each: CRC-32 (hex),
    JSON

An edit names the text it was made on (`base_text`), so that it applies to every version that holds
this text, and to no other. It is refused when somebody changed that text in the meantime, by name.
Undoing is one more fact. The number of a line is part of it: a line that was acknowledged cannot
get lost between two others unnoticed. What a killed writer left unfinished was never acknowledged,
and the next writer cuts it; anything else that is not whole is damage, and nobody writes behind it.
Logs of older versions begin with lines outside of batches.

Any number of processes and threads may write at once: each waits for the lock of its shard. An
edit reads the log of its shard (300 bytes an edit) and costs two fsyncs.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import polars as pl

from curator.core.clock import now
from curator.core.errors import ConflictError, DamageError, NotFoundError, UsageError
from curator.core.hashing import canonical_json
from curator.edits.history import (
    UNDO,
    Draft,
    Edit,
    History,
    agrees,
    clean_who,
    unseen,
    why_kept,
    why_stale,
)
from curator.store import batchlog, fsops
from curator.store.listing import Listing
from curator.store.store import Store

LOCK_WAIT_SEC = 20.0
_LOG_SUFFIX = ".log"
_DAMAGED = "edits.damaged"
_CRC_CHARS = 8
_HEX = b"0123456789abcdef"
_OLD_LINE = re.compile(rb"[0-9a-f][^\n]*\n")


# -- reading ---------------------------------------------------------------------------------------


def log_path(store: Store, shard: str) -> Path:
    """Where the edits of a shard lie."""
    return store.root / "edits" / f"{shard}{_LOG_SUFFIX}"


def _log(store: Store, shard: str) -> Path:
    """As `log_path`; a log that is gone is no log that never was."""
    path = log_path(store, shard)
    if not path.exists():
        listing(store).check()
    return path


def edited_shards(store: Store) -> list[str]:
    """All shards with a log, sorted.

    Raises:
        DamageError: a log is gone.
    """
    listing(store).check()
    return logs_there(store)


def history(store: Store, shard: str) -> History:
    """All acknowledged edits of a shard; none if nobody edited it.

    Raises:
        DamageError: a line is not what was written, or one is missing.
    """
    return History(shard, _read(_log(store, shard), shard).edits)


def listing(store: Store) -> Listing:
    """The logs that should be there."""
    return Listing(store.root, "edits")


def newest(store: Store, shards: Sequence[str] | None = None) -> pl.DataFrame:
    """The edits that count now, one row for each text: in the columns of `Edit`, `id` and `text`.

    `text` is what the edit leaves; for a rejected one, the text that is out.
    """
    rows = []
    for shard in edited_shards(store) if shards is None else shards:
        rows += [_row(edit) for edit in history(store, shard).heads()]
    return pl.DataFrame(rows, schema=_FRAME, orient="row")


def everything(store: Store) -> list[Edit]:
    """All facts of all shards, undone ones and undos as well, newest first."""
    found = [e for shard in edited_shards(store) for e in history(store, shard).edits]
    return sorted(found, key=lambda edit: (edit.created, edit.shard, edit.number), reverse=True)


_FRAME = pl.Schema(
    {
        "id": pl.String,
        "shard": pl.String,
        "number": pl.Int32,
        "row": pl.Int32,
        "key": pl.String,
        "image_sha256": pl.String,
        "action": pl.String,
        "base_text": pl.String,
        "new_text": pl.String,
        "text": pl.String,
        "who": pl.String,
        "created": pl.Float64,
        "batch": pl.String,
    }
)


def _row(edit: Edit) -> dict[str, object]:
    row = {"id": edit.id, "text": edit.result, **asdict(edit)}
    return {name: row[name] for name in _FRAME}


def torn_bytes(store: Store, shard: str) -> int:
    """Bytes behind the last acknowledged edit: of a writer that died, or writes right now."""
    return _read(_log(store, shard), shard).torn


class _LogContent(NamedTuple):
    """All edits of a log, where they end, the bytes of an unfinished write behind, and batches."""

    edits: list[Edit]
    valid: int
    torn: int
    num_batches: int


def _read(path: Path, shard: str) -> _LogContent:
    data = path.read_bytes() if path.exists() else b""
    lines, start = [], 0
    while line := _OLD_LINE.match(data, start):
        lines.append(line[0][:-1])
        start = line.end()
    if data[start : start + 1] in _HEX and start < len(data):
        if _is_whole(data[start:-1]):
            raise _damage("the end of the last line is not what was written", path)
        found = batchlog.Found([], start, len(data) - start)
    else:
        found = batchlog.read(data, start, path, reason=_DAMAGED)
    lines += [line for body in found.bodies for line in body.splitlines()]
    edits = [_parse(line, path, shard, number) for number, line in enumerate(lines)]
    return _LogContent(edits, found.valid, found.torn, len(found.bodies))


def intact(path: Path, shard: str) -> tuple[list[Edit], int]:
    """The edits of a damaged log that are intact, numbered anew; how many between them are lost.

    An undo of an edit that is lost goes with it.
    """
    lines = filter(_is_whole, path.read_bytes().split(b"\n"))
    found = {edit.number: edit for edit in (_edit(line, shard) for line in lines)}
    kept: list[Edit] = []
    numbers: dict[int | None, int | None] = {None: None}
    for number, edit in sorted(found.items()):
        if edit.undoes in numbers:
            numbers[number] = len(kept)
            kept.append(replace(edit, number=len(kept), undoes=numbers[edit.undoes]))
    return kept, max(found, default=-1) + 1 - len(found)


def log_bytes(edits: Sequence[Edit]) -> bytes:
    """A log that holds these edits, numbered from 0."""
    return batchlog.batch(0, b"".join(map(_line, edits))) if edits else b""


def logs_there(store: Store) -> list[str]:
    """All shards with a log on disk, sorted."""
    folder = store.root / "edits"
    return sorted(
        path.relative_to(folder).as_posix().removesuffix(_LOG_SUFFIX)
        for path in folder.rglob(f"*{_LOG_SUFFIX}")
    )


def _edit(line: bytes, shard: str) -> Edit:
    return Edit(shard=shard, **json.loads(line[_CRC_CHARS + 1 :]))


def _parse(line: bytes, path: Path, shard: str, number: int) -> Edit:
    if not _is_whole(line):
        raise _damage(f"line {number + 1} is not what was written", path)
    try:
        edit = _edit(line, shard)
    except (ValueError, TypeError) as error:
        raise _damage(f"line {number + 1} is no edit ({error})", path) from error
    if edit.number != number:
        raise _damage(f"line {number + 1} is edit {edit.number}, expected {number}", path)
    return edit


def _is_whole(line: bytes) -> bool:
    body = line[_CRC_CHARS + 1 :]
    return line == b"%08x %s" % (zlib.crc32(body), body) and bool(body)


def _damage(what: str, path: Path) -> DamageError:
    return batchlog.damage(what, path, reason=_DAMAGED)


# -- writing ---------------------------------------------------------------------------------------


def add(store: Store, draft: Draft, *, who: str) -> Edit:
    """Acknowledge one edit: it is on disk when this returns.

    The same edit by the same person, sent twice, is one.

    Raises:
        ConflictError: somebody changed the text meanwhile (names who, when and to what), or the
            log stays locked. DamageError: the log is not what was written.
    """
    who = clean_who(who)
    with _writing(store, draft.sample.shard) as log:
        since = unseen(log.history, draft)
        if since and agrees(since[-1], draft):
            mine = [edit for edit in since if edit.who == who and agrees(edit, draft)]
            if mine:
                return mine[-1]
        if refusal := why_stale(log.history, draft):
            raise refusal
        return log.append([draft], who)[0]


def add_many(
    store: Store, shard: str, drafts: Sequence[Draft], *, who: str, batch: str
) -> tuple[list[Edit], list[ConflictError]]:
    """Acknowledge many edits of one shard with one wait for the disk.

    Returns:
        the edits, and the refusals of stale ones, which are left out.
    """
    who = clean_who(who)
    with _writing(store, shard) as log:
        refusals = [why_stale(log.history, draft) for draft in drafts]
        good = [draft for draft, refusal in zip(drafts, refusals, strict=True) if not refusal]
        made = log.append(good, who, batch=batch)
    return made, [refusal for refusal in refusals if refusal]


def undo(store: Store, edit_id: str, *, who: str) -> Edit:
    """Take an edit back, by one more fact.

    Raises:
        NotFoundError: there is no such edit. UsageError: it is an undo itself.
        ConflictError: it was taken back already, or somebody edited the text that it made.
    """
    who = clean_who(who)
    shard, _, number = edit_id.rpartition("#")
    if shard not in edited_shards(store) or not number.isdecimal():
        raise _unknown(edit_id)
    with _writing(store, shard) as log:
        if int(number) >= len(log.history.edits):
            raise _unknown(edit_id)
        edit = log.history.edits[int(number)]
        if edit.action == UNDO:
            raise UsageError(
                f"{edit_id} is an undo", hint="make the edit again instead", reason="edits.undo"
            )
        if refusal := why_kept(log.history, edit):
            raise refusal
        return log.undo([edit], who)[0]


def undo_batch(store: Store, batch: str, *, who: str) -> tuple[list[Edit], list[ConflictError]]:
    """Take back all edits of one find-and-replace, a shard at a time.

    Returns:
        the undos, and the refusals: taken back already, or edited since.

    Raises:
        NotFoundError: there is no such find-and-replace.
    """
    who = clean_who(who)
    undone, refused = list[Edit](), list[ConflictError]()
    for shard in edited_shards(store):
        members = [edit for edit in history(store, shard).edits if edit.batch == batch]
        if not members:
            continue
        with _writing(store, shard) as log:
            refusals = [why_kept(log.history, edit) for edit in members]
            todo = [e for e, refusal in zip(members, refusals, strict=True) if not refusal]
            undone += log.undo(todo, who)
        refused += [refusal for refusal in refusals if refusal]
    if not undone and not refused:
        raise _unknown(batch)
    return undone, refused


class _Log:
    """The log of a shard while its lock is held."""

    def __init__(self, file: fsops.Appender, past: History, num_batches: int) -> None:
        self.history = past
        self._file = file
        self._num_batches = num_batches

    def append(self, drafts: Sequence[Draft], who: str, *, batch: str | None = None) -> list[Edit]:
        first = len(self.history.edits)
        return self._write(
            [
                Edit(
                    number=number,
                    **asdict(draft.sample),
                    action=draft.action,
                    base_text=draft.base_text,
                    new_text=draft.new_text,
                    who=who,
                    created=now(),
                    batch=batch,
                )
                for number, draft in enumerate(drafts, first)
            ]
        )

    def undo(self, edits: Sequence[Edit], who: str) -> list[Edit]:
        first = len(self.history.edits)
        return self._write(
            [
                replace(
                    edit,
                    number=number,
                    action=UNDO,
                    who=who,
                    created=now(),
                    undoes=edit.number,
                    batch=None,
                )
                for number, edit in enumerate(edits, first)
            ]
        )

    def _write(self, edits: list[Edit]) -> list[Edit]:
        if edits:
            self._file.append(batchlog.batch(self._num_batches, b"".join(map(_line, edits))))
            self._num_batches += 1
            self._file.sync()
        for edit in edits:
            self.history.add(edit)
        return edits


def _line(edit: Edit) -> bytes:
    body = canonical_json({k: v for k, v in asdict(edit).items() if k != "shard"})
    return b"%08x %s\n" % (zlib.crc32(body), body)


@contextmanager
def _writing(store: Store, shard: str) -> Iterator[_Log]:
    """Hold the log of a shard; its unfinished tail is cut, which was never acknowledged."""
    path = _log(store, shard)
    file = fsops.appender_when_free(path, LOCK_WAIT_SEC)
    try:
        if not path.stat().st_size:
            folder = store.root / "edits"
            listing(store).add([("there", path)], found=folder.rglob(f"*{_LOG_SUFFIX}"))
        found = _read(path, shard)
        if found.torn:
            fsops.truncate(path, found.valid)
        yield _Log(file, History(shard, found.edits), found.num_batches)
    finally:
        with fsops.storage_errors(path):
            file.close()


def _unknown(name: str) -> NotFoundError:
    return NotFoundError(
        f"there is no edit {name!r}",
        hint="`curator edits list DATASET` names them all",
        reason="edits.unknown",
    )
