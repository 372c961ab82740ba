"""Bandwidth of what moves whole shards: index and export, against `cat` and a bare SHA-256.

    python -m benchmarks.bandwidth

Made-up shards of JPEGs of about 100 KB with .txt and .json (see `common.write_shards`), read from
the page cache: what is compared is work, not a disk.

    index       every shard read, image by image: headers, alt texts, SHA-256 of every byte once,
                for its image and for the shard; one Parquet table a shard. One process
    sha256sum   the command, over the same files
    openssl     SHA-256 by hashlib, with the processor's instructions for it where it has them:
                what `index` cannot do without
    export      `curator export` of a version that keeps all: images read and hashed again, their
                .json extended, tars written, hashed and fsynced
    copy        `cat shards > file` and fsync

`cat` reads into /dev/null. Target: index at 0.95 of the bandwidth of `sha256sum` or more.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

from benchmarks.common import (
    MB,
    parser,
    ratio,
    rounds,
    scratch,
    show,
    spread,
    take_turns,
    write_shards,
)
from curator.core.stopping import StopRequest
from curator.export.version import export
from curator.policy.model import parse_policy
from curator.shards.scan import ScanOptions
from curator.steps.decide import MakerChoice, decide
from curator.steps.index import make_index
from curator.steps.workspace import Workspace, open_workspace

_KEEP = 'name = "keep"\nsources = ["alt_text"]\npick = "first"\n'


def main() -> None:
    """Make the shards, measure, print the table."""
    options = parser(__doc__)
    options.add_argument("--shards", type=int, default=5)
    options.add_argument("--samples", type=int, default=1000, help="a shard")
    options.add_argument("--side", type=int, default=370, help="of the images, in pixels")
    args = options.parse_args()
    if args.quick:
        args.shards, args.samples, args.side = 2, 20, 64
    with scratch() as folder:
        data = folder / "data"
        size = write_shards(
            data, num_shards=args.shards, num_samples=args.samples, side_px=args.side
        )
        found = take_turns(_ways(folder, data), rounds(args))
    num_samples = args.shards * args.samples
    rows = []
    for name, seconds in found.items():
        floor = "copy" if name in ("export", "copy") else "cat"
        rows.append(
            [
                name,
                spread([size / MB / one for one in seconds], 0),
                f"{ratio(seconds, found[floor]):.1f} x {floor}",
                f"{ratio(found['sha256sum'], seconds):.2f}",
                f"{ratio(found['openssl'], seconds):.2f}",
                spread([one / num_samples * 1e6 for one in seconds], 0),
            ]
        )
    print(f"{size / MB:,.0f} MB, {num_samples:,} samples of {size / num_samples / 1000:.0f} KB")
    columns = ["what", "MB/s", "time to", "of sha256sum", "of openssl", "us a sample"]
    show(columns, rows, args=args, details={"size_bytes": size, "seconds": found})


def _ways(folder: Path, data: Path) -> dict[str, Callable[[], float]]:
    tars = sorted(data.glob("*.tar"))
    number = count()
    stop = StopRequest()
    kept = _indexed(data, folder / "kept")
    version, _ = decide(kept, parse_policy(_KEEP, where="benchmark"), MakerChoice(), stop=stop)

    def index() -> float:
        ws = open_workspace(str(data), folder / f"store{next(number)}", create=True)
        start = time.perf_counter()
        make_index(ws, ScanOptions(), stop=stop)
        return time.perf_counter() - start

    def write() -> float:
        out = folder / "out"
        start = time.perf_counter()
        export(kept.store, kept.shards, version, out, to="wds")
        seconds = time.perf_counter() - start
        shutil.rmtree(out)
        return seconds

    def copy() -> float:
        out = folder / "copy"
        start = time.perf_counter()
        with out.open("wb") as file:
            subprocess.run(["cat", *tars], stdout=file, check=True)
            os.fsync(file.fileno())
        seconds = time.perf_counter() - start
        out.unlink()
        return seconds

    return {
        "index": index,
        "cat": lambda: _read_by("cat", tars),
        "sha256sum": lambda: _read_by("sha256sum", tars),
        "openssl": lambda: _sha256(tars),
        "export": write,
        "copy": copy,
    }


def _indexed(data: Path, store: Path) -> Workspace:
    ws = open_workspace(str(data), store, create=True)
    make_index(ws, ScanOptions(), stop=StopRequest())
    return ws


def _read_by(command: str, paths: Sequence[Path]) -> float:
    start = time.perf_counter()
    subprocess.run([command, *paths], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def _sha256(paths: Sequence[Path]) -> float:
    start = time.perf_counter()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256")
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
