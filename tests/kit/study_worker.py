"""A study in a process that can be killed: `python -m tests.kit.study_worker OUT [SECONDS [JOBS]]`.

SECONDS are those of a cell.

`runner_of_job` is the runner in the processes of `finetune.study.jobs.workers`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from curator.core.stopping import StopRequest, stop_on_signals
from finetune.study.cells import PretrainCell, PretrainOutcome
from finetune.study.jobs import workers
from finetune.study.run import run_study
from tests.kit import study


class Slow(study.FakeRunner):
    """Says on stdout in which process and at which cell it is, and takes its time."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def pretrain(self, cell: PretrainCell, folder: Path, stop: StopRequest) -> PretrainOutcome:
        sys.stdout.write(f"{os.getpid()} {cell.label}\n")
        sys.stdout.flush()
        until = time.monotonic() + self.seconds
        while time.monotonic() < until:
            stop.check("nothing is kept")
            time.sleep(0.01)
        return super().pretrain(cell, folder, stop)


class Odd(study.FakeRunner):
    """Dies at a cell, or waits at its first one until job 0 and job 1 have both begun."""

    def __init__(
        self, job: int, *, fails: tuple[str, ...], dies_at: str | None, meet_in: Path | None
    ) -> None:
        super().__init__(fails)
        self.job, self.dies_at, self.meet_in = job, dies_at, meet_in

    def at_cell(self, label: str) -> None:
        if self.meet_in is not None:
            (self.meet_in / f"job-{self.job}").touch()
            while not (self.meet_in / f"job-{1 - self.job}").exists():
                time.sleep(0.01)
        if self.dies_at is not None and self.dies_at in label:
            os.kill(os.getpid(), signal.SIGKILL)
        super().at_cell(label)


def runner_of_job(
    job: int,
    jobs: int,
    *,
    seconds: float = 0.0,
    fails: tuple[str, ...] = (),
    dies_at: str | None = None,
    meet_in: Path | None = None,
) -> study.FakeRunner:
    """The runner of one of `jobs` processes."""
    assert job < jobs
    return Slow(seconds) if seconds else Odd(job, fails=fails, dies_at=dies_at, meet_in=meet_in)


def runner_on_node(*, threads: int, fails: tuple[str, ...] = ()) -> study.FakeRunner:
    """The runner of a process on a Ray cluster."""
    assert threads >= 1
    return study.FakeRunner(fails)


def main(out: Path, seconds: float = 0.0, jobs: int = 1) -> None:
    """Run the small study in `out`."""
    if jobs == 1:
        study.run(study.study(study.SMALL), out, Slow(seconds))
        return
    runner = study.FakeRunner()
    with (
        stop_on_signals() as stop,
        workers(runner_of_job, {"seconds": seconds}, jobs) as side_by_side,
    ):
        made = study.study(study.SMALL)
        run_study(made, out, runner=runner, stop=stop, jobs=side_by_side)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(float, sys.argv[2:3]), *map(int, sys.argv[3:4]))
