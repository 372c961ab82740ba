"""The bar of `curator.core.progress` on a terminal."""

from __future__ import annotations

import sys

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

from curator.core.progress import in_words


class _Rate(ProgressColumn):
    """Items per second, over the last moments."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(in_words(speed or 0.0))


def on_stderr(unit: str) -> Progress:
    """Return a bar for items called `unit`, `disable`d if stderr is no terminal."""
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
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
