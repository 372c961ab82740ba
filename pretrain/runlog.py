"""What a training says while it runs: JSON lines, and the same for TensorBoard.

Lines after the checkpoint that a training goes on from are taken out first: a step has one line.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter  # type: ignore[import-untyped]  # ships no types

from curator import fsops
from curator.versions import canonical_json

Row = dict[str, float]


class RunLog:
    """The log of the process that writes. `folder` None keeps the lines in memory only."""

    def __init__(self, folder: Path | None, *, after_step: int) -> None:
        self.rows: list[Row] = []
        self._path = None if folder is None else folder / "log.jsonl"
        self._board: Any = None
        if folder is None or self._path is None:
            return
        if self._path.is_file():
            found = self._path.read_bytes()
            self.rows = [row for row in _rows(found) if row["step"] <= after_step]
            fsops.write_atomic(self._path, b"".join(canonical_json(r) + b"\n" for r in self.rows))
        # Events after `purge_step` are hidden by TensorBoard. The library writes its own files.
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=after_step + 1)

    def add(self, row: Row) -> None:
        """Write one line; `step` is the number of steps done."""
        self.rows.append(row)
        if self._path is None:
            return
        fsops.append_line(self._path, canonical_json(row).decode())
        for name, value in row.items():
            if name != "step":
                self._board.add_scalar(f"train/{name}", value, int(row["step"]))

    def close(self) -> None:
        """Close the files."""
        if self._board is not None:
            self._board.close()


def _rows(data: bytes) -> list[Row]:
    """The whole lines of a log; a torn last one, of a killed process, is left out."""
    *lines, _ = data.split(b"\n")
    return [json.loads(line) for line in lines]
