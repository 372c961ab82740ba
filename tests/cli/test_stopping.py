"""Ctrl-C and SIGTERM where nothing long is at work yet: one word and an exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from curator.cli.output import run_app
from curator.core.stopping import without_ctrl_c

# Sends itself the signal when a module is about to be imported.
_AT_AN_IMPORT = """
import os, signal, sys
class Signal:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), {signum})
sys.meta_path.insert(0, Signal())
sys.argv[1:] = {arguments!r}
from curator.cli.app import main
main()
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "module", ["typer", "curator.cli.recaption", "curator.steps.workspace", "curator.store.store"]
)
def test_a_signal_in_an_import_shows_no_traceback(
    tmp_path: Path, signum: signal.Signals, module: str
) -> None:
    program = _AT_AN_IMPORT.format(
        module=module, signum=int(signum), arguments=["log", str(tmp_path), "--json"]
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 128 + signum, done.stderr
    assert done.stderr.splitlines()[0] == "stopped"
    assert "Traceback" not in done.stderr


def test_an_error_that_a_library_made_of_the_interrupt(capsys: pytest.CaptureFixture[str]) -> None:
    came: list[int] = []

    def app(*_: object, **__: object) -> None:
        came.append(signal.SIGTERM)
        raise RuntimeError("initialization failed")

    stopped_by = lambda: came[0] if came else None  # noqa: E731 - short
    assert run_app(app, [], stopped_by=stopped_by) == 143
    assert capsys.readouterr().err == "stopped\n"


def test_what_starts_in_the_block_never_sees_ctrl_c() -> None:
    """From a thread of the block too, which is how pools start their processes."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        program = "import os; os.write(1, b'up'); os.read(0, 1); os.write(1, b'!')"
        child = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        started.append(child)

    with without_ctrl_c():
        thread = threading.Thread(target=start)
        thread.start()
        thread.join()
    (child,) = started
    os.kill(child.pid, signal.SIGINT)  # before it is up, most likely
    assert child.stdout is not None
    assert child.stdout.read(2) == b"up"
    os.kill(child.pid, signal.SIGINT)
    assert child.communicate(b"x")[0] == b"!"
    assert child.returncode == 0
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
