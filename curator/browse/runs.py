"""List the commands that wrote to a store: their options, progress and outcome.

Read from runs/*/run.json (`curator.store.runs`), which a running command rewrites every two
seconds. A killed command leaves the status "running" behind: it counts as died if its process no
longer exists. Process ids are only valid on their own machine; on others, a command that has
stopped writing counts as died.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curator.core.errors import DamageError
from curator.store import sealed
from curator.store.store import Store

SILENT_SEC = 60.0
"""A running command counts as died if it wrote nothing for so long and its process is not here."""

_PATH = re.compile(r"(?<![\w.])/(?:[^\s/'\"]+/)+([^\s/'\"]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stage of a command: `done` of `total` items, in the stage's unit."""

    name: str
    done: int
    total: int

    @property
    def share(self) -> float:
        """Share done, from 0 to 1; 1 for an empty stage."""
        return min(1.0, self.done / self.total) if self.total else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """One command; times in seconds. `status`: running, died, done, stopped, failed or damaged.

    `quarantined` counts the items that it put into quarantine, by reason; None if its record has no
    such field. `error` is its error message without folders.
    """

    name: str
    verb: str
    status: str
    started: float
    ended: float | None
    options: Mapping[str, Any]
    stages: tuple[Stage, ...]
    quarantined: Mapping[str, int] | None
    error: str | None

    def seconds(self, now: float) -> float:
        """Return how long it took, or has been running."""
        return max(0.0, (self.ended or now) - self.started)


def runs(store: Store, *, limit: int = 20) -> list[RunState]:
    """Return the last commands, newest first; one whose file fails its checksum is `damaged`."""
    names = sorted(path.parent.name for path in (store.root / "runs").glob("*/run.json"))
    found = (_read(store.root / "runs" / name) for name in reversed(names[-limit:]))
    return [state for state in found if state is not None]


def _read(folder: Path) -> RunState | None:
    path = folder / "run.json"
    try:
        state = sealed.read(path)
        stages = tuple(
            Stage(name=str(name), done=int(stage["done"]), total=int(stage["total"]))
            for name, stage in state.get("stages", {}).items()
        )
        status = str(state["status"])
        if status == "running" and not _is_alive(int(state["pid"]), path):
            status = "died"
        quarantined = state.get("quarantined")
        error = state.get("error")
        return RunState(
            name=folder.name,
            verb=str(state["verb"]),
            status=status,
            started=float(state["started"]),
            ended=None if state.get("ended") is None else float(state["ended"]),
            options=dict(state.get("options", {})),
            stages=stages,
            quarantined=None if quarantined is None else _counts(quarantined),
            error=None if error is None else without_folders(str(error)),
        )
    except DamageError:
        return _damaged(path)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # by a newer release or another tool: nothing depends on it


def _damaged(path: Path) -> RunState | None:
    """Return a command of which only the time is known; None if its file no longer exists."""
    try:
        when = path.stat().st_mtime
    except FileNotFoundError:
        return None
    return RunState(
        name=path.parent.name,
        verb=path.parent.name,
        status="damaged",
        started=when,
        ended=when,
        options={},
        stages=(),
        quarantined=None,
        error="its record was changed after it was written; no data is affected",
    )


def _counts(by_reason: Mapping[str, int]) -> dict[str, int]:
    found = {str(reason): int(count) for reason, count in by_reason.items()}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _is_alive(pid: int, path: Path) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return time.time() - path.stat().st_mtime < SILENT_SEC
    except PermissionError:
        return True
    return True


def unfinished(store: Store) -> dict[str, int]:
    """Count the journals of unfinished runs by maker."""
    found: dict[str, int] = {}
    for path in (store.root / "journal").glob("*/*/**/*.jnl"):
        maker = path.relative_to(store.root / "journal").parts[1]
        found[maker] = found.get(maker, 0) + 1
    return found


def without_folders(text: str) -> str:
    """Shorten every absolute path in `text` to its last name, so that it can be shown to others."""
    return _PATH.sub(r"…/\1", text)
