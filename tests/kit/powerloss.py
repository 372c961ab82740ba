"""Power loss: what may be on the disk at every write step of a verb, rebuilt at random.

Run as `python -m tests.kit.powerloss VERB FOLDER EVERY REBUILDS`; prints one JSON object.

The hook of `fsops` is called before each step. From the tree as it is then, and from which files
and folders were synced, follows what the disk has for sure; of everything else any part may be
there: a name or the one before it, and of the bytes behind the synced ones any sectors, zeros
where they are missing, and any length. The first rebuild of a point has nothing but what was
synced. Then the store is checked, the verb goes on, and its result is compared (design notes on
reliability, A.2, method 4; SQLite's test6).
"""

from __future__ import annotations

import json
import pickle
import random
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from curator.store import fsops
from tests.kit.crash_worker import VERBS, check_and_resume, in_child, make_shards, tree

SECTOR = 512
Inode = tuple[int, int]
Names = dict[str, Inode | None]
"""Path below the root -> file; None for a folder."""


@dataclass
class Point:
    """What is known before one write step."""

    what: str
    synced_names: Names
    names: Names
    synced: dict[Inode, bytes]
    content: dict[Inode, bytes]


@dataclass
class Recorder:
    """A hook that keeps a `Point` for each step. What is there at first is on the disk."""

    root: Path
    points: list[Point] = field(default_factory=list)
    names: Names = field(default_factory=dict)
    content: dict[Inode, bytes] = field(default_factory=dict)
    lives: dict[int, int] = field(default_factory=dict)
    last: tuple[str, str] = ("", "")

    def __post_init__(self) -> None:
        self._look()
        self.synced_names, self.synced = dict(self.names), dict(self.content)

    def __call__(self, operation: str, path: Path) -> None:
        before, had = self.names, self.content
        self._look()
        self._settle(before, had)
        self.last = (operation, path.relative_to(self.root).as_posix())
        self.points.append(
            Point(
                f"{operation} {path.name}",
                dict(self.synced_names),
                self.names,
                dict(self.synced),
                self.content,
            )
        )

    def _settle(self, before: Names, had: dict[Inode, bytes]) -> None:
        """What the last step, which is done now, brought to the disk."""
        operation, name = self.last
        inode = before.get(name)
        if operation == "fsync" and inode is not None:
            self.synced[inode] = had[inode]
        elif operation == "truncate" and inode is not None:
            self.synced[inode] = self.content[inode]
        elif operation == "fsync_dir":
            inside = {path: node for path, node in before.items() if _parent(path) == name}
            gone = [path for path in self.synced_names if _parent(path) == name]
            for path in gone:
                del self.synced_names[path]
            self.synced_names |= inside

    def _look(self) -> None:
        names: Names = {}
        content: dict[Inode, bytes] = {}
        alive = set()
        for path in sorted(self.root.rglob("*")):
            name = path.relative_to(self.root).as_posix()
            if path.is_dir():
                names[name] = None
                continue
            number = path.stat().st_ino
            alive.add(number)
            names[name] = inode = (number, self.lives.setdefault(number, 0))
            content[inode] = path.read_bytes()
        for number in self.lives:  # numbers are given again: that is another file then
            if number not in alive:
                self.lives[number] += 1
        self.names, self.content = names, content


def _parent(name: str) -> str:
    return name.rpartition("/")[0] or "."


def rebuild(point: Point, root: Path, generator: random.Random | None) -> None:
    """A disk after a power loss at `point`; without a generator, nothing but what was synced."""
    root.mkdir()
    for name in sorted({*point.synced_names, *point.names}):
        sides = [side for side in (point.synced_names, point.names) if generator or side is
                 point.synced_names]  # fmt: skip
        side = generator.choice(sides) if generator else sides[0]
        path = root / name
        if name not in side or not path.parent.is_dir():
            continue
        inode = side[name]
        if inode is None:
            path.mkdir()
        else:
            synced = point.synced.get(inode, b"")
            path.write_bytes(_torn(synced, point.content.get(inode, synced), generator))


def _torn(synced: bytes, now: bytes, generator: random.Random | None) -> bytes:
    if generator is None or len(now) <= len(synced):
        return synced
    assert now.startswith(synced), "files only grow between two syncs"
    size = generator.choice([len(now), generator.randrange(len(synced), len(now) + 1)])
    found = bytearray(now[:size])
    for start in range(len(synced) // SECTOR * SECTOR, size, SECTOR):
        if generator.random() < 0.5:
            first, last = max(start, len(synced)), min(start + SECTOR, size)
            found[first:last] = bytes(last - first)
    return bytes(found)


def sweep(name: str, folder: Path, every: int, rebuilds: int) -> dict[str, object]:
    """All points of a verb, or each `every`-th."""
    before, verb = VERBS[name]
    start, recorded = folder / "start", folder / "points"
    make_shards(start / "shards")

    def prepare() -> None:
        for step in before:
            step(start)

    def record() -> int:
        recorder = Recorder(start)
        fsops.set_step_hook(recorder)
        made = verb(start)
        fsops.set_step_hook(None)
        recorded.write_bytes(pickle.dumps(recorder.points))
        return made

    for work in (prepare, record):
        status, said = in_child(work)
        assert status == 0, said
    total, wanted = int(said), tree(start)
    points: list[Point] = pickle.loads(recorded.read_bytes())
    violations: list[str] = []
    tried = 0
    for number, point in enumerate(points):
        if number % every:
            continue
        least = 0
        for turn in range(rebuilds):
            root = folder / "run"
            rebuild(point, root, random.Random(f"{number} {turn}") if turn else None)
            for tar in (root / "shards").glob("*.tar"):  # its time is in the index
                shutil.copystat(start / "shards" / tar.name, tar)
            status, said = in_child(lambda root=root: check_and_resume(root, verb))
            tried += 1
            after = json.loads(said) if not status else {"damage": [said]}
            least = after.get("acknowledged", 0) if turn == 0 else least
            is_lost = least > after.get("acknowledged", 0)
            is_lost |= name == "recaption" and after["acknowledged"] != total - after["made"]
            found = tree(root)
            differ = {k for k in {*found, *wanted} if found.get(k) != wanted.get(k)}
            violations += [
                f"point {number} ({point.what}), rebuild {turn}: {what}"
                for what in (
                    *after["damage"],
                    *(["a caption was lost or made twice"] if is_lost else []),
                    *([f"other bytes: {sorted(differ)[:6]}"] if differ else []),
                )
            ]
            shutil.rmtree(root)
    return {"points": len(points), "tried": tried, "violations": violations[:20]}


if __name__ == "__main__":
    verb, folder, every, rebuilds = sys.argv[1:]
    print(json.dumps(sweep(verb, Path(folder), int(every), int(rebuilds))))  # noqa: T201 - the result
