"""Rates in a process of its own, for the tests of `curator.ratings.log`.

    python -m tests.kit.rating_worker rate STORE WHO NUM    rates, a line for each acknowledged
    answer python -m tests.kit.rating_worker sweep STORE           dies before each write step of
    one rating

`sweep` prints, for each step, whether the answer was acknowledged before the process died.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from pathlib import Path

from curator.ratings import log as rating_log
from curator.store import fsops
from curator.store.store import Store


def shown(number: int) -> rating_log.ShownPair:
    """The question of this number."""
    return rating_log.ShownPair(
        image_sha256=f"{number:064x}", left=f"left {number}", right="right", shard="0", key=None
    )


def say(values: list[object]) -> None:
    """One line of JSON, out at once."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def rate(store: Store, who: str, num: int) -> None:
    """Answer questions 0, 1, 2, ..., each first with `left`, then with `right`."""
    answers: tuple[rating_log.Answer, ...] = ("left", "right")
    for number in range(num):
        for answer in answers:
            kept = rating_log.add(store, shown(number), answer, who)
            say([kept.item, kept.nth, kept.answer])


def sweep(store: Store) -> None:
    """Rate question k in a child that dies before step k, until one lives to the end."""
    for step in itertools.count(1):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            fsops.arm_failpoint(step)
            rating_log.add(store, shown(step), "left", "Anna")
            os.write(writing, b"kept")
            os._exit(0)
        os.close(writing)
        acknowledged = os.read(reading, 4) == b"kept"
        os.close(reading)
        _, status = os.waitpid(child, 0)
        say([step, acknowledged, os.WIFSIGNALED(status)])
        if acknowledged:
            return


def main() -> None:
    """What the command line says."""
    what, root, *rest = sys.argv[1:]
    store = Store.create(Path(root))
    if what == "rate":
        rate(store, rest[0], int(rest[1]))
    else:
        sweep(store)


if __name__ == "__main__":
    main()
