"""What the benchmarks share: options, rounds, watched processes, made-up shards, tables.

A benchmark compares ways to do the same work. The ways take turns, and every round starts with
another one, so that a busy neighbour hits all of them. Reported are medians, the spread (lowest
to highest), and the median of the ratios within a round.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from curator.shards.tar import END_OF_ARCHIVE, member_bytes

MB = 1_000_000
REPOSITORY = Path(__file__).resolve().parents[1]

WORDS = "man woman dog cat child street beach tree red blue old small runs sits".split()  # noqa: SIM905 - reads better

_POLL_SEC = 0.05
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_A_SEC = os.sysconf("SC_CLK_TCK")


# -- options and results --------------------------------------------------------------------------


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    options = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all?")
    options.add_argument("--repeats", type=int, help="rounds; default 5, with --quick 1")
    options.add_argument("--json", type=Path, metavar="FILE", help="also write the results here")
    options.set_defaults(load_before=os.getloadavg()[0])
    return options


def rounds(args: argparse.Namespace) -> int:
    """How many rounds were asked for."""
    return int(args.repeats or (1 if args.quick else 5))


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is gone afterwards; TMPDIR says on which disk."""
    with tempfile.TemporaryDirectory(prefix="curator-benchmark-") as folder:
        yield Path(folder)


def take_turns(ways: Mapping[str, Callable[[], float]], num_rounds: int) -> dict[str, list[float]]:
    """Run every way once a round; each returns what it measured."""
    names = list(ways)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(num_rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            found[name].append(ways[name]())
    return found


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of the ratios within a round."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def spread(values: Sequence[float], digits: int = 1) -> str:
    """`median (lowest to highest)`."""
    middle = statistics.median(values)
    return f"{middle:,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def show(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    args: argparse.Namespace,
    details: Mapping[str, Any],
) -> None:
    """Print a table; with `--json` write it together with `details`, the raw numbers."""
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        print("  ".join([row[0].ljust(widths[0]), *rest]))
    load = {"before": args.load_before, "after": os.getloadavg()[0]}
    where = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"\n{where}; load {load['before']:.1f} before, {load['after']:.1f} after")
    if args.json is not None:
        body = {
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "machine": where,
            "load": load,
            "options": {key: str(value) for key, value in vars(args).items() if key != "json"},
            "rows": [dict(zip(columns, row, strict=True)) for row in rows],
            "details": dict(details),
        }
        args.json.write_text(json.dumps(body, indent=1) + "\n")


# -- watched processes ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that ended well. `peak_bytes` is the largest sum of the resident memory of the
    process and all its children, looked at every 50 ms; shared pages count in each of them.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    stdout: str

    def last_json(self) -> dict[str, Any]:
        """The last line of its output."""
        found: dict[str, Any] = json.loads(self.stdout.splitlines()[-1])
        return found


def run(*command: object) -> Finished:
    """Run `python COMMAND...` in the repository and watch it.

    Raises:
        SystemExit: it failed; its stderr is shown.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start = time.perf_counter()
        before = _children_cpu_seconds()
        child = subprocess.Popen(
            [sys.executable, *map(str, command)], stdout=out, stderr=err, cwd=REPOSITORY
        )
        peak = 0
        while child.poll() is None:
            peak = max(peak, sum(map(_resident_bytes, tree(child.pid))))
            time.sleep(_POLL_SEC)
        seconds = time.perf_counter() - start
        out.seek(0)
        err.seek(0)
        if child.returncode:
            raise SystemExit(f"{' '.join(map(str, command))}:\n{err.read()}")
        return Finished(seconds, _children_cpu_seconds() - before, peak, out.read())


def _children_cpu_seconds() -> float:
    """Processor time of all children that ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def tree(pid: int) -> list[int]:
    """A process and all its descendants; those that ended are left out."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{parent}/task"):
                children = Path(f"/proc/{parent}/task/{thread}/children").read_text()
                found += map(int, children.split())
    return found


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and its living descendants so far, user and system."""
    total = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / _TICKS_A_SEC


def _resident_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    return 0


class Laps:
    """When batches were finished: the steady part of a run, without start-up and shutdown."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._laps: list[tuple[int, float, float]] = []

    def lap(self, num_samples: int) -> None:
        """A batch is finished."""
        now, cpu = time.perf_counter(), cpu_seconds(os.getpid())
        self._laps.append((num_samples, now, cpu))

    def summary(self) -> dict[str, float]:
        """Milliseconds a sample between the end of the first and the end of the last batch."""
        (_, first, first_cpu), *rest = self._laps
        num_samples = sum(lap[0] for lap in rest)
        _, last, last_cpu = rest[-1]
        return {
            "wall_ms": (last - first) / num_samples * 1000,
            "cpu_ms": (last_cpu - first_cpu) / num_samples * 1000,
            "start_sec": first - self._began,
            "num_samples": num_samples,
        }


# -- made-up shards -------------------------------------------------------------------------------


def write_shards(
    folder: Path, *, num_shards: int, num_samples: int, side_px: int, seed: int = 0
) -> int:
    """Write shards of `num_samples` JPEGs of noise each, with .txt and .json; return the bytes.

    Noise of `side_px` pixels at quality 75 takes about 0.75 bytes a pixel. All images differ, by
    a number in a comment segment: encoding them all would take longer than the benchmark.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pictures = [_noise(rng, side_px) for _ in range(16)]
    total = 0
    for shard in range(num_shards):
        parts = []
        for row in range(num_samples):
            number = shard * num_samples + row
            key, text = f"{number:09d}", " ".join([*rng.choice(WORDS, 8), str(number)])
            fields = {"key": key, "caption": text, "width": side_px, "height": side_px}
            parts.append(member_bytes(f"{key}.jpg", _numbered(pictures[number % 16], number)))
            parts.append(member_bytes(f"{key}.txt", text.encode()))
            parts.append(member_bytes(f"{key}.json", json.dumps(fields).encode()))
        data = b"".join([*parts, END_OF_ARCHIVE])
        (folder / f"{shard:05d}.tar").write_bytes(data)
        total += len(data)
    return total


def _noise(rng: np.random.Generator, side_px: int) -> bytes:
    out = io.BytesIO()
    pixels = rng.integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "JPEG", quality=75)
    return out.getvalue()


def _numbered(jpeg: bytes, number: int) -> bytes:
    """The picture with its number in a comment segment behind the start marker (ITU T.81 B.2)."""
    comment = b"%012d" % number
    return jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:]
