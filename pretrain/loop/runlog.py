"""What a training says while it runs: JSON lines, and the same for TensorBoard.

Lines after the checkpoint that a training goes on from are taken out first: a step has one line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter  # type: ignore[import-untyped]  # ships no types

from curator.core.hashing import canonical_json
from curator.core.progress import say
from curator.store import fsops, sealed

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
            found, torn = read_log(self._path)
            if torn:
                say(f"{torn} bytes of {self._path} that a crash left unfinished are cut")
            self.rows = [row for row in found if row["step"] <= after_step]
            fsops.write_atomic(self._path, "".join(map(_line, self.rows)).encode())
        # Events after `purge_step` are hidden by TensorBoard. The library writes its own files.
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=after_step + 1)

    def add(self, row: Row) -> None:
        """Write one line; `step` is the number of steps done."""
        self.rows.append(row)
        if self._path is None:
            return
        fsops.append_line(self._path, _line(row).removesuffix("\n"))
        for name, value in row.items():
            if name != "step":
                self._board.add_scalar(f"train/{name}", value, int(row["step"]))

    def close(self) -> None:
        """Close the files."""
        if self._board is not None:
            self._board.close()


def read_log(path: Path) -> tuple[list[Row], int]:
    """The lines of a log, and the bytes of those that a crash left unfinished.

    Raises:
        DamageError: a line is not what was written.
    """
    hint = "restore it from a copy; or remove it: it is shown, and decides nothing"
    return sealed.lines(path.read_bytes(), path, hint=hint)


def _line(row: Row) -> str:
    return sealed.seal_line(canonical_json(row).decode()) + "\n"
