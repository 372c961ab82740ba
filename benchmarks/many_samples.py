"""What a store of many samples costs: planning what is missing, deciding, listing.

    python -m benchmarks.many_samples --shards 100 300 1000

The stores are made here through the real table writers (as in `benchmarks.decide`): shards of
10,000 samples, each with an alt text and a generated caption, no two the same, and the text check
of both; one check in a thousand is missing. The tars are empty files: nothing here opens them. Each
store is made, measured and deleted before the next.

    index     nothing has changed: every shard is looked at, none is read
    resume    `curator score --scorer text --generated`: finds the missing checks, and makes them
    again     the same once more: nothing is missing
    decide    `curator decide --policy replace`, which needs captions and checks
    log, show what versions there are, and what is in the newest

Each is the whole command in a process of its own. Reported are seconds, processor time, and the
peak memory of all its processes. Target: under 1 GiB, and time in proportion to the samples.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from benchmarks.common import MB, parser, run, scratch, show
from benchmarks.decide import make_store

_UNCHECKED = 0.001
_GIB = 2**30


def main() -> None:
    """Make the stores one after the other, run the commands, print the table."""
    options = parser(__doc__)
    options.add_argument("--shards", type=int, nargs="+", default=[100, 300, 1000])
    options.add_argument("--samples", type=int, default=10_000, help="a shard")
    args = options.parse_args()
    if args.quick:
        args.shards, args.samples = [2, 4], 200
    rows: list[list[str]] = []
    details: list[dict[str, Any]] = []
    for num_shards in args.shards:
        num = num_shards * args.samples
        with scratch() as folder:
            make_store(folder, num_shards, args.samples, with_scores=False, unchecked=_UNCHECKED)
            size = sum(path.stat().st_size for path in (folder / "store").rglob("*.parquet"))
            print(f"{num:,} samples, store {size / MB:,.0f} MB", flush=True)
            for name, command in _commands(folder).items():
                ended = run("-m", "curator", *command, "--store", folder / "store")
                details.append(
                    {
                        "samples": num,
                        "command": name,
                        "seconds": ended.seconds,
                        "cpu_seconds": ended.cpu_seconds,
                        "peak_bytes": ended.peak_bytes,
                        "store_bytes": size,
                    }
                )
                rows.append(
                    [
                        f"{num:,}",
                        name,
                        f"{ended.seconds:.1f}",
                        f"{ended.cpu_seconds:.1f}",
                        f"{ended.peak_bytes / MB:,.0f}",
                        f"{ended.cpu_seconds / num * 1e6:.1f}",
                        "met" if ended.peak_bytes < _GIB else "missed",
                    ]
                )
                print("  ".join(rows[-1]), flush=True)
            shutil.rmtree(folder / "store")
    columns = ["samples", "command", "s", "CPU s", "peak MB", "CPU s a million", "under 1 GiB"]
    show(columns, rows, args=args, details={"runs": details})


def _commands(folder: Path) -> dict[str, tuple[object, ...]]:
    data = folder / "data"
    resume = ("score", data, "--scorer", "text", "--generated")
    return {
        "index": ("index", data),
        "resume": resume,
        "again": resume,
        "decide": ("decide", data, "--policy", "replace"),
        "log": ("log", data),
        "show": ("show", data),
    }


if __name__ == "__main__":
    main()
