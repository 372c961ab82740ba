"""How busy a captioning server is kept, and what its deaths cost.

    python -m benchmarks.server
    python -m benchmarks.server --sizes 5000 50000 --repeats 1        # memory
    python -m benchmarks.server --chaos

A server process of its own (tests/kit/model_server.py) answers after 1 s and has room for 256
requests, so it can give 256 answers a second; the others wait. The same shards of little pictures
(64 px) are captioned by

    curator     `curator recaption --captioner server --policy replace`, requests at once found out
    curator 256 the same with `--concurrency 256`
    script      what anybody would write: aiohttp, 256 at once, one decode an image, no store
    datatrove   its inference runner with the same images (`--datatrove PYTHON` of an environment
                that has it; datatrove_arm.py says how)

Two figures: answers a second from the first answer to the last, counted at the server, as a share
of 256; and the same for the whole command with its start (which also indexes and decides). Peak is
the largest sum of the resident memory of all processes of the client.

`--chaos`: 5,000 images, 20 ms latency; the server dies ten times by itself, and three images kill
it. Counts the answers per image at the server.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.common import (
    MB,
    REPOSITORY,
    Finished,
    parser,
    rounds,
    run,
    scratch,
    show,
    spread,
    take_turns,
    write_shards,
)

_ROOM = 256
_TARGET = 0.95


def main() -> None:
    """Make the shards, run every arm over them, print the table."""
    options = parser(__doc__)
    options.add_argument("--sizes", type=int, nargs="+", default=[20_000])
    options.add_argument("--latency", type=float, default=1.0)
    options.add_argument("--arms", nargs="+", default=["curator", "curator 256", "script"])
    options.add_argument("--datatrove", metavar="PYTHON", help="of an environment that has it")
    options.add_argument("--chaos", action="store_true")
    options.set_defaults(repeats=1)
    args = options.parse_args()
    if args.quick:
        args.sizes, args.latency = [400], 0.1
    if args.datatrove:
        args.arms.append("datatrove")
    with scratch() as folder:
        if args.chaos:
            _chaos(folder, 400 if args.quick else 5_000)
            return
        for size in args.sizes:
            write_shards(
                folder / str(size),
                num_shards=-(-size // 1000),
                num_samples=min(size, 1000),
                side_px=64,
            )
        details: dict[str, list[dict[str, float]]] = {}

        def share(arm: str, size: int) -> float:
            store, log = folder / "store", folder / "log"
            with _server(log, "--latency", args.latency, "--room", _ROOM) as url:
                ended = _run(arm, folder / str(size), url, store, args.datatrove)
            shutil.rmtree(store, ignore_errors=True)
            times = [float(line.split()[2]) for line in log.read_text().splitlines()]
            log.unlink()
            can = _ROOM / args.latency
            # from when the first was sent: its answer takes the latency
            busy_sec = times[-1] - times[0] + args.latency
            found = {
                "answers": len(times),
                "share": len(times) / busy_sec / can,
                "share_of_command": len(times) / ended.seconds / can,
                "seconds": ended.seconds,
                "peak_mb": ended.peak_bytes / MB,
            }
            details.setdefault(f"{arm}, {size:,}", []).append(found)
            return found["share"]

        take_turns(
            {f"{arm}, {size:,}": partial(share, arm, size) for size in args.sizes
             for arm in args.arms},
            rounds(args),
        )  # fmt: skip
    rows = []
    for name, found in details.items():
        values = {key: [one[key] for one in found] for key in found[0]}
        rows.append(
            (
                name,
                f"{statistics.median(values['answers']):,.0f}",
                spread(values["share"], 3),
                spread(values["share_of_command"], 3),
                spread(values["seconds"]),
                spread(values["peak_mb"], 0),
            )
        )
    columns = ("arm, images", "answers", "share", "share, whole command", "s", "peak MB")
    show(columns, rows, args=args, details=details)
    print(f"target: a share of {_TARGET}, the same peak for ten times the images")


def _run(arm: str, shards: Path, url: str, store: Path, datatrove: str | None) -> Finished:
    if arm == "script":
        return run("-m", "benchmarks.server_script", shards, url)
    if arm == "datatrove":
        return run("-m", "benchmarks.server_datatrove", datatrove, shards, url)
    extra = ("--concurrency", _ROOM) if arm == "curator 256" else ()
    asked = ("--captioner", "server", "--model", "m", "--url", url, "--policy", "replace")
    return run("-m", "curator", "recaption", shards, "--store", store, *asked, *extra)


@contextlib.contextmanager
def _server(log: Path, *more: object) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.kit.model_server", "--log", log, *more]
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    ) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        process.send_signal(signal.SIGTERM)


def _chaos(folder: Path, size: int) -> None:
    shards, log = folder / "shards", folder / "log"
    write_shards(shards, num_shards=-(-size // 1000), num_samples=min(size, 1000), side_px=64)
    images = _images(shards)
    killers = [images[len(images) * place // 100] for place in (20, 21, 70)]
    more = ("--die-after", size // 15, "--deaths", 10, "--poison", ",".join(killers))
    began = time.monotonic()
    with _server(log, "--latency", 0.02, "--room", 64, "--away", 1, *more) as url:
        asked = ("--captioner", "server", "--model", "m", "--url", url, "--policy", "replace")
        ended = run("-m", "curator", "recaption", shards, "--store", folder / "s", *asked, "--json")
    counts = collections.Counter(line.split()[0] for line in log.read_text().splitlines())
    print(f"{size:,} images, {time.monotonic() - began:.0f} s: {ended.last_json()['captioned']}")
    print(f"answers an image -> images: {dict(collections.Counter(counts.values()))}")
    missing = set(images) - set(counts)
    print(f"never answered: {len(missing)}, the images that kill: {missing == set(killers)}")


def _images(shards: Path) -> list[str]:
    """The sha256 of each image, in order, each once."""
    found: dict[str, None] = {}
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".jpg"):
                    data = tar.extractfile(member)
                    assert data is not None
                    found[hashlib.sha256(data.read()).hexdigest()] = None
    return list(found)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
