"""Commands that wrote to a store: what they were asked, how far they came, how they ended.

Read from runs/*/run.json (`curator.store.runs`), which a running command rewrites every two
seconds. A command that was killed leaves "running" behind: where its process is gone, it counts as
died. Process numbers mean something on their own machine only; elsewhere silence decides.
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
"""A running command that wrote nothing for so long, and whose process is not here, has died."""

_PATH = re.compile(r"(?<![\w.])/(?:[^\s/'\"]+/)+([^\s/'\"]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """`done` of `total` items; the unit is that of the stage."""

    name: str
    done: int
    total: int

    @property
    def share(self) -> float:
        """From 0 to 1; an empty stage is done."""
        return min(1.0, self.done / self.total) if self.total else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """One command. `status` is running, died, done, stopped, failed or damaged; in seconds.

    `quarantined` are the items that it put into quarantine, by reason; None where its record does
    not say. `error` is what it said, with folders taken out.
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
        """How long it took, or has taken so far."""
        return max(0.0, (self.ended or now) - self.started)


def runs(store: Store, *, limit: int = 20) -> list[RunState]:
    """The last commands, newest first. One whose file was changed since is `damaged`."""
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
        return None  # written by a newer tool, or by no tool: nothing depends on it


def _damaged(path: Path) -> RunState | None:
    """A command of which no more is known than that it ran; None if it is gone by now."""
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
        error="its record was changed after it was written; nothing else depends on it",
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
    """Maker -> journals that wait for a run to go on with them."""
    found: dict[str, int] = {}
    for path in (store.root / "journal").glob("*/*/**/*.jnl"):
        maker = path.relative_to(store.root / "journal").parts[1]
        found[maker] = found.get(maker, 0) + 1
    return found


def without_folders(text: str) -> str:
    """`text` with every absolute path cut down to its last name: it may be shown to others."""
    return _PATH.sub(r"…/\1", text)
