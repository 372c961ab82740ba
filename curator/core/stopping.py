"""Ctrl-C and SIGTERM: the first asks the work to stop cleanly, the second stops it at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from curator.core.errors import StoppedError


class StopRequest:
    """A pending stop; call it between two pieces of work to ask whether to stop."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def __call__(self) -> bool:
        """Whether a stop was requested."""
        return self.signum is not None

    def check(self, what: str) -> None:
        """Raise if a stop was requested.

        Raises:
            StoppedError: with exit code 130 or 143; `what` says what is kept.
        """
        if self.signum is not None:
            name = signal.Signals(self.signum).name
            raise StoppedError(
                f"stopped by {name}; {what}",
                signum=self.signum,
                hint="run the same command again to resume",
            )


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Catch SIGINT and SIGTERM for the block. Only for the main thread of a command."""
    request = StopRequest()

    def handle(signum: int, _frame: FrameType | None) -> None:
        if request.signum is not None:
            os._exit(128 + signum)
        request.signum = signum
        # Not through sys.stderr: the signal may interrupt a write to it.
        os.write(2, b"\nstopping: finishing what is in flight; once more stops at once\n")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def without_ctrl_c() -> Iterator[None]:
    """Shield processes started in the block from Ctrl-C, from their first instruction on.

    The terminal sends Ctrl-C to every process; the parent handles it for all. A signal mask is
    inherited by child processes and by threads (which start processes); a signal that reaches the
    parent meanwhile is delivered after the block.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
