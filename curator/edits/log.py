"""Log of human edits: facts that are appended, acknowledged once on disk, and never changed.

    edits/<shard>.log    batches (`curator.store.batchlog`) of lines, one fact per line: CRC-32
                         (hex) and JSON

An edit contains the text it was made on (`base_text`), so it applies to every version that has this
text, and to no other. It is refused if another person has changed that text meanwhile; the error
names the person. An undo is one more fact. Each line contains its number, so a lost line is
noticed. What a killed writer left unfinished was never acknowledged, and the next writer cuts it
off; anything else incomplete is damage, and nothing is appended after it. Logs of older versions
begin with lines outside batches.

Any number of processes and threads may write at once: each waits for the lock of its shard. An edit
reads the log of its shard (300 bytes per edit) and costs two fsyncs.
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
from curator.core.hashing import canonical_json, digest
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
from curator.store.union import united

LOCK_WAIT_SEC = 20.0
_LOG_SUFFIX = ".log"
_DAMAGED = "edits.damaged"
_CRC_CHARS = 8
_HEX = b"0123456789abcdef"
_OLD_LINE = re.compile(rb"[0-9a-f][^\n]*\n")


# -- reading ---------------------------------------------------------------------------------------


def log_path(store: Store, shard: str) -> Path:
    """Return the path of a shard's edits."""
    return store.root / "edits" / f"{shard}{_LOG_SUFFIX}"


def _log(store: Store, shard: str) -> Path:
    """Return the path of a shard's edits; DamageError if the log existed and is missing."""
    path = log_path(store, shard)
    if not path.exists():
        listing(store).check()
    return path


def edited_shards(store: Store) -> list[str]:
    """Return all shards with a log, sorted.

    Raises:
        DamageError: a log is missing.
    """
    listing(store).check()
    return logs_there(store)


def history(store: Store, shard: str) -> History:
    """Read all acknowledged edits of a shard; empty if it has none.

    Raises:
        DamageError: a line is damaged or missing.
    """
    return History(shard, _read(_log(store, shard), shard).edits)


def listing(store: Store) -> Listing:
    """Return the listing of logs that must exist."""
    return Listing(store.root, "edits")


def newest(store: Store, shards: Sequence[str] | None = None) -> pl.DataFrame:
    """Return the current edits, one row per text: the columns of `Edit`, `id` and `text`.

    `text` is the result of the edit; for a rejected one, the removed text.
    """
    rows = []
    for shard in edited_shards(store) if shards is None else shards:
        rows += [_row(edit) for edit in history(store, shard).heads()]
    return pl.DataFrame(rows, schema=_FRAME, orient="row")


def everything(store: Store) -> list[Edit]:
    """Return all facts of all shards, including undos and undone edits, newest first."""
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
    """Return the bytes after the last acknowledged edit: a dead or a current writer left them."""
    return _read(_log(store, shard), shard).torn


class _LogContent(NamedTuple):
    """All edits of a log, the offset where they end, the unfinished bytes after it, and batches."""

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
            raise _damage("the end of the last line is damaged", path)
        found = batchlog.Found([], start, len(data) - start)
    else:
        found = batchlog.read(data, start, path, reason=_DAMAGED)
    lines += [line for body in found.bodies for line in body.splitlines()]
    edits = [_parse(line, path, shard, number) for number, line in enumerate(lines)]
    return _LogContent(edits, found.valid, found.torn, len(found.bodies))


