"""Report progress on stderr, with rate and time left: a bar on a terminal, else a line a minute."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from threading import Event, Thread

from curator.core.clock import duration

_MINUTE_SEC = 60.0
_AT_ONCE_SEC = 1.0

Advance = Callable[[int], None]
"""Call it with the number of items just finished."""


Listener = Callable[[str, int, int], None]
"""Called with the task's name, its count and the total, each time a bar moves."""

Quarantine = Callable[[Mapping[str, int]], None]
"""Called with the number of items that just became unusable, by reason."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
_quarantine: ContextVar[Quarantine | None] = ContextVar("quarantine", default=None)


@contextmanager
def reporting_to(listener: Listener, quarantine: Quarantine) -> Iterator[None]:
    """Report every bar of the block to `listener` as well, with or without a terminal.

    Counts given to `quarantined` go to `quarantine`.
    """
    token, other = _listener.set(listener), _quarantine.set(quarantine)
    try:
        yield
    finally:
        _listener.reset(token)
        _quarantine.reset(other)


def quarantined(reasons: Mapping[str, int]) -> None:
    """Report items that could not be used, by reason, to the current run, if there is one."""
    quarantine = _quarantine.get()
    if quarantine is not None and reasons:
        quarantine(reasons)


@contextmanager
def bar(what: str, total: int | None, unit: str) -> Iterator[Advance]:
    """Show a bar for `total` items (None: unknown); without a terminal, a line a minute."""
    from curator.core.bars import on_stderr  # loads rich, 0.1 s: not at the start of every command

    progress = on_stderr(unit)
    lines = Lines(what, total, unit)
    with progress, lines.each_minute() if progress.disable else nullcontext():
        task = progress.add_task(what, total=total)
        listener, done = _listener.get(), 0

        def advance(number: int) -> None:
            nonlocal done
            done += number
            lines.advance(number)
            progress.advance(task, number)
            if listener is not None and total is not None:
                listener(what, done, total)

        yield advance


class Lines:
    """Progress as lines of a log. `clock` returns seconds.

    Items counted within the first second existed before and are left out of the rate.
    """

    def __init__(
        self,
        what: str,
        total: int | None,
        unit: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what, self._total, self._unit, self._clock = what, total, unit, clock
        self._began = self._since = clock()
        self._done = self._at_since = 0

    def advance(self, number: int) -> None:
        """Count finished items."""
        self._done += number
        if self._clock() - self._began < _AT_ONCE_SEC:
            self._at_since = self._done

    def line(self) -> str:
        """Return the count, the rate since the previous line, and the time left at that rate."""
        now = self._clock()
        rate = (self._done - self._at_since) / max(now - self._since, 1e-9)
        self._since, self._at_since = now, self._done
        of = "" if self._total is None else f" of {self._total:,}"
        said = f"{self._what}: {self._done:,}{of} {self._unit}, {in_words(rate)}"
        if self._total is None or self._done >= self._total:
            return said
        return f"{said}, {duration((self._total - self._done) / rate) if rate else '?'} left"

    @contextmanager
    def each_minute(self) -> Iterator[None]:
        """Print the line every minute of the block, whether or not anything was finished."""
        ended = Event()

        def tell() -> None:
            while not ended.wait(_MINUTE_SEC):
                say(self.line())

        if os.environ.get("RANK", "0") != "0":  # torchrun starts several processes: one prints
            yield
            return
        thread = Thread(target=tell, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def in_words(per_sec: float) -> str:
    """Return a rate: `142/s`, `5.0/s`, `3.0/min`."""
    if per_sec >= 10:  # noqa: PLR2004 - below ten a decimal is informative
        return f"{per_sec:,.0f}/s"
    return f"{per_sec:.1f}/s" if per_sec >= 0.1 or not per_sec else f"{per_sec * 60:.1f}/min"  # noqa: PLR2004 - slower ones are shown by the minute


def say(line: str) -> None:
    """Print one line for people on stderr: only results go to stdout."""
    sys.stderr.write(line + "\n")
