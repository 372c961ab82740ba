"""Captioning servers of a run's own (`--serve`): one on each GPU, and none is ever left behind.

Each server is the child of a small watcher process (`watch`), which holds the end of
a pipe from the run. When the pipe closes, also since the run was killed, the watcher ends the
server and all that it started: SIGTERM, and SIGKILL after a while. A server that dies by itself
is started again; one that ends before it has answered anything ends the run.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from types import TracebackType

from curator.core.errors import EngineError, UsageError

VLLM = "vllm"
COMMANDS = {VLLM: "vllm serve {model} --port {port} --uvicorn-log-level warning"}
_GRACE_SEC = 20.0
_POLL_SEC = 0.5
_TELL_SEC = 30.0
_NUM_LINES = 15


class LocalServers:
    """Servers that `start` starts and the end of the context stops.

    `command` is a name of `COMMANDS`, or a command with `{port}`, and `{model}` if it needs it.
    `num` servers are started; of several, each sees one GPU.

    Raises:
        UsageError: the command cannot be read, or has no `{port}`.
    """

    def __init__(self, command: str, *, model: str, num: int = 1) -> None:
        template = COMMANDS.get(command, command)
        try:
            words = shlex.split(template)
        except ValueError:
            words = []
        if not any("{port}" in word for word in words):
            raise UsageError(
                f"--serve is {command!r}",
                hint=f"allowed: {VLLM}, or a command with {{port}} such as {COMMANDS[VLLM]!r}",
                reason="option.value",
            )
        self._ports = _free_ports(num)
        self._commands = [
            [word.replace("{model}", model).replace("{port}", str(port)) for word in words]
            for port in self._ports
        ]
        self._watchers: list[subprocess.Popen[str]] = []
        self._is_over = threading.Event()
        self._keeper: threading.Thread | None = None

    @property
    def urls(self) -> list[str]:
        """Return the base URLs of the servers, started or not."""
        return [f"http://127.0.0.1:{port}/v1" for port in self._ports]

    def __enter__(self) -> LocalServers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._is_over.set()
        if self._keeper is not None:
            self._keeper.join()
        for watcher in self._watchers:
            assert watcher.stdin is not None
            watcher.stdin.close()
        for watcher in self._watchers:
            watcher.wait()  # it ends the server within `_GRACE_SEC`, if need be with SIGKILL
            assert watcher.stdout is not None
            watcher.stdout.close()

    def start(self, say: Callable[[str], object], stop: Callable[[], bool]) -> None:
        """Start all servers and wait until they answer; nothing to do if they were started.

        Raises:
            EngineError: one cannot be started, or ends before it answers; with its last lines.
        """
        if self._watchers:
            return
        began = told = time.monotonic()
        say(f"starting {len(self._ports)} x {shlex.join(self._commands[0])}")
        for number in range(len(self._ports)):
            self._watchers.append(self._watch(number))
        waiting = set(range(len(self._ports)))
        while waiting and not stop():
            for number in sorted(waiting):
                if self._watchers[number].poll() is not None:
                    raise self._ended(number)
                if _answers(self._ports[number]):
                    waiting.discard(number)
            now = time.monotonic()
            if waiting and now - told > _TELL_SEC:
                told = now
                ready = len(self._ports) - len(waiting)
                say(f"{ready} of {len(self._ports)} servers are ready after {now - began:.0f} s")
            if waiting:
                time.sleep(_POLL_SEC)
        if waiting:  # a stop was requested
            return
        say(f"servers are ready after {time.monotonic() - began:.0f} s")
        self._keeper = threading.Thread(target=self._keep, args=(say,), daemon=True)
        self._keeper.start()

    def _watch(self, number: int) -> subprocess.Popen[str]:
        environment = dict(os.environ)
        if len(self._ports) > 1:
            gpus = [one for one in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
            environment["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)] if gpus else str(number)
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "curator.engine.serve", *self._commands[number]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C reaches the run, which ends the servers itself
        )

    def _keep(self, say: Callable[[str], object]) -> None:
        """Start servers again that have died, until the context ends."""
        while not self._is_over.wait(_POLL_SEC):
            for number, watcher in enumerate(self._watchers):
                if watcher.poll() is not None:
                    say(f"{self._ended(number).what}; it is started again")
                    self._watchers[number] = self._watch(number)

    def _ended(self, number: int) -> EngineError:
        watcher = self._watchers[number]
        assert watcher.stdout is not None
        assert watcher.stdin is not None
        lines = watcher.stdout.read().strip() or "(it said nothing)"
        watcher.stdout.close()
        watcher.stdin.close()
        return EngineError(
            f"the server of --serve ended with exit code {watcher.returncode}: {lines}",
            where=self.urls[number],
            did="all stored facts are kept",
            hint=f"try it by hand: {shlex.join(self._commands[number])}",
            reason="engine.crashed",
        )


def _free_ports(num: int) -> list[int]:
    held = [socket.socket() for _ in range(num)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in held]
    finally:
        for one in held:
            one.close()


def _answers(port: int) -> bool:
    """Whether the server has loaded its model: it answers with something else than an error."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v1/models")
        return connection.getresponse().status < 500  # noqa: PLR2004 - 503 while it loads
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


# -- the watcher, a process of its own -------------------------------------------------------------


def _end(server: subprocess.Popen[str]) -> None:
    """End the server and all that it started."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(_GRACE_SEC)
    with contextlib.suppress(OSError):
        os.killpg(server.pid, signal.SIGKILL)


def watch(command: list[str]) -> int:
    """Run the command until it or the pipe on stdin ends; then print its last lines."""
    try:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        os.write(1, f"{command[0]}: {error.strerror}\n".encode())
        return 127

    def on_end_of_pipe() -> None:
        os.read(0, 1)
        _end(server)

    threading.Thread(target=on_end_of_pipe, daemon=True).start()
    assert server.stdout is not None
    last: deque[str] = deque(maxlen=_NUM_LINES)
    reader = threading.Thread(target=last.extend, args=(server.stdout,), daemon=True)
    reader.start()
    code = server.wait()
    _end(server)  # what it started may be there still, with the pipe
    reader.join(2.0)
    lines = "".join(line[:300].rstrip("\n") + "\n" for line in last)
    os.write(1, lines.encode())  # to the run, which reads it when this process has ended
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(watch(sys.argv[1:]))
