"""Processes that edit: one to be killed at any moment, one to be killed before every write step.

python -m tests.kit.edit_worker write STORE SEED      edits until it dies, says what was
acknowledged python -m tests.kit.edit_worker sweep VERB FOLDER     as tests.kit.crash_worker; prints
one JSON object
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
from pathlib import Path

from curator.core.errors import ConflictError
from curator.edits import log as edit_log
from curator.edits.history import Draft, SampleRef, follow
from curator.store.store import Store


def write(root: Path, seed: int) -> None:
    """Edit random samples, forever. A line goes out only after `add` has returned."""
    store, generator, turn = Store.open(root), random.Random(seed), 0
    while True:
        turn += 1
        sample = SampleRef(
            shard=f"0000{generator.randrange(2)}",
            row=generator.randrange(20),
            key="k",
            image_sha256=None,
        )
        applied = follow(edit_log.history(store, sample.shard).in_effect(sample), "start")
        last = applied[-1] if applied else None
        draft = Draft(
            sample=sample,
            action="edit",
            base_text=last.result if last else "start",
            new_text=f"{seed}/{turn} " + "ü" * generator.randrange(300),
            seen=last.number if last else None,
        )
        with contextlib.suppress(ConflictError):  # another process was faster
            made = edit_log.add(store, draft, who=f"r{seed}")
            told = {"id": made.id, "edit": [made.base_text, made.new_text, made.who]}
            os.write(1, json.dumps(told).encode() + b"\n")


def sweep(verb: str, folder: Path) -> dict[str, object]:
    """All crash points of `edit` (add, add many, undo) or `apply`."""
    from curator.core.stopping import StopRequest
    from curator.policy.decider import read_decision
    from curator.steps.apply_edits import apply
    from tests.kit import crash_worker

    def sample(shard: str, row: int) -> tuple[Store, SampleRef, str]:
        store = crash_worker.workspace(root).store
        entry = next(e for e in store.version(1).shards if e.name == shard)
        found = read_decision(store, entry).row(row, named=True)
        where = SampleRef(
            shard=shard, row=row, key=found["key"], image_sha256=found["image_sha256"]
        )
        return store, where, found["text"]

    def edit(at: Path) -> int:
        nonlocal root
        root = at
        for number, action in enumerate(("edit", "reject", "accept")):
            store, where, text = sample("00000", number)
            if len(edit_log.history(store, "00000").edits) <= number:
                new = "by hand" if action == "edit" else None
                draft = Draft(sample=where, action=action, base_text=text, new_text=new)  # type: ignore[arg-type]  # one of the three
                edit_log.add(store, draft, who="Anna")
        with contextlib.suppress(ConflictError):  # taken back by the run that was killed
            edit_log.undo(store, "00000#2", who="Anna")
        store, where, text = sample("00001", 0)
        draft = Draft(sample=where, action="edit", base_text=text, new_text="all at once")
        if not edit_log.history(store, "00001").edits:
            edit_log.add_many(store, "00001", [draft], who="Ben", batch="r1")
        return 0

    def apply_all(at: Path) -> int:
        store = crash_worker.workspace(at).store
        apply(store, store.version(1), who="Anna", stop=StopRequest())
        return 0

    root = folder
    before = [crash_worker.do_recaption]
    crash_worker.VERBS["edit"] = (before, edit)
    crash_worker.VERBS["apply"] = ([*before, edit], apply_all)
    return crash_worker.sweep(verb, folder)


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        print(json.dumps(sweep(sys.argv[2], Path(sys.argv[3]))))  # noqa: T201 - the result
