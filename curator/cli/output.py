"""Results go to stdout, everything else to stderr; errors become one line and an exit code.

Texts hold what strangers wrote and file systems allow; a terminal or a log may have an alphabet
that lacks some of it. What cannot be shown is shown as an escape (`\\u043a`), never an error.
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
    """Have stdout and stderr write an escape where their encoding has no character."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # the caller closed it: `curator log shards >&-`
            setattr(sys, name, StringIO())
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def show(text: str) -> None:
    """Print a result for people."""
    sys.stdout.write(text.rstrip("\n") + "\n")


def show_json(value: object, indent: int | None = None) -> None:
    """Print a result for machines: one line of JSON. What is no finite number is null in it."""
    sys.stdout.write(to_json(value, sys.stdout, indent) + "\n")


def to_json(value: object, stream: IO[str], indent: int | None = None) -> str:
    """Valid JSON in what the stream can encode. It is parsed back as the same text everywhere."""
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
    except ValueError:  # NaN or infinity: JSON has no word for them
        return dumps(finite(value))


def _plain(value: object) -> object:
    if isinstance(value, Decimal) and value.is_finite():
        if value == value.to_integral_value():
            return int(value)  # of any size; a sum of integers comes as a decimal
        return float(value) if Decimal(repr(float(value))) == value else str(value)
    return str(value)


def check_writable(path: Path) -> None:
    """Say at second 0 that a file cannot be written; missing folders are made when it is.

    Raises:
        UsageError: what would hold it is no folder, or may not be written to.
    """
    holder = next(place for place in path.absolute().parents if place.exists())
    if path.is_dir() or not holder.is_dir() or not os.access(holder, os.W_OK):
        raise UsageError(
            f"cannot write {path}",
            hint=f"look at {holder}, or write elsewhere",
            reason="option.value",
        )


def table(rows: Sequence[Sequence[object]], header: Sequence[str]) -> str:
    """Plain columns: text to the left, numbers to the right."""
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
    """Control characters as escapes: a caption's line break or colour must not move the others."""
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
    """Run the command line and return the exit code. Never shows a traceback.

    `stopped_by` says which signal ended the work, if one did.
    """
    as_json = "--json" in argv
    code = 0
    try:
        with storage_errors(Path.cwd()):  # of reading: what writes maps its own
            result = app(list(argv), standalone_mode=False, prog_name=name)
            sys.stdout.flush()  # here, where a full disk or a closed pipe becomes an exit code
        code = result if isinstance(result, int) else 0
    except BrokenPipeError:
        pass  # the reader (head, less) has seen enough
    except (typer.Abort, KeyboardInterrupt):
        return _stopped(stopped_by() or signal.SIGINT, as_json)
    except Exception as error:  # noqa: BLE001 - everything becomes one line, `_failed` says which
        if stopped_by() is None or isinstance(error, CuratorError):
            return _failed(error, as_json, argv[0] if argv else "")
    # Typer, or a library, may have made something else of the KeyboardInterrupt.
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
    # The last resort: one line, details in the run's log.
    if os.environ.get("CURATOR_TRACEBACK"):
        raise error
    what = f"{type(error).__name__}: {error}"
    hint = "this is a bug; the traceback is in the log of the run (DATASET/.curator/runs)"
    return _fail(f"error[internal]: {what}; {hint}", {"code": 1, "error": "internal"}, as_json)


def _stopped(signum: int, as_json: bool) -> int:
    return _fail("stopped", {"code": 128 + signum, "error": "stopped"}, as_json)


def leave_stdout_alone() -> None:
    """Keep Python from complaining at exit about what stdout did not take; it was said before."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _help_hint(error: TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f"; see `{context.command_path} --help`" if context is not None else ""


def _fail(text: str, line: Mapping[str, object], as_json: bool) -> int:
    # What the user typed comes back in messages, and a URL in it may hold a password.
    sys.stderr.write(mask_secrets(text) + "\n")
    if as_json:
        said = to_json({"type": "exit", **line}, sys.stderr)
        sys.stderr.write(mask_secrets(said) + "\n")
    code = line["code"]
    assert isinstance(code, int)
    return code
