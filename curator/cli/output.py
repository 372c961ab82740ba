"""Results go to stdout, everything else to stderr; errors become one line and an exit code."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from typer.exceptions import TyperException

from curator.errors import CuratorError, mask_secrets
from curator.fsops import storage_errors


def show(text: str) -> None:
    """Print a result for people."""
    sys.stdout.write(text.rstrip("\n") + "\n")


def show_json(value: object) -> None:
    """Print a result for machines."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")


def table(rows: Sequence[Sequence[object]], header: Sequence[str]) -> str:
    """Plain columns: text to the left, numbers to the right."""
    cells = [list(header), *[[_cell(value) for value in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    right = [
        bool(rows) and all(isinstance(row[column], int | float | None) for row in rows)
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
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def run_app(app: Callable[..., Any], argv: Sequence[str], name: str = "curator") -> int:
    """Run the command line and return the exit code. Never shows a traceback."""
    as_json = "--json" in argv
    try:
        with storage_errors(Path.cwd()):  # of reading: what writes maps its own
            result = app(list(argv), standalone_mode=False, prog_name=name)
    except CuratorError as error:
        line = {
            "code": error.code,
            "error": error.reason,
            "what": error.what,
            "path": error.where,
            "did": error.did,
            "hint": error.hint,
        }
        return _fail(f"error[{error.reason}]: {error}", line, as_json)
    except TyperException as error:
        line = {"code": error.exit_code, "error": "usage", "what": error.format_message()}
        return _fail(f"error[usage]: {error.format_message()}{_help_hint(error)}", line, as_json)
    except (typer.Abort, KeyboardInterrupt):
        return _fail("stopped", {"code": 130, "error": "stopped"}, as_json)
    except BrokenPipeError:
        # The reader (head, less) has seen enough; keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # the last resort: one line, details in the run's log
        what = f"{type(error).__name__}: {error}"
        hint = "this is a bug; the traceback is in the log of the run (DATASET/.curator/runs)"
        if os.environ.get("CURATOR_TRACEBACK"):
            raise
        return _fail(f"error[internal]: {what}; {hint}", {"code": 1, "error": "internal"}, as_json)
    return result if isinstance(result, int) else 0


def _help_hint(error: TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f"; see `{context.command_path} --help`" if context is not None else ""


def _fail(text: str, line: Mapping[str, object], as_json: bool) -> int:
    # What the user typed comes back in messages, and a URL in it may hold a password.
    sys.stderr.write(mask_secrets(text) + "\n")
    if as_json:
        said = json.dumps({"type": "exit", **line}, ensure_ascii=False)
        sys.stderr.write(mask_secrets(said) + "\n")
    code = line["code"]
    assert isinstance(code, int)
    return code
