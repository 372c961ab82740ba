"""Two verbs at once on one store, the second at a chosen moment of the first.

Run as `python -m tests.kit.pair_worker FIRST FOLDER MOMENTS`; prints one JSON object. The first
verb stops in front of one of its write steps, the second runs from its beginning to its end (or
until it waits for the first), the first goes on: a race that random timing hits once in a thousand
runs is met in every one. As in `tests.kit.crash_worker`, every verb runs in a forked process.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

os.environ["SOURCE_DATE_EPOCH"] = "1700000000"

from curator.core.errors import ConflictError, CuratorError
from curator.core.stopping import StopRequest
from curator.edits import log as edit_log
from curator.edits.history import Draft, SampleRef
from curator.engine.makers import captioner_maker, checker_maker
from curator.export.version import ExportOptions, export
from curator.policy.decider import read_decision
from curator.policy.model import load_policy, parse_policy
from curator.shards.scan import ScanOptions
from curator.steps.apply_edits import apply
from curator.steps.decide import MakerChoice, decide
from curator.steps.gc import collect
from curator.steps.index import make_index
from curator.steps.recaption import Recaption, recaption
from curator.steps.score import score_all
from curator.store import fsops
from curator.store.listing import LISTINGS
from tests.kit.crash_worker import KEEP_ALL, RUN_OPTIONS, damage, in_child, make_shards, workspace

CONFLICT = ConflictError.code
_WEEKS_AGO = time.time() - 30 * 86400


def do_index(root: Path) -> None:
    """With other options than the index was made with: every shard is read again."""
    make_index(workspace(root), ScanOptions(caption_field="caption"), stop=StopRequest())


def do_recaption(root: Path, seed: int = 1) -> None:
    """A captioner that has not been here yet, and the first options again."""
    asked = Recaption(
        captioners=(captioner_maker("echo", seed=seed),),
        scorer=None,
        checker=checker_maker("en"),
        policy=load_policy("replace"),
    )
    recaption(workspace(root), asked, RUN_OPTIONS, stop=StopRequest())


def do_decide(root: Path) -> None:
    """A decision whose files are there already, old, and named by nobody."""
    policy = parse_policy(KEEP_ALL, where="test")
    decide(workspace(root), policy, MakerChoice(), RUN_OPTIONS, stop=StopRequest())


def do_gc(root: Path) -> None:
    """As the command does it, with a grace period of a week."""
    collect(workspace(root).store)


def do_score(root: Path) -> None:
    """A checker that has not been here yet."""
    score_all(workspace(root), [checker_maker("de")], RUN_OPTIONS, stop=StopRequest())


def do_edit(root: Path, row: int = 1) -> None:
    """A text by hand, of a row that nobody has edited; two editors at once take the next ones."""
    store = workspace(root).store
    entry = store.version(1).shards[0]
    texts = read_decision(store, entry)
    taken = {edit.row for edit in edit_log.history(store, entry.name).edits}
    row = next(row for row in range(row, texts.height) if row not in taken)
    found = texts.row(row, named=True)
    where = SampleRef(
        shard=entry.name, row=row, key=found["key"], image_sha256=found["image_sha256"]
    )
    draft = Draft(sample=where, action="edit", base_text=found["text"], new_text=f"by hand {row}")
    edit_log.add(store, draft, who="Anna")


def do_apply(root: Path) -> None:
    """A version with the edits that are there."""
    store = workspace(root).store
    apply(store, store.version(1), who="Anna", stop=StopRequest())


def do_export(root: Path) -> None:
    """The first version, into a folder of this process's own."""
    ws = workspace(root)
    out = root / f"out{os.getpid()}"
    export(ws.store, ws.shards, ws.store.version(1), out, to="wds", options=ExportOptions())


VERBS: dict[str, Callable[[Path], None]] = {
    "index": do_index,
    "recaption": do_recaption,
    "decide": do_decide,
    "gc": do_gc,
    "score": do_score,
    "edit": do_edit,
    "apply": do_apply,
    "export": do_export,
}


