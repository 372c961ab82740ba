"""Progress on stderr: a bar with rate and time left on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Advance = Callable[[int], None]
"""Call it with the number of items just finished."""


class _Rate(ProgressColumn):
    """Items a second, over the last moments."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed and speed >= 10 else f"{speed or 0:.1f}/s")  # noqa: PLR2004 - below ten a decimal tells something


Listener = Callable[[str, int, int], None]
"""Called with what is done, how much of it, and the total, each time a bar moves."""

Quarantine = Callable[[Mapping[str, int]], None]
"""Called with how many items could not be used just now, by reason."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
_quarantine: ContextVar[Quarantine | None] = ContextVar("quarantine", default=None)


@contextmanager
def reporting_to(listener: Listener, quarantine: Quarantine) -> Iterator[None]:
    """Have every bar of the block report to `listener` as well, terminal or not.

    What `quarantined` is told goes to `quarantine`.
    """
    token, other = _listener.set(listener), _quarantine.set(quarantine)
    try:
        yield
    finally:
        _listener.reset(token)
        _quarantine.reset(other)


def quarantined(reasons: Mapping[str, int]) -> None:
    """Tell the run at work, if there is one, what could not be used, by reason."""
    quarantine = _quarantine.get()
    if quarantine is not None and reasons:
        quarantine(reasons)


@contextmanager
def bar(what: str, total: int | None, unit: str) -> Iterator[Advance]:
    """A bar for `total` items (None: nobody knows). Silent when stderr is no terminal."""
    console = Console(file=sys.stderr)
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TextColumn(unit),
        _Rate(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
    with progress:
        task = progress.add_task(what, total=total)
        listener, done = _listener.get(), 0

        def advance(number: int) -> None:
            nonlocal done
            done += number
            progress.advance(task, number)
            if listener is not None and total is not None:
                listener(what, done, total)

        yield advance


def say(line: str) -> None:
    """One line for people, on stderr: results go to stdout, everything else here."""
    sys.stderr.write(line + "\n")
