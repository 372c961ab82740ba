"""Bandwidth of `index` over s3://, against a plain obstore read of the same shards.

    python -m benchmarks.object_store
    python -m benchmarks.object_store --rate 100        # a network of 100 MB/s

Made-up shards (see `common.write_shards`) behind localbucket, an S3 server in a process of its own
on this machine, which takes a part of the same cores.

    index        `curator index` of an empty store with an empty cache: every shard fetched to the
                 local disk, fsynced, scanned and hashed, the next ones fetched meanwhile
    index again  the same store once more: one listing, no shard fetched
    read         obstore alone: `get(...).bytes()` of each shard, four at once, thrown away
    disk         `curator index` of the same shards from disk
    page         24 images of 24 places by merged ranges, as a page of the dashboard reads them

`--rate` limits what the server sends in all, as a network would. Target: index at least 0.8 of read
where the network is the limit; where it is not, `disk`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import obstore
from obstore.store import S3Store

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
from curator.browse.thumbnails import Thumbnails
from curator.core.stopping import StopRequest
from curator.shards import cache
from curator.shards.scan import ScanOptions
from curator.steps.index import make_index
from curator.steps.workspace import open_workspace

_BUCKET = "bench"
_AT_ONCE = 4
_ALL_BYTES = ("read", "index", "disk")


def main() -> None:
    """Make the shards, serve them, measure, print the table."""
    options = parser(__doc__)
    options.add_argument("--shards", type=int, default=12)
    options.add_argument("--samples", type=int, default=300, help="a shard")
    options.add_argument("--side", type=int, default=370, help="of the images, in pixels")
    options.add_argument("--rate", type=float, default=0, help="of the server, MB/s; 0: no limit")
    options.add_argument("--serve", type=Path, help="(used by itself: be the server)")
    args = options.parse_args()
    if args.serve:
        _serve(args.serve, args.rate)
        return
    if args.quick:
        args.shards, args.samples, args.side = 2, 20, 64
    with scratch() as folder:
        data = folder / "buckets" / _BUCKET
        size = write_shards(
            data, num_shards=args.shards, num_samples=args.samples, side_px=args.side
        )
        with _server(folder / "buckets", args.rate) as endpoint:
            os.environ.update(
                AWS_ENDPOINT_URL=endpoint,
                AWS_ACCESS_KEY_ID="benchmark",
                AWS_SECRET_ACCESS_KEY="benchmark",
                AWS_REGION="us-east-1",
                CURATOR_CACHE_DIR=str(folder / "cache"),
            )
            found = take_turns(_ways(folder, data), rounds(args))
    rows = [
        [
            name,
            spread(seconds, 2),
            spread([size / MB / one for one in seconds], 0) if name in _ALL_BYTES else "",
            f"{1 / ratio(seconds, found['read']):.2f}" if name in _ALL_BYTES else "",
        ]
        for name, seconds in found.items()
    ]
    print(f"{size / MB:,.0f} MB in {args.shards} shards, rate {args.rate or 'not limited'} MB/s")
    columns = ["what", "s", "MB/s", "speed of read"]
    show(columns, rows, args=args, details={"size_bytes": size, "seconds": found})


def _ways(folder: Path, data: Path) -> dict[str, Callable[[], float]]:
    number = count()
    stop = StopRequest()
    store = S3Store(_BUCKET, client_options={"allow_http": True, "timeout": "1h"})
    keys = [path.name for path in sorted(data.glob("*.tar"))]
    last: list[Path] = []

    def index(spec: str, where: Path) -> float:
        start = time.perf_counter()
        make_index(open_workspace(spec, where, create=True), ScanOptions(), stop=stop)
        return time.perf_counter() - start

    def from_s3() -> float:
        cache.close()
        shutil.rmtree(folder / "cache", ignore_errors=True)
        last[:] = [folder / f"store{next(number)}"]
        return index(f"s3://{_BUCKET}", last[0])

    def again() -> float:
        if not last:
            from_s3()
        return index(f"s3://{_BUCKET}", last[0])

    def read() -> float:
        start = time.perf_counter()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda key: len(obstore.get(store, key).bytes()), keys))
        return time.perf_counter() - start

    def page() -> float:
        if not last:
            from_s3()
        ws = open_workspace(f"s3://{_BUCKET}", last[0])
        places = [(ref.name, 7 * step) for step, ref in enumerate(ws.shards * 24)][:24]
        num_rows = {ref.name: 20 for ref in ws.shards}
        start = time.perf_counter()
        Thumbnails(ws).many([(shard, row % num_rows[shard]) for shard, row in places])
        return time.perf_counter() - start

    return {
        "read": read,
        "index": from_s3,
        "index again": again,
        "disk": lambda: index(str(data), folder / f"store{next(number)}"),
        "page": page,
    }


@contextmanager
def _server(root: Path, rate: float) -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.object_store", "--serve", root, "--rate", rate]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def _serve(root: Path, rate: float) -> None:
    import localbucket  # a package of the tests

    class Handler(localbucket.S3Handler):  # type: ignore[misc]  # it has no types
        """localbucket, at most so fast."""

        data_root = root

        def setup(self) -> None:
            super().setup()
            if rate:
                self.wfile = _Limited(self.wfile, rate)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    localbucket.logger.disabled = True
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


class _Limited:
    """A file that lets all its like together write `rate` MB/s."""

    _lock = threading.Lock()
    _free_at = 0.0

    def __init__(self, file: Any, rate: float) -> None:
        self._file = file
        self._bytes_a_sec = rate * MB

    def write(self, data: bytes) -> int:
        with _Limited._lock:
            now = time.monotonic()
            _Limited._free_at = max(now, _Limited._free_at) + len(data) / self._bytes_a_sec
            wait = _Limited._free_at - now
        time.sleep(wait)
        return int(self._file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


if __name__ == "__main__":
    main()
