"""Crashes: before every write step of every verb, at random moments, and by Ctrl-C.

The sweep is the strong test: 500 random kills missed two of six planted bugs that it found
(design notes on reliability). The random kills exercise the real command with its processes.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.kit import tars
from tests.kit.crash_worker import VERBS

MIN_POINTS = {"index": 15, "score": 30, "recaption": 50, "decide": 10, "export": 25, "gc": 2}
MIN_POINTS["merge"] = 60
ENV = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "POLARS_MAX_THREADS": "1"}


@pytest.mark.parametrize("verb", VERBS)
def test_a_kill_before_any_write_step_loses_nothing(verb: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.kit.crash_worker", verb, str(tmp_path)]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert result["points"] >= MIN_POINTS[verb]
    assert result["violations"] == []


def _command(root: Path, *more: str) -> list[str]:
    start = [sys.executable, "-m", "curator", "recaption", str(root / "shards")]
    options = ["--store", str(root / "store"), "--policy", "replace"]
    if "--captioner" not in more:
        options += ["--captioner", "echo"]
    return [*start, *options, "--batch-size", "4", *more]


def _shards(root: Path, count: int) -> None:
    (root / "shards").mkdir(parents=True)
    for shard in range(2):
        data = tars.tar(tars.samples(count, first=count * shard))
        (root / "shards" / f"{shard:05d}.tar").write_bytes(data)


def _fsck(root: Path) -> dict[str, object]:
    command = [sys.executable, "-m", "curator", "fsck", str(root / "shards"), "--deep", "--json"]
    done = subprocess.run(
        [*command, "--store", str(root / "store")],
        env=ENV,
        capture_output=True,
        text=True,
        check=False,
    )
    found: dict[str, object] = json.loads(done.stdout.splitlines()[0])
    return found


@pytest.mark.parametrize("wanted", [10, pytest.param(50, marks=pytest.mark.slow)])
def test_random_kills_of_the_real_command(tmp_path: Path, wanted: int) -> None:
    """Nothing acknowledged is lost or made twice, every version can be read."""
    from curator.store.facts import CAPTIONS
    from tests.kit.crash_worker import acknowledged

    reference = tmp_path / "reference"
    _shards(reference, 150)
    began = time.monotonic()
    subprocess.run(_command(reference), env=ENV, check=True, capture_output=True)
    duration = time.monotonic() - began
    total = acknowledged(reference)  # some of the little images are the same
    generator = random.Random(0)
    kills, run = 0, 0
    while kills < wanted:
        run += 1
        root = tmp_path / f"run{run}"
        _shards(root, 150)
        before = 0
        for attempt in range(6):
            began = time.monotonic()
            process = subprocess.Popen(
                _command(root), env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            try:
                process.wait(generator.uniform(0.3, 1.0) * duration)
            except subprocess.TimeoutExpired:
                process.kill()
            kills += process.wait() == -signal.SIGKILL
            if attempt == 0 and process.returncode == 0:
                duration = time.monotonic() - began  # the machine was slow when it was measured
            if (root / "store" / "facts").exists():
                now = acknowledged(root)
                assert now >= before, "an acknowledged caption is gone"
                before = now
        done = subprocess.run(
            _command(root, "--json"), env=ENV, capture_output=True, text=True, check=True
        )
        made = json.loads(done.stdout)["captioned"]["made"]
        assert before + made == total, "a caption was made twice or not at all"
        assert _fsck(root)["damage"] == []
        for kind in ("captions", f"facts/{CAPTIONS}", "versions"):
            assert _bytes(root / "store" / kind) == _bytes(reference / "store" / kind)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".tmp-")
    }


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
def test_a_signal_stops_cleanly_and_the_next_run_goes_on(
    tmp_path: Path, signum: signal.Signals, code: int
) -> None:
    """The server answers one batch and holds the others until the signal has been seen."""
    from tests.kit.crash_worker import acknowledged

    _shards(tmp_path, 20)
    gate = tmp_path / "gate"
    stub = [sys.executable, "-m", "tests.kit.stub_server", "--mode", "gated", "--free", "4"]
    with subprocess.Popen([*stub, "--gate", str(gate)], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        asked = ("--captioner", "server", "--url", url, "--model", "tiny")
        process = subprocess.Popen(
            _command(tmp_path, *asked), env=ENV, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
            text=True,
        )  # fmt: skip
        assert process.stderr is not None
        while acknowledged(tmp_path) < 4:
            time.sleep(0.05)
            assert process.poll() is None, "it ended before it could be stopped"
        process.send_signal(signum)
        said = ""
        while "stopping" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        gate.touch()
        said += process.communicate()[1]
        assert process.returncode == code
        assert "run the same command again" in said
        assert "Traceback" not in said
        before = acknowledged(tmp_path)
        done = subprocess.run(
            _command(tmp_path, *asked, "--json"),
            env=ENV,
            capture_output=True,
            text=True,
            check=True,
        )
        server.kill()
    made = json.loads(done.stdout)["captioned"]["made"]
    assert 0 < made == 40 - before  # it went on, it did not begin again
    assert _fsck(tmp_path)["damage"] == []
