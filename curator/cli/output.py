"""Print results to stdout and everything else to stderr; print errors as one line, set exit codes.

Captions and file names may hold characters that the terminal's or log's encoding lacks. Those are
printed as escapes (`\\u043a`), never as an error.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import IO, Any

import typer
from typer.exceptions import TyperException

from curator.core.errors import CuratorError, UsageError, mask_secrets
from curator.core.strictjson import finite
from curator.store.fsops import storage_errors


def escape_what_cannot_be_shown() -> None:
    """Make stdout and stderr write an escape for characters that their encoding lacks."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # the caller closed it: `curator log shards >&-`
            setattr(sys, name, StringIO())
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def show(text: str) -> None:
    """Print a line of a result."""
    sys.stdout.write(text.rstrip("\n") + "\n")


def show_json(value: object, indent: int | None = None) -> None:
    """Print a result as one line of JSON. NaN and infinity become null."""
    sys.stdout.write(to_json(value, sys.stdout, indent) + "\n")


def to_json(value: object, stream: IO[str], indent: int | None = None) -> str:
    """Return JSON that the stream can encode and that parses back to the same text everywhere."""
    # Of what `backslashreplace` writes, `\uXXXX` is JSON and `\xe9` is not.
    encoding = (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "")
    dumps = partial(
        json.dumps,
        ensure_ascii=encoding != "utf8",
        default=_plain,
        allow_nan=False,
        indent=indent,
    )
    try:
        return dumps(value)
    except ValueError:  # NaN or infinity, which JSON cannot represent
        return dumps(finite(value))


def _plain(value: object) -> object:
    if isinstance(value, Decimal) and value.is_finite():
        if value == value.to_integral_value():
            return int(value)  # SQL sums of integers are decimals; ints have any size
        return float(value) if Decimal(repr(float(value))) == value else str(value)
    return str(value)


def check_writable(path: Path) -> None:
    """Fail before any work if a file cannot be written. Missing folders are created later.

    Raises:
        UsageError: it is a folder, or the nearest existing parent cannot be written to.
    """
    holder = next(place for place in path.absolute().parents if place.exists())
    if path.is_dir() or not holder.is_dir() or not os.access(holder, os.W_OK):
        raise UsageError(
            f"cannot write {path}",
            hint=f"check {holder}, or choose another path",
            reason="option.value",
        )


def table(rows: Sequence[Sequence[object]], header: Sequence[str]) -> str:
    """Format a plain-text table: text left-aligned, numbers right-aligned."""
    cells = [list(header), *[[_cell(value) for value in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    right = [
        bool(rows) and all(isinstance(row[column], int | float | Decimal | None) for row in rows)
        for column in range(len(header))
    ]
    lines = [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    ]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, Decimal):
        return f"{value:,}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.3f}" if isinstance(value, float) else _one_line(str(value))


def _one_line(text: str) -> str:
    """Escape control characters, so that line breaks and colours cannot break the table."""
    if text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) == "Cc" else char
        for char in text
    )


def run_app(
    app: Callable[..., Any],
    argv: Sequence[str],
    name: str = "curator",
    stopped_by: Callable[[], int | None] = lambda: None,
) -> int:
    """Run the command line and return its exit code; never shows a traceback.

    `stopped_by` returns the signal that ended the work, or None.
    """
    as_json = "--json" in argv
    code = 0
    try:
        with storage_errors(Path.cwd()):  # of reading: what writes maps its own
            result = app(list(argv), standalone_mode=False, prog_name=name)
            sys.stdout.flush()  # here, so that a full disk or closed pipe gets an exit code
        code = result if isinstance(result, int) else 0
    except BrokenPipeError:
        pass  # the reader (head, less) closed the pipe
    except (typer.Abort, KeyboardInterrupt):
        return _stopped(stopped_by() or signal.SIGINT, as_json)
    except Exception as error:  # noqa: BLE001 - `_failed` turns every error into one line
        if stopped_by() is None or isinstance(error, CuratorError):
            return _failed(error, as_json, argv[0] if argv else "")
    # Typer or a library may have converted the KeyboardInterrupt into another error.
    signum = stopped_by()
    return code if signum is None else _stopped(signum, as_json)


def _failed(error: Exception, as_json: bool, command: str) -> int:
    if (
        type(error).__name__ == "NoArgsIsHelpError"
    ):  # `curator`, `curator demo`: typer hides the class
        show(str(error))
        return 0
    if isinstance(error, ImportError):
        from curator.core.package import missing_extra

        error = missing_extra(error, command) or error
    if os.environ.get("CURATOR_TRACEBACK") and hasattr(error, "__notes__"):
        raise error
    if isinstance(error, CuratorError):
        line = {
            "code": error.code,
            "error": error.reason,
            "what": error.what,
            "path": error.where,
            "did": error.did,
            "hint": error.hint,
        }
        return _fail(f"error[{error.reason}]: {error}", line, as_json)
    if isinstance(error, TyperException):
        line = {"code": error.exit_code, "error": "usage", "what": error.format_message()}
        return _fail(f"error[usage]: {error.format_message()}{_help_hint(error)}", line, as_json)
    # The last resort: one line, details in the run's log, where there is a run.
    if os.environ.get("CURATOR_TRACEBACK"):
        raise error
    what = f"{type(error).__name__}: {error}"
    log = getattr(error, "log", None)
    place = f"is in {log}" if log is not None else "is shown with CURATOR_TRACEBACK=1"
    line = {"code": 1, "error": "internal", "what": what}
    return _fail(f"error[internal]: {what}; this is a bug; its traceback {place}", line, as_json)


def _stopped(signum: int, as_json: bool) -> int:
    return _fail("stopped", {"code": 128 + signum, "error": "stopped"}, as_json)


def leave_stdout_alone() -> None:
    """Keep Python from reporting an unflushed stdout at exit; that error was already shown."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _help_hint(error: TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f"; see `{context.command_path} --help`" if context is not None else ""


def _fail(text: str, line: Mapping[str, object], as_json: bool) -> int:
    # Messages repeat what the user typed, and a URL in it may hold a password.
    sys.stderr.write(mask_secrets(text) + "\n")
    if as_json:
        said = to_json({"type": "exit", **line}, sys.stderr)
        sys.stderr.write(mask_secrets(said) + "\n")
    code = line["code"]
    assert isinstance(code, int)
    return code
