"""What the benchmarks share: options, interleaved repeats, watched processes, made-up shards.

A benchmark compares ways to do the same work ("arms"). Arms take turns, and every round starts
with another one, so that a busy neighbour hits all of them; reported are medians, the spread
(lowest to highest), and medians of the ratios within a round.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from curator.tarfiles import END_OF_ARCHIVE, member_bytes

MB = 1_000_000
REPOSITORY = Path(__file__).resolve().parents[1]
_POLL_SEC = 0.05
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


# -- options and results --------------------------------------------------------------------------


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    options = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all?")
    options.add_argument("--repeats", type=int, help="rounds; default 5, with --quick 1")
    options.add_argument("--json", type=Path, metavar="FILE", help="also write the results here")
    return options


def num_rounds(args: argparse.Namespace, default: int = 5) -> int:
    """How many rounds were asked for."""
    return int(args.repeats or (1 if args.quick else default))


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is gone afterwards; TMPDIR says on which disk."""
    with tempfile.TemporaryDirectory(prefix="curator-benchmark-") as folder:
        yield Path(folder)


def show(
    name: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    args: argparse.Namespace,
    details: Mapping[str, object],
) -> None:
    """Print a table; with `--json` write it together with `details` (raw numbers)."""
    cells = [list(columns), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        first, *rest = (cell.ljust(w) if i == 0 else cell.rjust(w)
                        for i, (cell, w) in enumerate(zip(row, widths, strict=True)))  # fmt: skip
        print("  ".join([first, *rest]))
    load = "load before and after: {:.1f}, {:.1f}".format(*_load)
    print(f"{load}, {os.cpu_count()} cores; Python {platform.python_version()}")
    if args.json is not None:
        body = {
            "benchmark": name,
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "options": {key: str(value) for key, value in vars(args).items() if key != "json"},
            "cores": os.cpu_count(),
            "load": _load,
            "columns": list(columns),
            "rows": [[str(cell) for cell in row] for row in rows],
            "details": details,
        }
        args.json.write_text(json.dumps(body, indent=1) + "\n")


class _Load:
    """The load average when this module was imported and now: how quiet the machine was."""

    def __init__(self) -> None:
        self.before = os.getloadavg()[0]

    def __iter__(self) -> Iterator[float]:
        return iter((self.before, os.getloadavg()[0]))


_load = list(_Load())
