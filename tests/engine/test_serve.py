"""Servers that a run starts itself: with real processes, which must all be gone afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from curator.captioners.server import ServerCaptioner
from curator.core.errors import EngineError, UsageError
from curator.engine import serve
from curator.engine.serve import LocalServers
from tests.captioners.test_server import picture
from tests.kit import tars
from tests.kit.cli import curator
from tests.kit.paths import ROOT

COMMAND = f"{sys.executable} -m tests.kit.served {{model}} --port {{port}}"


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SERVED_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path / "log"


def started(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()]


def until(holds: Callable[[], bool]) -> None:
    for _ in range(1000):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError("it never happened")


def all_gone(log: Path) -> bool:
    """Whether every process ended; one that nobody has asked for its exit code counts as ended."""
    states = []
    for pid in (pid for line in started(log) for pid in line[:2]):
        stat = Path(f"/proc/{pid}/stat")
        states.append(stat.read_text().rpartition(")")[2].split()[0] if stat.exists() else "Z")
    return set(states) == {"Z"}


def never() -> bool:
    return False


def test_a_run_starts_its_servers_and_leaves_none_behind(tmp_path: Path, log: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    files = [(f"{number}.jpg", picture(number).image) for number in range(30)]
    (shards / "0.tar").write_bytes(tars.tar(files))
    asked = ("--captioner", "server", "--model", "m", "--serve", COMMAND, "--policy", "replace")
    said = curator("recaption", shards, *asked, "--workers", 2, "--json")
    assert said.code == 0, said.err
    assert said.json["captioned"]["made"] == 30
    assert sorted(gpu for _, _, gpu in started(log)) == ["0", "1"]
    until(lambda: all_gone(log))
    # The second run needs no caption, so it starts nothing.
    assert curator("recaption", shards, *asked, "--json").json["model_calls"] == 0
    assert len(started(log)) == 2


def test_a_server_that_dies_is_started_again(log: Path) -> None:
    said: list[str] = []
    with LocalServers(COMMAND, model="m") as servers:
        servers.start(said.append, never)
        captioner = ServerCaptioner(model="m", url=servers.urls)
        captioner.caption([picture(1)])
        os.kill(int(started(log)[0][0]), signal.SIGKILL)
        until(lambda: len(started(log)) == 2)
        captioner.caption([picture(2)])
    until(lambda: all_gone(log))
    assert any("ended with exit code" in line for line in said)


def test_one_that_ends_at_its_start_ends_the_run_with_its_last_lines(log: Path) -> None:
    with (
        pytest.raises(EngineError, match="out of memory: try a smaller model") as caught,
        LocalServers(COMMAND, model="broken") as servers,
    ):
        servers.start(lambda _line: None, never)
    assert caught.value.code == 30
    assert "exit code 1" in str(caught.value)


def test_one_that_ignores_sigterm_is_killed(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "from curator.engine import serve; serve._GRACE_SEC = 0.5; import sys; "
    script += f"sys.exit(serve.watch({COMMAND.split()[:3]!r} + ['stubborn', '--port', '0']))"
    watcher = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, cwd=ROOT)
    until(log.exists)
    until(lambda: len(started(log)) == 1)
    assert watcher.stdin is not None
    watcher.stdin.close()
    watcher.wait()
    until(lambda: all_gone(log))


def test_servers_end_when_the_run_is_killed(log: Path, tmp_path: Path) -> None:
    script = (
        "import os, signal\n"
        "from curator.engine.serve import LocalServers\n"
        f"with LocalServers({COMMAND!r}, model='m') as servers:\n"
        "    servers.start(print, lambda: False)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    until(lambda: all_gone(log))


@pytest.mark.parametrize("command", ["vllm serve m", "a 'b {port}", ""])
def test_a_command_without_a_port_is_refused(command: str) -> None:
    with pytest.raises(UsageError, match="--serve is"):
        LocalServers(command, model="m")


def test_the_default_is_vllm() -> None:
    servers = LocalServers(serve.VLLM, model="org/a b")
    (command,) = servers._commands
    assert command[:3] == ["vllm", "serve", "org/a b"]
    assert f"http://127.0.0.1:{command[4]}/v1" == servers.urls[0]
