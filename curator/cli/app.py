"""The `curator` command: signals first, then the imports, then the work.

Whoever presses Ctrl-C in the first moments wants it to end, not a traceback of some import. So this
module loads nothing at its top but what Python has loaded already.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def __getattr__(name: str) -> Any:
    """`app`, for who wants the commands without the process around them."""
    if name == "app":
        from curator.cli.commands import app

        return app
    raise AttributeError(name)


def main() -> None:
    """Entry point of the console script."""
    _on_signals(_leave)
    # Arrow's own allocator keeps memory for every thread that ever read a table, so that a run
    # would grow with the number of its shards (benchmarks/memory.py). Read when Arrow starts.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    from curator.cli import output
    from curator.cli.commands import app

    output.escape_what_cannot_be_shown()
    caught = _Caught()
    _on_signals(caught)  # long work takes over with `stop_on_signals`, and gives back to this
    code = output.run_app(app, sys.argv[1:], stopped_by=caught.signum)
    _on_signals(_leave)
    output.leave_stdout_alone()
    if caught.signum() is not None:
        # Not sys.exit: a KeyboardInterrupt that came in the `exec` of some dataclass would make
        # Python end by SIGINT, whatever the code.
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _on_signals(handler: Any) -> None:
    for signum in _SIGNALS:
        if signal.getsignal(signum) != signal.SIG_IGN:  # nohup and the like: stays so
            signal.signal(signum, handler)


def _leave(signum: int, _frame: FrameType | None) -> None:
    """While there is nothing to clean up: in imports, and when all is done."""
    os.write(2, b"stopped\n")
    os._exit(128 + signum)


class _Caught:
    """Ends the work where it is by a KeyboardInterrupt, and remembers which signal it was."""

    def __init__(self) -> None:
        self._signum: int | None = None

    def __call__(self, signum: int, _frame: FrameType | None) -> None:
        self._signum = signum
        raise KeyboardInterrupt

    def signum(self) -> int | None:
        """The signal that came, if any."""
        return self._signum
