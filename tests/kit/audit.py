"""Run the real command with everything written down that it, or a worker of it, does."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.kit.paths import ROOT

_RUN_ALL = """
import json, sys
from curator.cli.app import app
from curator.cli.output import run_app
if __name__ == "__main__":
    for argv in json.loads(sys.argv[1]):
        code = run_app(app, argv)
        print("exit", code, flush=True)
"""
_WRITES = ("open", "os.", "shutil.")
_NO_WRITES = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.startfile")
_STARTS = (*_NO_WRITES, "subprocess.", "pty.")
_NETWORK = ("socket.", "urllib.", "ftplib.", "smtplib.", "webbrowser.")


@dataclass(frozen=True, slots=True)
class Event:
    """One audit event of Python: its name, and its arguments as plain values."""

    name: str
    arguments: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Audited:
    """What a list of commands said and did."""

    codes: list[int]
    out: str
    err: str
    events: list[Event]

    def writes_outside(self, *folders: Path) -> list[Event]:
        """Files and folders changed anywhere else."""
        return [event for event in self.events if any(map(_is_outside(folders), _paths(event)))]

    def named(self, *names: str) -> list[Event]:
        """Events whose names begin so."""
        return [event for event in self.events if event.name.startswith(names)]

    @property
    def starts(self) -> list[Event]:
        """Processes started."""
        return self.named(*_STARTS)

    @property
    def network(self) -> list[Event]:
        """Look-ups and connections beyond this machine's own pipes between processes."""
        return self.named(*_NETWORK)


def _paths(event: Event) -> list[str]:
    """What an event creates, changes or removes."""
    if event.name == "open":
        found: tuple[object, ...] = event.arguments[:1]
    elif event.name.startswith(_WRITES) and event.name not in _NO_WRITES:
        found = event.arguments[:2]
    else:
        found = ()
    return [path for path in found if isinstance(path, str) and path != os.devnull]


def _is_outside(folders: Sequence[Path]) -> Callable[[str], bool]:
    return lambda path: not any(Path(path).is_relative_to(folder) for folder in folders)


def audited(
    commands: Sequence[Sequence[object]],
    folder: Path,
    *,
    env: Mapping[str, str] | None = None,
    code: str = _RUN_ALL,
) -> Audited:
    """Run commands one after the other in one process, in `folder`, with a home of its own."""
    log, home = folder / "audit.log", folder / "home"
    home.mkdir(exist_ok=True)
    script = folder / "run_all.py"
    script.write_text(code)
    clean = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    done = subprocess.run(
        [sys.executable, script, json.dumps([[str(a) for a in command] for command in commands])],
        env={
            **clean,
            "HOME": str(home),
            "PYTHONPATH": os.pathsep.join((str(ROOT / "tests" / "kit" / "audit_site"), str(ROOT))),
            "PYTHONDONTWRITEBYTECODE": "1",
            "AUDIT_LOG": str(log),
            "AUDIT_CODE": str(ROOT / "curator"),
            **(env or {}),
        },
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in log.read_text().splitlines()]
    log.unlink()
    return Audited(
        codes=[int(line.split()[1]) for line in done.stdout.splitlines() if line[:5] == "exit "],
        out=done.stdout,
        err=done.stderr,
        events=[Event(name, tuple(arguments)) for name, *arguments in events],
    )


def snapshot(folder: Path, *, but: Sequence[Path] = ()) -> dict[str, str]:
    """Path -> hash (or kind) of everything below a folder: whoever wrote it, it shows."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if any(path.is_relative_to(one) for one in but):
            continue
        kind = "link" if path.is_symlink() else "folder"
        found[path.relative_to(folder).as_posix()] = (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else kind
        )
    return found
