"""What a question costs: `curator query`, from its start to its end, and a waiting process.

    python -m benchmarks.query [--other CHECKOUT]

The store has made-up rows of samples, and is asked for their number.

    curator query    the command: it finds the shards, starts the process of the query, prints
    plain            the least that anybody does: a script that loads DuckDB and Arrow, and counts
                     the rows of the same files
    dashboard        a query process that was started before, as the dashboard keeps one
    other            `curator query` of another checkout, such as the version before

Seconds of waiting, and of processor time of all processes. Target: `curator query` in 0.5 s.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.common import REPOSITORY, parser, ratio, rounds, scratch, show, spread, take_turns
from benchmarks.decide import make_store
from curator.query.run import QueryProcess

SQL = "select count(*) as n from samples"
_TARGET_SEC = 0.5
_READY_SEC = 3.0
"""More than the start of a query process takes."""
_PLAIN = """
import sys
import duckdb, pyarrow.dataset
samples = pyarrow.dataset.dataset(sys.argv[1], format="parquet")
print(duckdb.sql("select count(*) as n from samples").fetchall())
"""


def main() -> None:
    """Make the store, ask, print the table."""
    options = parser(__doc__)
    options.add_argument("--shards", type=int, default=100)
    options.add_argument("--samples", type=int, default=1000, help="a shard")
    options.add_argument("--other", type=Path, help="folder with another checkout of the project")
    args = options.parse_args()
    if args.quick:
        args.shards, args.samples = 2, 50
    cpu: dict[str, list[float]] = {}
    with scratch() as folder:
        ws = make_store(folder, args.shards, args.samples)

        def timed(name: str, ask: Callable[[], object]) -> float:
            before = _cpu_sec()
            start = time.perf_counter()
            ask()
            seconds = time.perf_counter() - start
            cpu.setdefault(name, []).append(_cpu_sec() - before)
            return seconds

        def command(where: Path) -> None:
            asked = ["-m", "curator", "query", folder / "data", SQL, "--store", folder / "store"]
            done = _python(where, *asked)
            assert f"{args.shards * args.samples:,}" in done, done

        def plain() -> None:
            done = _python(REPOSITORY, "-c", _PLAIN, folder / "store" / "index")
            assert str(args.shards * args.samples) in done, done

        def waiting() -> float:
            with QueryProcess() as process:
                time.sleep(_READY_SEC)
                shards = [ref.name for ref in ws.shards]
                return timed("dashboard", lambda: process.run(ws.store, SQL, shards=shards))

        ways: dict[str, Callable[[], float]] = {
            "curator query": lambda: timed("curator query", lambda: command(REPOSITORY)),
            "plain": lambda: timed("plain", plain),
            "dashboard": waiting,
        }
        if args.other:
            ways["other"] = lambda: timed("other", lambda: command(args.other))
        seconds = take_turns(ways, rounds(args))
    rows = [
        [
            name,
            spread(found, 2),
            spread(cpu[name], 2) if name != "dashboard" else "",
            f"{ratio(found, seconds['plain']):.2f}",
            "met" if statistics.median(found) <= _TARGET_SEC else "missed",
        ]
        for name, found in seconds.items()
    ]
    columns = ["what", "seconds", "CPU seconds", "to plain", f"target {_TARGET_SEC} s"]
    show(columns, rows, args=args, details={"seconds": seconds, "cpu_sec": cpu})


def _python(where: Path, *arguments: object) -> str:
    env = os.environ | {"PYTHONPATH": str(where)}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=where,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def _cpu_sec() -> float:
    """Processor time of all processes that this one waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
