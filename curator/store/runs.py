"""Runs: for each command that wrote, its options, its progress and how it ended.

runs/<run>/run.json is rewritten during the run, log.jsonl grows by one line per event. They are
records only: facts and versions decide what is done.
"""

from __future__ import annotations

import json
import os
import secrets
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curator.core import clock, package, progress
from curator.core.errors import CuratorError, StoppedError, mask_secrets
from curator.store import fsops, sealed
from curator.store.store import Store

_WRITE_EVERY_SEC = 2.0


@dataclass(slots=True)
class Run:
    """An open run; see `open_run`."""

    folder: Path
    state: dict[str, Any] = field(default_factory=dict)
    _written: float = 0.0

    def event(self, name: str, **values: object) -> None:
        """Append a line to log.jsonl, without fsync: a lost line loses no work."""
        line = json.dumps({"time": clock.now(), "event": name, **values}, default=str)
        fsops.append_line(self.folder / "log.jsonl", sealed.seal_line(mask_secrets(line)))

    def progress(self, stage: str, done: int, total: int) -> None:
        """Report the progress of a stage; written every two seconds."""
        self.state.setdefault("stages", {})[stage] = {"done": done, "total": total}
        now = time.monotonic()
        if now - self._written >= _WRITE_EVERY_SEC:
            self._written = now
            self.write()

    def quarantined(self, reasons: Mapping[str, int]) -> None:
        """Count quarantined items by reason; written with the progress."""
        counted = self.state["quarantined"]
        for reason, count in reasons.items():
            counted[reason] = counted.get(reason, 0) + count

    def write(self) -> None:
        """Write run.json."""
        text = json.dumps(self.state, indent=1, sort_keys=True, default=str)
        fsops.write_atomic(self.folder / "run.json", sealed.seal(mask_secrets(text)))


@contextmanager
def open_run(store: Store, verb: str, options: Mapping[str, object]) -> Iterator[Run]:
    """Record one command: running, then done, stopped or failed."""
    started = clock.now()
    stamp = clock.iso(started).replace(":", "").replace("-", "")
    run = Run(store.root / "runs" / f"{stamp}-{verb}-{secrets.token_hex(3)}")
    run.state = {
        "verb": verb,
        "options": dict(options),
        "status": "running",
        "started": started,
        "quarantined": {},
        "pid": os.getpid(),
        "tool_version": package.tool_version(),
    }
    run.write()
    try:
        with progress.reporting_to(run.progress, run.quarantined):
            yield run
    except BaseException as error:
        stopped = isinstance(error, StoppedError | KeyboardInterrupt)
        run.state["status"] = "stopped" if stopped else "failed"
        run.state["error"] = str(error)
        # A note is the traceback of a captioner or scorer that raised (curator.core.contract).
        if not isinstance(error, CuratorError) or hasattr(error, "__notes__"):
            run.event("error", traceback=traceback.format_exc())
            error.log = run.folder / "log.jsonl"  # type: ignore[attr-defined]  # for the last line
        raise
    else:
        run.state["status"] = "done"
    finally:
        run.state["ended"] = clock.now()
        run.write()
