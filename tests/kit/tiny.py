"""Tiny models for the contract suites: what the column `tiny` of CAPTIONERS and SCORERS names.

Each is a context manager: an empty folder in, the options out that the class is built with.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.kit import tinymodels
from tests.kit.captions import tiny_folder
from tests.kit.paths import STUB_SERVER
from tests.kit.tinyclip import save_tiny_clip

Options = dict[str, object]


@contextmanager
def local(folder: Path) -> Iterator[Options]:
    yield {"model": tiny_folder(folder, "smolvlm"), "device": "cpu"}


@contextmanager
def coca(folder: Path) -> Iterator[Options]:
    yield {"model": tiny_folder(folder, "coca"), "device": "cpu"}


@contextmanager
def server(_folder: Path) -> Iterator[Options]:
    command = [sys.executable, str(STUB_SERVER)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        yield {"model": "tiny", "url": url}
        process.kill()


@contextmanager
def clip(folder: Path) -> Iterator[Options]:
    model = str(save_tiny_clip(folder / "tiny-clip"))
    yield {"model": model, "device": "cpu", "batch_size": 4, "decode_workers": 2}


@contextmanager
def judge(folder: Path) -> Iterator[Options]:
    yield {"model": str(tinymodels.judge(folder / "tiny-judge")), "device": "cpu"}


@contextmanager
def claims_judge(folder: Path) -> Iterator[Options]:
    yield {"model": str(tinymodels.claims_judge(folder / "tiny-claims")), "device": "cpu"}


@contextmanager
def itm(folder: Path) -> Iterator[Options]:
    yield {"model": str(tinymodels.blip_itm(folder / "tiny-itm")), "device": "cpu"}
