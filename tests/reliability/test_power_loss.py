"""After a power loss at any write step the store is whole, and the next run ends as without one.

What was not synced may be there in any part: see `tests.kit.powerloss`. The slow suite rebuilds
every point of every verb 20 times, the fast one a few.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.crash_worker import VERBS
from tests.kit.powerloss import Point, rebuild

ENV = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "POLARS_MAX_THREADS": "1"}


def sweep(verb: str, folder: Path, *, every: int, rebuilds: int) -> int:
    command = [sys.executable, "-m", "tests.kit.powerloss", verb, str(folder), str(every)]
    done = subprocess.run(
        [*command, str(rebuilds)], env=ENV, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["violations"] == []
    tried: int = result["tried"]
    return tried


@pytest.mark.parametrize(("verb", "every"), [("index", 7), ("recaption", 19), ("decide", 7)])
def test_some_points_of_a_power_loss(verb: str, every: int, tmp_path: Path) -> None:
    assert sweep(verb, tmp_path, every=every, rebuilds=2) >= 4


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("verb", VERBS)
def test_every_point_of_a_power_loss(verb: str, tmp_path: Path) -> None:
    assert sweep(verb, tmp_path, every=1, rebuilds=20) >= 40


def test_what_is_rebuilt_by_hand(tmp_path: Path) -> None:
    """A folder whose name is synced, a file with one synced sector of three, a new file."""
    old, new = (1, 0), (2, 0)
    point = Point(
        what="append",
        synced_names={"a": None, "a/log": old},
        names={"a": None, "a/log": old, "a/new": new},
        synced={old: b"s" * 512},
        content={old: b"s" * 512 + b"t" * 1024, new: b"n" * 100},
    )
    rebuild(point, tmp_path / "least", None)
    assert [path.name for path in (tmp_path / "least/a").iterdir()] == ["log"]
    assert (tmp_path / "least/a/log").read_bytes() == b"s" * 512
    seen = set()
    for turn in range(60):
        root = tmp_path / str(turn)
        rebuild(point, root, random.Random(turn))
        data = (root / "a/log").read_bytes()
        assert data.startswith(b"s" * 512)
        sectors = (data[512:1024], data[1024:])
        seen.add(tuple(part[:1] for part in sectors))
        seen.add((root / "a/new").exists())
    assert {True, False, (b"t", b"t"), (b"\0", b"t"), (b"t", b"\0"), (b"\0", b"\0")} <= seen