def prepare(root: Path) -> None:
    """A version, and what an earlier decision left behind when its commit was lost."""
    make_shards(root / "shards")
    do_recaption(root, seed=0)
    do_edit(root, row=0)
    store = workspace(root).store
    before = {path: path.read_bytes() for path in (store.root / LISTINGS).rglob("*.log")}
    do_decide(root)
    fsops.remove(store.manifest_path(2))
    for path, data in before.items():  # as of a commit that never was
        fsops.write_atomic(path, data)
    fsops.write_atomic(store.root / "index" / ".tmp-1-abcd", b"half a file")
    for path in (store.root / "captions").rglob("*.parquet"):
        os.utime(path, (_WEEKS_AGO, _WEEKS_AGO))
    os.utime(store.root / "index" / ".tmp-1-abcd", (_WEEKS_AGO, _WEEKS_AGO))


def ended(verb: Callable[[Path], None], root: Path) -> list[object]:
    """Exit code and reason, as the command line would give them."""
    try:
        verb(root)
    except CuratorError as error:
        return [error.code, error.reason]
    return [0, None]


def num_steps(verb: Callable[[Path], None], root: Path) -> int:
    """How many write steps a verb takes by itself."""

    def count() -> int:
        steps = []
        fsops.set_step_hook(lambda operation, _path: steps.append(operation))
        verb(root)
        return len(steps)

    status, said = in_child(count)
    assert status == 0, said
    return int(said)


def race(first: Callable[[Path], None], second: Callable[[Path], None], root: Path, at: int) -> str:
    """What is wrong after `second` ran in front of step `at` of `first`; "" if nothing."""
    here, there = os.pipe(), os.pipe()  # "I am there", and "go on"

    def stopping() -> list[object]:
        seen = 0

        def hook(_operation: str, _path: Path) -> None:
            nonlocal seen
            seen += 1
            if seen == at:
                os.write(here[1], b".")
                os.read(there[0], 1)

        fsops.set_step_hook(hook)
        return ended(first, root)

    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(here[0])
        os.write(write, json.dumps(in_child(stopping)).encode())
        os._exit(0)
    os.close(here[1])
    os.close(write)
    os.read(here[0], 1)  # empty if it ended before

    def meanwhile() -> list[object]:
        """The second; where it waits for a shard that the first works on, the first goes on."""
        pause = time.sleep

        def go_on(_sec: float) -> None:
            os.write(there[1], b".")
            pause(0.01)

        with patch.object(time, "sleep", go_on):
            return ended(second, root)

    outcomes = {"second": in_child(meanwhile)}
    os.write(there[1], b".")
    with os.fdopen(read, "rb") as pipe:
        outcomes["first"] = tuple(json.loads(pipe.read()))
    os.waitpid(pid, 0)
    for end in (here[0], *there):
        os.close(end)

    verbs = {"first": first, "second": second}
    refused = [verbs[which] for which, (_, said) in outcomes.items() if f"[{CONFLICT}," in said]

    def afterwards() -> list[str]:
        found = damage(root)
        for verb in refused:
            code, reason = ended(verb, root)
            found += [f"again: {code} {reason}"] if code else damage(root)
        return found

    status, said = in_child(afterwards)
    wrong = [f"{which}: {what}" for which, what in outcomes.items() if not _allowed(*what)]
    if status or said != "[]":
        wrong.append(said)
    return "; ".join(wrong)


def _allowed(status: int, said: str) -> bool:
    """Done, or refused because of the other one."""
    return status == 0 and json.loads(said)[0] in (0, CONFLICT)


def main(name: str, folder: Path, max_moments: int) -> dict[str, object]:
    """All pairs that begin with this verb, at moments spread over it."""
    start = folder / "start"
    status, said = in_child(lambda: prepare(start))
    assert status == 0, said
    shutil.copytree(start, folder / "alone")
    steps = num_steps(VERBS[name], folder / "alone")
    stride = max(1, -(-steps // max_moments))
    moments = sorted({*range(1, steps + 1, stride), steps})
    violations, num_races = [], 0
    for other, second in VERBS.items():
        for at in moments:
            root = folder / "run"
            shutil.copytree(start, root)
            if what := race(VERBS[name], second, root, at):
                violations.append(f"{other} in front of step {at} of {name}: {what}")
            shutil.rmtree(root)
            num_races += 1
    return {"moments": len(moments), "races": num_races, "violations": violations}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))))  # noqa: T201 - the result
