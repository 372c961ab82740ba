"""Two verbs at once on one store never leave it broken, and lose nothing.

Either both finish, or one is refused by name (exit 11) and succeeds when it is run again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Written down again: importing the worker would fix the clock here.
VERBS = ("index", "recaption", "decide", "gc", "score", "edit", "apply", "export")
ENV = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "POLARS_MAX_THREADS": "1"}


def races(verb: str, folder: Path, moments: int) -> dict[str, object]:
    command = [sys.executable, "-m", "tests.kit.pair_worker", verb, str(folder), str(moments)]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("verb", VERBS)
def test_any_verb_in_the_middle_of_another(verb: str, tmp_path: Path) -> None:
    """64 pairs: the first of each stops at three moments, the second runs."""
    found = races(verb, tmp_path, 2)
    assert found["races"] == len(VERBS) * found["moments"]
    assert found["violations"] == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("verb", VERBS)
def test_any_verb_at_every_moment_of_another(verb: str, tmp_path: Path) -> None:
    assert races(verb, tmp_path, 1000)["violations"] == []