def intact(path: Path, shard: str) -> tuple[list[Edit], int]:
    """Return the intact edits of a damaged log, renumbered, and how many between them are lost.

    An undo of a lost edit is left out too.
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
    """Return the bytes of a log with these edits, numbered from 0."""
    return batchlog.batch(0, b"".join(map(_line, edits))) if edits else b""


def logs_there(store: Store) -> list[str]:
    """Return all shards with a log on disk, sorted."""
    folder = store.root / "edits"
    return sorted(
        path.relative_to(folder).as_posix().removesuffix(_LOG_SUFFIX)
        for path in folder.rglob(f"*{_LOG_SUFFIX}")
    )


def _edit(line: bytes, shard: str) -> Edit:
    return Edit(shard=shard, **json.loads(line[_CRC_CHARS + 1 :]))


def _parse(line: bytes, path: Path, shard: str, number: int) -> Edit:
    if not _is_whole(line):
        raise _damage(f"line {number + 1} is damaged", path)
    try:
        edit = _edit(line, shard)
    except (ValueError, TypeError) as error:
        raise _damage(f"line {number + 1} is not an edit ({error})", path) from error
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
    """Record one edit; it is on disk when this returns.

    The same edit sent twice by the same person is recorded once.

    Raises:
        ConflictError: another person changed the text meanwhile (names who, when and to what), or
            the log stays locked. DamageError: the log is damaged.
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
    """Record many edits of one shard with a single fsync.

    Returns:
        The edits, and the refusals of stale ones, which are left out.
    """
    who = clean_who(who)
    with _writing(store, shard) as log:
        refusals = [why_stale(log.history, draft) for draft in drafts]
        good = [draft for draft, refusal in zip(drafts, refusals, strict=True) if not refusal]
        made = log.append(good, who, batch=batch)
    return made, [refusal for refusal in refusals if refusal]


def undo(store: Store, edit_id: str, *, who: str) -> Edit:
    """Undo an edit by recording one more fact.

    Raises:
        NotFoundError: there is no such edit. UsageError: it is itself an undo.
        ConflictError: it was undone already, or somebody edited the text that it made.
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
    """Undo all edits of one find-and-replace, shard by shard.

    Returns:
        The undos, and the refusals: already undone, or edited since.

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


def unite(store: Store, shard: str, logs: Sequence[Sequence[Edit]]) -> int:
    """Add the edits of other logs of this shard that its own lacks; return how many.

    The edits that the store has keep their numbers. The others follow in the order they were made;
    those of one log keep its order.

    Raises:
        ConflictError: two logs have the same edits in contradicting orders.
        DamageError: the log of the store is damaged.
    """
    with _writing(store, shard) as log:
        known = {edit.id: edit for edit in _with_identity(log.history.edits)}
        rest = [[one for one in _with_identity(edits) if one.id not in known] for edits in logs]
        try:
            new = united(rest, key=lambda one: one.id, order=lambda one: (one.edit.created, one.id))
        except ValueError as error:
            raise ConflictError(
                f"two of the stores have the same edits of shard {shard!r} in different orders",
                did="nothing was added to this log",
                hint="leave one of them out",
                reason="edits.order",
            ) from error
        numbers = {name: number for number, name in enumerate([*known, *(one.id for one in new)])}
        log.add(
            [
                replace(
                    one.edit,
                    number=numbers[one.id],
                    undoes=numbers[one.undoes] if one.undoes is not None else None,
                )
                for one in new
            ]
        )
    return len(new)


class _Identified(NamedTuple):
    """An edit, and what identifies it and the edit that it undoes in every store."""

    id: str
    edit: Edit
    undoes: str | None


def _with_identity(edits: Sequence[Edit]) -> list[_Identified]:
    found: list[_Identified] = []
    for edit in edits:
        undoes = None if edit.undoes is None else found[edit.undoes].id
        name = digest({**asdict(edit), "number": None, "undoes": undoes})
        found.append(_Identified(name, edit, undoes))
    return found


class _Log:
    """The log of a shard while its lock is held."""

    def __init__(self, file: fsops.Appender, past: History, num_batches: int) -> None:
        self.history = past
        self._file = file
        self._num_batches = num_batches

    def append(self, drafts: Sequence[Draft], who: str, *, batch: str | None = None) -> list[Edit]:
        first = len(self.history.edits)
        return self.add(
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
        return self.add(
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

    def add(self, edits: list[Edit]) -> list[Edit]:
        """Append edits that are numbered already."""
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
    """Hold the log of a shard; cuts off its unfinished tail, which was never acknowledged."""
    store.check_writable()
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
        hint="`curator edits list DATASET` lists all edits",
        reason="edits.unknown",
    )
