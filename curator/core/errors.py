"""All errors a user can meet, each with its exit code.

The tree (exit codes after the names; a code not listed means failure):

    CuratorError               1   internal: one line and the path of the log
    ├── UsageError             2   the command line, a config file or an input pattern is wrong
    ├── StrictError            3   done, but --strict was given and rows are in quarantine
    ├── QuarantineLimitError   4   stopped: more rows unusable than --max-quarantine allows
    ├── GateError              5   `diff` found more than its gates allow
    ├── NotFoundError         10   dataset, version or tag does not exist
    │   └── MissingExtraError      a package that this command needs is not installed
    ├── ConflictError         11   another writer was faster, or holds the lock
    ├── DamageError           12   a file differs from what was written, or a source shard changed
    ├── FormatError           13   written by a newer version of this tool
    ├── StorageError          20   full disk, no permission, read-only
    │   └── StorageBusyError  21   an object store does not answer, after all retries
    ├── CommitUnknownError    22   the commit may or may not have happened
    ├── ConditionalPutError   23   an object store that cannot keep two writers apart
    ├── EngineError           30   the model is dead, stalled or out of memory
    └── StoppedError     130/143   stopped by Ctrl-C or SIGTERM; resumable

`Unusable` is outside the tree: it never leaves a step. It says why one sample could not be used and
becomes a quarantine row with that reason (`curator.core.reasons`).
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path


class CuratorError(Exception):
    """Base of all errors that the user sees as one line without a traceback.

    The line reads `error[<reason>]: <what> in <where>; <did>; <hint>`.
    """

    code = 1
    reason = "internal"

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        did: str | None = None,
        hint: str | None = None,
        reason: str | None = None,
    ) -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.did = did
        self.hint = hint
        if reason is not None:
            self.reason = reason
        super().__init__(str(self))

    def __str__(self) -> str:
        head = self.what if self.where is None else f"{self.what} in {self.where}"
        return "; ".join(part for part in (head, self.did, self.hint) if part)


class UsageError(CuratorError):
    """The command line, a config file or an input pattern is wrong; nothing was written."""

    code = 2
    reason = "usage"


class StrictError(CuratorError):
    """The work is done, but `--strict` was given and rows are in quarantine."""

    code = 3
    reason = "quarantine.strict"


class QuarantineLimitError(CuratorError):
    """More rows are unusable than `--max-quarantine` allows; finished work is kept."""

    code = 4
    reason = "quarantine.limit"


class GateError(CuratorError):
    """Two versions differ by more than the gates of `curator diff` allow."""

    code = 5
    reason = "diff.gate"


class NotFoundError(CuratorError):
    """A dataset, version, tag or model does not exist."""

    code = 10
    reason = "not_found"


class MissingExtraError(NotFoundError):
    """A package that this command needs is not installed; names the extra that installs it."""

    reason = "extra.missing"


class ConflictError(CuratorError):
    """Another writer was faster or holds the lock; nothing is lost, try again."""

    code = 11
    reason = "commit.conflict"


class DamageError(CuratorError):
    """A file differs from what was written (names file, expected, found), or a source changed."""

    code = 12
    reason = "store.damaged"


class FormatError(CuratorError):
    """The store or a manifest was written by a newer version of this tool."""

    code = 13
    reason = "store.too_new"


class StorageError(CuratorError):
    """A permanent storage error: no space, no permission, read-only file system."""

    code = 20
    reason = "storage"


class StorageBusyError(StorageError):
    """An object store does not answer as it should, after all retries; try again later."""

    code = 21
    reason = "storage.unreachable"


class CommitUnknownError(CuratorError):
    """The commit may or may not have happened; all files are kept."""

    code = 22
    reason = "commit.unknown"


class ConditionalPutError(CuratorError):
    """An object store writes over objects that it was told only to create."""

    code = 23
    reason = "storage.no_conditional_put"


class EngineError(CuratorError):
    """A model could not be loaded, died, stalled or ran out of memory at batch size 1."""

    code = 30
    reason = "engine"


class StoppedError(CuratorError):
    """Stopped by a signal; all acknowledged work is kept and the run can be resumed."""

    code = 130
    reason = "stopped"

    def __init__(self, what: str, *, signum: int, hint: str | None = None) -> None:
        super().__init__(what, hint=hint)
        self.code = 128 + signum


class Unusable(Exception):
    """Why one sample is unusable: a code of `curator.core.reasons` and a `detail` for people."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)  # both, so that it survives pickling between processes
        self.reason = reason
        self.detail = detail


_USER_INFO = re.compile(r"(?<=://)[^/\s\"']*@")
_QUERY = re.compile(r"(://[^\s\"'?]*\?)[^\s\"']+")


def mask_secrets(text: str) -> str:
    """Hide user:password and the query (presigned URLs) of every URL in a text.

    API keys never get this far: they come from the environment and are never printed.
    """
    return _QUERY.sub(r"\1***", _USER_INFO.sub("***@", text))


MAX_NAMED = 100


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return a hint for an unknown name: the nearest allowed one, then all (or a few of many)."""
    known = sorted(allowed)
    close = _closest(name, known)
    guess = f"did you mean {close[0]!r}? " if close else ""
    if len(known) > MAX_NAMED:
        return (
            f"{guess}allowed: {', '.join([*(close or known[:5]), f'... ({len(known):,} names)'])}"
        )
    return f"{guess}allowed: {', '.join(known)}"


def _closest(name: str, known: Iterable[str]) -> list[str]:
    """At most five names like this one, the nearest first; upper and lower case are alike."""
    lower: dict[str, list[str]] = {}
    for one in known:
        lower.setdefault(one.lower(), []).append(one)
    close = difflib.get_close_matches(name.lower(), lower, n=5)
    return [one for found in close for one in lower[found]][:5]


def check_value(holds: bool, field: str, value: object, allowed: str) -> None:
    """Raise a UsageError with `field`, its value and the allowed ones, unless `holds` is true."""
    if not holds:
        raise UsageError(f"{field} is {value!r}", hint=f"allowed: {allowed}", reason="option.value")


def not_there(
    kind: str,
    path: Path,
    *,
    reason: str,
    hint: str | None = None,
    error: type[CuratorError] = NotFoundError,
) -> CuratorError:
    """The error for a `kind` ("folder", "policy file") that does not exist, with the nearest name.

    `where` is the folder that was looked in: the nearest one above that exists.
    """
    whole = Path(os.path.abspath(path))
    folder = next((one for one in whole.parents if one.is_dir()), whole.parent)
    name = whole.relative_to(folder)
    try:
        close = _closest(name.parts[0], os.listdir(folder))
    except OSError:  # it may not be listed
        close = []
    guess = f"did you mean {close[0]!r}?" if close else None
    hint = "; ".join(part for part in (guess, hint) if part) or None
    return error(f"there is no {kind} {str(name)!r}", where=folder, hint=hint, reason=reason)
