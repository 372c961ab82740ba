"""Run the missing cells of a study.

A cell file is written atomically when its cell is finished, so a study can be killed at any moment,
and the next call runs what is missing; `finetune.study.files` lists the files. Cells of an earlier
recipe stay on disk but not in the table. If a cell fails, the reason is recorded, the other cells
run, and the next call retries it. Torch-free: models are behind the `Runner`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from curator.core import package, progress
from curator.core.clock import duration
from curator.core.errors import DamageError, UsageError
from curator.core.stopping import StopRequest
from curator.store import fsops
from finetune.study.cells import Cell, DenseCell, Json, PretrainCell, Runner
from finetune.study.files import CELLS, FORMAT, STUDY_FILE, read_cells, read_plan, rows_of, to_bytes
from finetune.study.jobs import STOPPED, Inline, Jobs, died
from finetune.study.one_cell import Job
from finetune.study.plan import StudyPlan, make_plan
from finetune.study.recipe import Study
from finetune.study.results import metric_of, primary_metric, write_results
from pretrain.data.cuts import Cuts

LOCK = ".lock"
_POLL_SEC = 0.2
_KEPT = "finished runs are kept"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySummary:
    """Counts of cells after a call. `blocked` cells need a pretraining or sweep that failed."""

    num_cells: int
    num_done: int
    num_reused: int
    num_failed: int
    num_blocked: int
    reasons: tuple[str, ...]


def run_study(
    study: Study,
    out: Path,
    *,
    runner: Runner,
    stop: StopRequest,
    jobs: Jobs | None = None,
    pretrain_only: bool = False,
) -> StudySummary:
    """Run the missing cells of a study in the folder `out`.

    Cells run in this process, by `runner`, or in the processes of `jobs`. With `pretrain_only`,
    dense runs and sweeps are left for a later call.

    Raises:
        UsageError: `out` holds another study, or files that are not a study.
        ConflictError: another process is running a study there.
        StoppedError: a stop was requested; the next call resumes the cell in progress.
        CuratorError: a version, folder or recipe does not fit; nothing was run.
    """
    check_folder(study, out)
    fsops.make_dir(out)
    with fsops.locked(out / LOCK):
        plan = make_plan(study, runner)
        head = {"format": FORMAT, "tool_version": package.tool_version(), **plan.to_json()}
        fsops.write_atomic(out / STUDY_FILE, to_bytes(head))
        try:
            walk = _Walk(plan, out, jobs or Inline(runner, stop), stop)
            return walk.run(pretrain_only=pretrain_only)
        finally:
            write_results(out, rows_of(read_plan(out), read_cells(out)))


def check_folder(study: Study, out: Path) -> None:
    """Refuse a folder that the study cannot run in.

    Raises:
        UsageError: it holds another study, or files that are not a study.
    """
    if (out / STUDY_FILE).exists():
        name = read_plan(out)["study"]["name"]
        if name != study.name:
            raise UsageError(
                f"the folder holds the study {name!r}, not {study.name!r}",
                where=out,
                hint="give another folder with --out",
                reason="study.folder",
            )
    elif (out / CELLS).is_dir():  # each cell file contains its own config
        progress.say(f"{out / STUDY_FILE} is missing and is written again")
    elif out.exists() and (not out.is_dir() or any(_foreign(path) for path in out.iterdir())):
        raise UsageError(
            "the folder holds files that are not a study",
            where=out,
            hint="give a new or empty folder with --out",
            reason="study.folder",
        )


def _foreign(path: Path) -> bool:
    """Whether a file is not one that a call killed before writing study.json would leave."""
    return path.name != LOCK and not path.name.startswith(fsops.TEMP_PREFIX)


class _Walk:
    """Runs the cells of a plan once."""

    def __init__(self, plan: StudyPlan, out: Path, jobs: Jobs, stop: StopRequest) -> None:
        self.plan, self.out, self.jobs, self.stop = plan, out, jobs, stop
        damaged: list[DamageError] = []
        self.records = read_cells(out, damaged)
        for error in damaged:
            progress.say(f"{error.what} in {error.where}; this cell is run again")
        self.with_images = _with_images(plan)

    def run(self, *, pretrain_only: bool) -> StudySummary:
        """Run every missing cell once; see the module."""
        cells = list({cell.digest: cell for cell in self.plan.cells}.values())
        asked = [cell for cell in cells if isinstance(cell, PretrainCell) or not pretrain_only]
        missing = [cell for cell in asked if not self._is_done(cell.digest)]
        reused = len(asked) - len(missing)
        if reused:
            progress.say(f"{reused} of {len(asked)} runs are already finished")
        blocked = self._run_all(missing, asked)
        done = [cell for cell in cells if self._is_done(cell.digest)]
        failed = [cell for cell in missing if self.records.get(cell.digest, {}).get("error")]
        return StudySummary(
            num_cells=len(cells),
            num_done=len(done),
            num_reused=reused,
            num_failed=len(failed),
            num_blocked=blocked,
            reasons=tuple(f"{cell.label}: {_told(self.records[cell.digest])}" for cell in failed),
        )

    def _run_all(self, missing: Sequence[Cell], cells: Sequence[Cell]) -> int:
        """Run cells in order, as many at a time as there are jobs; return the number blocked."""
        waiting, running = list(missing), dict[Future[Json], Cell]()
        lost: set[str] = set()  # failed in this pass, or blocked by one that failed
        blocked = 0
        while waiting or running:
            ready = [cell for cell in waiting if all(map(self._is_done, _needs(cell)))]
            for cell in ready[: self.jobs.number - len(running)]:
                self.stop.check(_KEPT)
                waiting.remove(cell)
                running[self.jobs.submit(self._job(cell))] = cell
            for cell in [cell for cell in waiting if not lost.isdisjoint(_needs(cell))]:
                waiting.remove(cell)
                lost.add(cell.digest)
                blocked += 1
            for future in wait(running, _POLL_SEC, FIRST_COMPLETED).done:
                cell = running.pop(future)
                record = self._finished(future)
                self.records[cell.digest] = record
                if record["status"] != "done":
                    lost.add(cell.digest)
                rest = [*running.values(), *waiting]
                left = time_left(self.records, cells, rest, self.jobs.number)
                number = len(cells) - len(rest)
                progress.say(f"[{number}/{len(cells)}] {cell.label}: {_told(record)}{left}")
            if self.stop() and self.stop.signum is not None:
                self.jobs.stop(self.stop.signum)
                wait(running)
                self.stop.check(_KEPT)
        return blocked

    def _finished(self, future: Future[Json]) -> Json:
        try:
            record = future.result()
        except BrokenProcessPool as error:
            raise died() from error
        if record == STOPPED:
            self.stop.check(_KEPT)
        return record

    def _job(self, cell: Cell) -> Job:
        sweep = cell.sweep if isinstance(cell, DenseCell) else None
        return Job(
            cell=cell,
            out=self.out,
            lr=None if sweep is None else self.records[sweep.digest]["outcome"]["lr"],
            has_images=cell.digest in self.with_images,
        )

    def _is_done(self, digest: str) -> bool:
        return self.records.get(digest, {}).get("status") == "done"


def _needs(cell: Cell) -> list[str]:
    """Return the digests of the cells that must be finished before."""
    if isinstance(cell, PretrainCell):
        return []
    needs = [] if cell.backbone.cell is None else [cell.backbone.cell.digest]
    sweep = cell.sweep if isinstance(cell, DenseCell) else None
    return needs + ([] if sweep is None else [sweep.digest])


def _with_images(plan: StudyPlan) -> set[str]:
    """Return the first dense cell of each arm and task: first seed, most samples and labels."""
    first: dict[tuple[str, str], str] = {}
    for cell in plan.cells:
        if isinstance(cell, DenseCell):
            first.setdefault((cell.arm, cell.task.title), cell.digest)
    return set(first.values())


# -- progress messages ---------------------------------------------------------------------------


def _told(record: Json) -> str:
    if record["status"] == "failed":
        return f"failed ({record['error']['message']})"
    outcome = record["outcome"]
    took = f"in {duration(record['seconds'])}"
    if "tried" in outcome:
        return f"{outcome['lr']:g} is best {took}"
    metrics, texts = outcome["metrics"], outcome.get("texts") or {}
    cut = f"; {Cuts(**texts).sentence()}" if texts.get("num_cut") else ""
    if not metrics:
        return f"done {took}{cut}"
    name = primary_metric(list(metrics))
    return f"{metric_of(name).amount(metrics[name])} {took}{cut}"


def time_left(
    records: Mapping[str, Json], cells: Iterable[Cell], missing: Iterable[Cell], jobs: int = 1
) -> str:
    """Return "; about 8 min left", by the mean time of finished cells of the same kind and task."""
    spent: dict[tuple[str, str | None], list[float]] = {}
    for cell in cells:
        record = records.get(cell.digest, {})
        if record.get("status") == "done":
            for key in {(cell.kind, _task_of(cell)), (cell.kind, None)}:
                spent.setdefault(key, []).append(record["seconds"])
    left, unknown = 0.0, 0
    for waiting in missing:
        of_its_kind = spent.get((waiting.kind, _task_of(waiting)))
        times = of_its_kind or spent.get((waiting.kind, None))
        left += sum(times) / len(times) if times else 0.0
        unknown += not times
    if unknown:
        return ""
    left /= jobs
    return f"; about {duration(left)} left" if left else ""


def _task_of(cell: Cell) -> str | None:
    return None if isinstance(cell, PretrainCell) else cell.task.title
