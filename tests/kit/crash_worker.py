"""Kills a verb before each of its write steps, checks the store, resumes, compares.

Run as `python -m tests.kit.crash_worker VERB FOLDER`; prints one JSON object. The process imports
everything but runs nothing itself, so that it can fork a child for each crash point: a thread
pool that has started (polars, pyarrow) would not survive a fork.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

os.environ["SOURCE_DATE_EPOCH"] = "1700000000"

from curator.captioners import CAPTIONERS
from curator.core.run_options import RunOptions
from curator.core.stopping import StopRequest
from curator.edits import log as edit_log
from curator.edits.history import EDIT, Draft, SampleRef
from curator.engine.makers import captioner_maker, checker_maker
from curator.export.version import ExportOptions, export
from curator.policy.model import load_policy, parse_policy
from curator.scorers import SCORERS
from curator.shards.scan import ScanOptions
from curator.steps import identity
from curator.steps.decide import MakerChoice, decide
from curator.steps.fsck import fsck
from curator.steps.gc import collect
from curator.steps.index import make_index
from curator.steps.merge import merge
from curator.steps.recaption import Recaption, recaption
from curator.steps.score import score_all
from curator.steps.workspace import Workspace, open_workspace
from curator.store import batchlog, fsops, index
from curator.store.facts import CAPTIONS
from curator.store.journal import replay
from curator.store.listing import LISTINGS
from tests.kit import tars

# The registry imports these late; here it is done once, not again in every child.
CAPTIONERS.get("echo")
SCORERS.get("text")

KEEP_ALL = """
name = "keep-all-texts"
sources = ["alt_text", "generated"]
pick = "all"
"""
RUN_OPTIONS = RunOptions(caption_batch_size=4, max_quarantine=1.0)


def make_shards(folder: Path) -> None:
    """Two shards of 9 samples: one damaged image, one image twice, one sample without text."""
    folder.mkdir(parents=True)
    for shard in range(2):
        files = tars.samples(7, first=7 * shard)
        files += tars.sample(f"dup{shard}", 1, caption="the same picture in both shards")
        files += [(f"bad{shard}.jpg", tars.image_bytes(99)[:-40]), (f"bad{shard}.txt", b"cut")]
        (folder / f"{shard:05d}.tar").write_bytes(tars.tar(files))


def workspace(root: Path) -> Workspace:
    """The dataset below `root`, with its store beside it."""
    return open_workspace(str(root / "shards"), root / "store", create=True)


def do_index(root: Path) -> int:
    make_index(workspace(root), ScanOptions(), stop=StopRequest())
    return 0


def do_score(root: Path) -> int:
    score_all(workspace(root), [checker_maker("en")], RUN_OPTIONS, stop=StopRequest())
    return 0


def do_recaption(root: Path) -> int:
    asked = Recaption(
        captioners=(captioner_maker("echo"),),
        scorer=None,
        checker=checker_maker("en"),
        policy=load_policy("replace"),
    )
    tally = recaption(workspace(root), asked, RUN_OPTIONS, stop=StopRequest()).captioned
    return tally.made + tally.num_failed


def do_decide(root: Path) -> int:
    policy = parse_policy(KEEP_ALL, where="test")
    decide(workspace(root), policy, MakerChoice(), RUN_OPTIONS, stop=StopRequest())
    return 0


def do_export(root: Path) -> int:
    ws = workspace(root)
    version = ws.store.resolve(None)
    export(ws.store, ws.shards, version, root / "out", to="wds", options=ExportOptions())
    return 0


def do_gc(root: Path) -> int:
    collect(workspace(root).store, grace_days=0)
    return 0


def litter(root: Path) -> None:
    """What a dead process and a lost commit leave behind, for gc."""
    store = workspace(root).store
    fsops.write_atomic(store.root / "captions" / "00000.000000000000.parquet", b"orphan")
    fsops.write_atomic(store.root / "index" / ".tmp-1-abcd", b"half a file")


def make_slices(root: Path) -> None:
    """Two stores, each of one slice; the second also has an edit, and a version of its own."""
    asked = Recaption(
        captioners=(captioner_maker("echo"),),
        scorer=None,
        checker=checker_maker("en"),
        policy=load_policy("replace"),
    )
    for part in range(2):
        place = root / f"slice{part}"
        ws = open_workspace(str(root / "shards"), place, create=True, shard_slice=f"{part}/2")
        recaption(ws, asked, RUN_OPTIONS, stop=StopRequest())
    row = index.read(ws.store, "00001", ["key", "image_sha256"]).row(0, named=True)
    sample = SampleRef(shard="00001", row=0, **row)
    edit_log.add(ws.store, Draft(sample=sample, action=EDIT, base_text=None, new_text="x"), who="a")
    decide(ws, asked.policy, MakerChoice(), RUN_OPTIONS, stop=StopRequest())
    ws.store.tag("mine", ws.store.resolve(None))


def do_merge(root: Path) -> int:
    merge(workspace(root), [root / "slice1", root / "slice0"], stop=StopRequest())
    return 0


VERBS: dict[str, tuple[list[Callable[[Path], object]], Callable[[Path], int]]] = {
    "index": ([], do_index),
    "score": ([do_index], do_score),
    "recaption": ([do_index, do_score], do_recaption),
    "decide": ([do_recaption], do_decide),
    "export": ([do_recaption], do_export),
    "gc": ([do_recaption, litter], do_gc),
    "merge": ([make_slices], do_merge),
}


def in_child(work: Callable[[], object]) -> tuple[int, str]:
    """Run in a forked child: its wait status, and what it returned (JSON) or its traceback."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            os.write(write, json.dumps(work()).encode())
        except BaseException:  # noqa: BLE001 - the parent reports it
            os.write(write, traceback.format_exc().encode()[-4000:])
            code = 1
        os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode()
    return os.waitpid(pid, 0)[1], said


