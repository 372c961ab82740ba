"""Log a training as JSON lines, and the same values for TensorBoard.

On resuming, lines after the checkpoint are removed first, so that each step has one line.
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
    """The log of the main process. With `folder` None the lines are kept in memory only."""

    def __init__(self, folder: Path | None, *, after_step: int) -> None:
        self.rows: list[Row] = []
        self._path = None if folder is None else folder / "log.jsonl"
        self._board: Any = None
        if folder is None or self._path is None:
            return
        if self._path.is_file():
            found, torn = read_log(self._path)
            if torn:
                say(f"removed {torn} bytes of an unfinished line that a crash left in {self._path}")
            self.rows = [row for row in found if row["step"] <= after_step]
            fsops.write_atomic(self._path, "".join(map(_line, self.rows)).encode())
        # TensorBoard hides events after `purge_step`. The library writes its own files.
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=after_step + 1)

    def add(self, row: Row) -> None:
        """Write one line; `step` in it is the number of finished steps."""
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
    """Return the lines of a log, and the number of bytes of an unfinished last line.

    Raises:
        DamageError: a line fails its checksum.
    """
    hint = "restore it from a backup, or remove it: the log is only for display"
    return sealed.lines(path.read_bytes(), path, hint=hint)


def _line(row: Row) -> str:
    return sealed.seal_line(canonical_json(row).decode()) + "\n"
