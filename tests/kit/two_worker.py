"""Two real processes, each recaptioning shards of its own in one store, again and again.

Run as `python -m tests.kit.two_worker FOLDER ROUNDS`; prints one JSON object. As in
`tests.kit.crash_worker`, every process is forked from one that has imported everything and run
nothing. Both begin at the same moment; what the two end with must be what one after the other
ends with.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

os.environ["SOURCE_DATE_EPOCH"] = "1700000000"

from curator.core.stopping import StopRequest
from curator.engine.makers import captioner_maker, checker_maker
from curator.policy.model import load_policy
from curator.steps.recaption import Recaption, recaption
from curator.steps.workspace import open_workspace
from tests.kit import tars
from tests.kit.crash_worker import RUN_OPTIONS, damage, in_child, tree

SHARDS_EACH = 3
SAMPLES = 12
NAMES = ("here", "there")


def make_shards(root: Path) -> None:
    """As many shards for each of the two, and of other sizes, so that they end at other moments."""
    (root / "shards").mkdir(parents=True)
    first = 0
    for side, name in enumerate(NAMES):
        for number in range(SHARDS_EACH):
            count = SAMPLES + 4 * side + number
            data = tars.tar(tars.samples(count, first=first))
            (root / "shards" / f"{name}-{number}.tar").write_bytes(data)
            first += count


def work(root: Path, name: str) -> list[object]:
    """The command of one process: its version, and captions made."""
    ws = open_workspace(str(root / "shards" / f"{name}-*.tar"), root / "store", create=True)
    asked = Recaption(
        captioners=(captioner_maker("echo"),),
        scorer=None,
        checker=checker_maker("en"),
        policy=load_policy("replace"),
    )
    done = recaption(ws, asked, RUN_OPTIONS, stop=StopRequest())
    return [done.version.id, done.captioned.made]


def side_by_side(root: Path) -> list[tuple[int, str]]:
    """Both at once: the wait status of each, and what it said."""
    gate, found = os.pipe(), []
    for name in NAMES:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(gate[1])

            def begin(name: str = name) -> list[object]:
                os.read(gate[0], 1)  # until the parent closes it: both begin at once
                return work(root, name)

            os.write(write, json.dumps(in_child(begin)).encode())
            os._exit(0)
        os.close(write)
        found.append((pid, read))
    os.close(gate[0])
    os.close(gate[1])
    said = []
    for pid, read in found:
        with os.fdopen(read) as pipe:
            said.append(tuple(json.loads(pipe.read())))
        os.waitpid(pid, 0)
    return said


def made(root: Path) -> dict[str, str]:
    """What the two leave behind: but for manifests, whose numbers depend on who was first."""
    return {name: digest for name, digest in tree(root).items() if "/versions/" not in name}


def one_round(root: Path, start: Path, wanted: dict[str, str], alone: dict[str, object]) -> str:
    """What is wrong after both ran at once; "" if nothing."""
    shutil.copytree(start, root)
    said = side_by_side(root)
    for name, (status, text) in zip(NAMES, said, strict=True):
        if status or json.loads(text) != alone[name]:
            return f"{name}: {text[-1500:]}, alone {alone[name]}"
    status, text = in_child(lambda: damage(root))
    if status or text != "[]":
        return text[-1500:]
    found = made(root)
    differ = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
    shutil.rmtree(root)
    return f"other bytes than one after the other: {differ[:6]}" if differ else ""


def main(folder: Path, num_rounds: int) -> dict[str, object]:
    """All rounds."""
    start = folder / "start"
    make_shards(start)
    reference = folder / "reference"
    shutil.copytree(start, reference)
    alone: dict[str, object] = {}
    for name in NAMES:
        status, text = in_child(lambda name=name: work(reference, name))
        assert status == 0, text
        alone[name] = json.loads(text)
    wanted = made(reference)
    violations = []
    for number in range(num_rounds):
        if what := one_round(folder / f"round{number}", start, wanted, alone):
            violations.append(f"round {number}: {what}")
    return {"rounds": num_rounds, "violations": violations[:10]}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))  # noqa: T201 - the result
