"""Ten processes over slices of one dataset, killed at random and started again, then merged.

    python -m benchmarks.slices --minutes 5

Each slice is a real `curator recaption --shard-slice I/N` with the captioner `echo`, in a store of
its own, killed by SIGKILL at random moments and started again. When all have ended, the stores are
merged in a random order and decided, and the result must have the bytes of the store of one
undisturbed process: captions, index, decisions and version, and the same scores. Then the next
round begins with empty stores, until the minutes are over; in the last one nothing is killed after
that.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import polars as pl

from benchmarks.common import parser, scratch, show, write_shards
from curator.store import parquet
from curator.store.schemas import SCORE_SCHEMA

os.environ["SOURCE_DATE_EPOCH"] = "1700000000"


def main() -> None:
    """Make the shards, kill, merge, compare."""
    options = parser(__doc__)
    options.add_argument("--minutes", type=float, default=5)
    options.add_argument("--slices", type=int, default=10)
    options.add_argument("--shards", type=int, default=30)
    options.add_argument("--samples", type=int, default=200, help="a shard")
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args()
    if args.quick:
        args.minutes, args.slices, args.shards, args.samples = 0.1, 3, 6, 20
    generator = random.Random(args.seed)
    kills = rounds = 0
    with scratch() as folder:
        write_shards(
            folder / "shards", num_shards=args.shards, num_samples=args.samples, side_px=32
        )
        whole = folder / "whole"
        _curator("recaption", folder, whole, *_WORK).wait()
        wanted = _facts(whole)
        end = time.monotonic() + 60 * args.minutes
        while time.monotonic() < end:
            rounds += 1
            kills += _round(folder, args.slices, end, generator)
            merged = folder / "merged"
            stores = [folder / f"slice{number}" for number in range(args.slices)]
            generator.shuffle(stores)
            _run("merge", folder, merged, *stores)
            _run("decide", folder, merged, "--policy", "replace")
            found = _facts(merged)
            if found != wanted:
                differ = sorted(
                    name for name in {*found, *wanted} if found.get(name) != wanted.get(name)
                )
                raise SystemExit(f"round {rounds}: other bytes, {len(differ)} files: {differ[:5]}")
            for place in (merged, *stores):
                shutil.rmtree(place)
    row = [f"{args.slices}", f"{rounds}", f"{kills}", f"{len(wanted)}", "0"]
    columns = ["slices", "rounds", "kills", "files compared", "files that differ"]
    show(columns, [row], args=args, details={"kills": kills, "rounds": rounds})


_WORK = ("--captioner", "echo", "--policy", "replace", "--batch-size", "8")


def _round(folder: Path, num_slices: int, end: float, generator: random.Random) -> int:
    """Work on all slices until they are done, and kill one now and then; return the kills."""

    def start(number: int) -> subprocess.Popen[bytes]:
        part = ("--shard-slice", f"{number}/{num_slices}")
        return _curator("recaption", folder, folder / f"slice{number}", *_WORK, *part)

    running = {number: start(number) for number in range(num_slices)}
    kills = 0
    left = dict.fromkeys(running, 6)  # else a slice on a slow machine would never end
    while running:
        time.sleep(generator.uniform(0, 1.5))
        number = generator.choice(sorted(running))
        if running[number].poll() is None and left[number] and time.monotonic() < end:
            running[number].kill()
            left[number] -= 1
            kills += 1
        for one in sorted(running):
            code = running[one].poll()
            if code is not None and code > 0:
                raise SystemExit(f"slice {one} failed by itself with {code}")
            if code == 0:
                del running[one]
            elif code is not None:
                running[one] = start(one)
    return kills


def _curator(verb: str, folder: Path, store: Path, *more: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "curator", verb, folder / "shards", *more, "--store", store]
    quiet = subprocess.DEVNULL
    return subprocess.Popen([*map(str, command)], stdout=quiet, stderr=quiet)


def _run(verb: str, folder: Path, store: Path, *more: object) -> None:
    if code := _curator(verb, folder, store, *more).wait():
        raise SystemExit(f"`curator {verb}` failed with {code}")


def _facts(store: Path) -> dict[str, object]:
    """The bytes of every file of captions, indexes, decisions and versions; scores as facts.

    A text that occurs in two slices is scored in each: there the distinct facts are compared.
    """
    found: dict[str, object] = {
        path.relative_to(store).as_posix(): path.read_bytes()
        for name in ("facts/captions", "index", "captions", "versions")
        for path in (store / name).rglob("*")
        if path.is_file() and not path.name.startswith(".tmp-")
    }
    for scorer in sorted((store / "facts" / "scores").iterdir()):
        tables = [parquet.read(path, SCORE_SCHEMA) for path in scorer.rglob("*.parquet")]
        rows = pl.concat(tables).rows()
        found[f"facts/scores/{scorer.name}"] = sorted(set(map(repr, rows)))
    return found


if __name__ == "__main__":
    main()