def tree(root: Path) -> dict[str, str]:
    """Every file that counts: not the logs of runs, temporary files, or where the dataset lies.

    Nor the empty files of claims, of which a kill may leave one.

    Of a listing, what it says now: how often it was said depends on what came between.
    """
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(_counted(path)).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
        and not {"runs", "claims"} & {*path.relative_to(root).parts}
        and not path.name.startswith(fsops.TEMP_PREFIX)
        and path.name != identity.FILE
    }


def _counted(path: Path) -> bytes:
    data = path.read_bytes()
    if LISTINGS not in path.parts:
        return data
    marks: dict[str, str] = {}
    for body in batchlog.read(data, 0, path, reason="test").bodies:
        marks |= {name: mark for mark, name in json.loads(body)}
    return json.dumps(sorted(name for name, mark in marks.items() if mark != "done")).encode()


def acknowledged(root: Path) -> int:
    """Different caption facts on disk: whole journal records and rows of fact files."""
    import pyarrow.parquet as pq

    found = set()
    for path in (root / "store" / "journal" / CAPTIONS).rglob("*.jnl"):
        found |= {(r["image_sha256"], r["candidate"]) for r in replay(path).records}
    for path in (root / "store" / "facts" / CAPTIONS).rglob("*.parquet"):
        rows = pq.read_table(path, columns=["image_sha256", "candidate"], partitioning=None)
        found |= {tuple(row.values()) for row in rows.to_pylist()}
    return len(found)


def damage(root: Path) -> list[str]:
    """What fsck --deep finds."""
    return [f"{f.where}: {f.what}" for f in fsck(workspace(root), deep=True).damage]


def check_and_resume(root: Path, verb: Callable[[Path], int]) -> dict[str, object]:
    """In a child: is the store whole right after the crash, and what does a second run make?"""
    found = damage(root) if (root / "store" / "store.json").exists() else []
    before = acknowledged(root)
    made = verb(root)
    return {"damage": found + damage(root), "acknowledged": before, "made": made}


def sweep(name: str, folder: Path) -> dict[str, object]:
    """All crash points of one verb."""
    before, verb = VERBS[name]
    start = folder / "start"
    make_shards(start / "shards")

    def prepare() -> None:
        for step in before:
            step(start)

    assert in_child(prepare)[0] == 0, in_child(prepare)[1]
    reference = folder / "reference"
    shutil.copytree(start, reference)
    status, said = in_child(lambda: verb(reference))
    assert status == 0, said
    wanted, total = tree(reference), int(said)
    violations: list[str] = []
    point = 0
    while True:
        point += 1
        root = folder / "run"
        shutil.copytree(start, root)

        def crash(root: Path = root, point: int = point) -> None:
            fsops.arm_failpoint(point)
            verb(root)

        status, said = in_child(crash)
        if status == 0:
            break
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            violations.append(f"point {point}: not killed but {said}")
        status, said = in_child(lambda root=root: check_and_resume(root, verb))
        if status:
            violations.append(f"point {point}: {said}")
        else:
            after = json.loads(said)
            violations += [f"point {point}: {what}" for what in after["damage"]]
            if name == "recaption" and after["acknowledged"] + after["made"] != total:
                violations.append(f"point {point}: a caption was lost or made twice: {after}")
            found = tree(root)
            if found != wanted:
                differ = sorted(
                    key for key in {*found, *wanted} if found.get(key) != wanted.get(key)
                )
                violations.append(f"point {point}: other bytes than without a crash: {differ[:6]}")
        shutil.rmtree(root)
    return {"verb": name, "points": point - 1, "violations": violations[:20]}


if __name__ == "__main__":
    print(json.dumps(sweep(sys.argv[1], Path(sys.argv[2]))))  # noqa: T201 - the result
