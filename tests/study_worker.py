"""A study in a process that can be killed: `python -m tests.study_worker OUT [SECONDS A CELL]`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tests import studykit


class Slow(studykit.FakeRunner):
    """Says on stdout which cell it is at, and takes its time."""

    def at_cell(self, label: str) -> None:
        super().at_cell(label)
        sys.stdout.write(f"{label}\n")
        sys.stdout.flush()
        time.sleep(float(sys.argv[2]) if len(sys.argv) > 2 else 0.0)


if __name__ == "__main__":
    studykit.run(studykit.study(studykit.SMALL), Path(sys.argv[1]), Slow())
