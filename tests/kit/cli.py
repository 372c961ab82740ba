"""The real command in this process: arguments in; exit code, stdout and stderr out."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curator.cli.app import app
from curator.cli.output import run_app


@dataclass(frozen=True, slots=True)
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The first line of stdout, as --json prints it."""
        return json.loads(self.out.splitlines()[0])

    @property
    def exit_line(self) -> dict[str, Any]:
        """The last line of stderr, as --json prints it when a command fails."""
        line: dict[str, Any] = json.loads(self.err.splitlines()[-1])
        assert line["type"] == "exit"
        assert line["code"] == self.code
        return line


def curator(*arguments: object) -> Said:
    """Run one command. A traceback is never shown, whatever happens."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_app(app, [str(argument) for argument in arguments])
    assert "Traceback" not in out.getvalue() + err.getvalue()
    return Said(code, out.getvalue(), err.getvalue())


def recaption(shards: Path | str, *more: object) -> Said:
    """`recaption` without any model: the captions are made up, and no policy asks for scores."""
    fixed = ("--captioner", "echo", "--policy", "replace", "--max-quarantine", 1, "--json")
    return curator("recaption", shards, *fixed, *more)


def quarantine(shards: Path | str) -> dict[str, int]:
    """Reason -> rows."""
    said = curator("quarantine", "list", shards, "--json")
    assert said.code == 0, said.err
    found: dict[str, int] = said.json
    return found


def check_whole(shards: Path | str) -> dict[str, Any]:
    """fsck --deep finds nothing, and every sample of the newest version has one action."""
    report = curator("fsck", shards, "--deep", "--json")
    assert (report.code, report.json["damage"]) == (0, [])
    version: dict[str, Any] = curator("show", shards, "--json").json
    for shard in version["shards"]:
        assert sum(shard["counts"].values()) == shard["num_samples"]
    return version
