"""Runs a study: the cells that are missing, one after the other, whatever happened before.

A cell file appears when its cell is finished, all or nothing, so a study survives being killed at
any moment and a second call runs what is missing; `finetune.study_files` says what lies where.
Cells of an earlier recipe stay where they are and out of the table. A failed cell keeps its reason,
the others go on, and the next call tries it again. Torch-free: models are behind the `Runner`.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from curator import fsops, progress, versions
from curator.errors import (
    ConflictError,
    CuratorError,
    EngineError,
    StoppedError,
    StorageError,
    UsageError,
)
from curator.stopping import StopRequest
from finetune.results import metric_of, primary_metric, write_results
from finetune.study_cells import (
    Backbone,
    Cell,
    DenseCell,
    DenseOutcome,
    Json,
    PretrainCell,
    Runner,
    SweepCell,
)
from finetune.study_files import FORMAT, STUDY_FILE, read_cells, read_plan, rows_of, to_bytes
from finetune.study_plan import Plan, make_plan
from finetune.study_recipe import Study

LOCK = ".lock"
MAX_HISTORY = 200
_KEPT = "finished runs are kept"
_MINUTE, _HOUR = 60.0, 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How a call ended, in cells. `blocked` ones wait for a pretraining or sweep that failed."""

    num_cells: int
    num_done: int
    num_reused: int
    num_failed: int
    num_blocked: int
    reasons: tuple[str, ...]


def run_study(study: Study, out: Path, *, runner: Runner, stop: StopRequest) -> Summary:
    """Run what is missing of a study in the folder `out`.

    Raises:
        UsageError: `out` holds another study, or something that is none.
        ConflictError: another process runs a study there.
        StoppedError: `stop` was asked for; the cell in progress goes on at the next call.
        CuratorError: a version, folder or recipe does not fit; nothing was run.
    """
    _check_folder(study, out)
    fsops.make_dir(out)
    with fsops.locked(out / LOCK):
        plan = make_plan(study, runner)
        head = {"format": FORMAT, "tool_version": versions.tool_version(), **plan.to_json()}
        fsops.write_atomic(out / STUDY_FILE, to_bytes(head))
        try:
            return _Walk(plan, out, runner, stop).run()
        finally:
            write_results(out, rows_of(read_plan(out), read_cells(out)))


def _check_folder(study: Study, out: Path) -> None:
    if (out / STUDY_FILE).exists():
        name = read_plan(out)["study"]["name"]
        if name != study.name:
            raise UsageError(
                f"the folder holds the study {name!r}, not {study.name!r}",
                where=out,
                hint="give another folder with --out",
                reason="study.folder",
            )
    elif out.exists() and (not out.is_dir() or any(_foreign(path) for path in out.iterdir())):
        raise UsageError(
            "the folder holds something that is no study",
            where=out,
            hint="give a new or empty folder with --out",
            reason="study.folder",
        )


def _foreign(path: Path) -> bool:
    """Not what a call leaves that was killed before it wrote study.json."""
    return path.name != LOCK and not path.name.startswith(fsops.TEMP_PREFIX)


class _Walk:
    """One pass over the cells of a plan."""

    def __init__(self, plan: Plan, out: Path, runner: Runner, stop: StopRequest) -> None:
        self.plan, self.out, self.runner, self.stop = plan, out, runner, stop
        self.records = read_cells(out)
        self.pictured = _pictured(plan)

    def run(self) -> Summary:
        """Every cell once; see the module."""
        cells = list({cell.digest: cell for cell in self.plan.cells}.values())
        missing = [cell for cell in cells if not self._is_done(cell.digest)]
        reused = len(cells) - len(missing)
        if reused:
            progress.say(f"{reused} of {len(cells)} runs are there already")
        blocked = 0
        for place, cell in enumerate(missing):
            self.stop.check(_KEPT)
            if any(not self._is_done(digest) for digest in _needs(cell)):
                blocked += 1
                continue
            record = self._record(cell)
            self.records[cell.digest] = record
            number = reused + place + 1
            left = time_left(self.records, cells, missing[place + 1 :])
            progress.say(f"[{number}/{len(cells)}] {cell.label}: {_told(record)}{left}")
        done = [cell for cell in cells if self._is_done(cell.digest)]
        failed = [cell for cell in missing if self.records.get(cell.digest, {}).get("error")]
        return Summary(
            num_cells=len(cells),
            num_done=len(done),
            num_reused=reused,
            num_failed=len(failed),
            num_blocked=blocked,
            reasons=tuple(f"{cell.label}: {_told(self.records[cell.digest])}" for cell in failed),
        )

    def _is_done(self, digest: str) -> bool:
        return self.records.get(digest, {}).get("status") == "done"

    def _record(self, cell: Cell) -> Json:
        """Run one cell and write its file."""
        started = time.monotonic()
        found: Json = {"format": FORMAT, "label": cell.label, "config": cell.config}
        try:
            found |= {"status": "done", "outcome": self._outcome(cell)}
        except (StoppedError, StorageError, ConflictError, KeyboardInterrupt):
            raise  # nothing to do with this cell: the next one would meet the same
        except Exception as error:  # noqa: BLE001 - whatever a model does is this cell's failure
            reason = error.reason if isinstance(error, CuratorError) else type(error).__name__
            trace = "" if isinstance(error, CuratorError) else traceback.format_exc()
            message = str(error) or type(error).__name__
            problem = {"reason": reason, "message": message, "traceback": trace}
            found |= {"status": "failed", "error": problem}
        found["seconds"] = time.monotonic() - started
        found["finished_at"] = versions.iso(versions.now())
        fsops.write_atomic(self.out / "cells" / f"{cell.digest}.json", to_bytes(found))
        return found

    def _outcome(self, cell: Cell) -> Json:
        folder = self.out / "runs" / cell.digest
        if isinstance(cell, PretrainCell):
            pretrained = self.runner.pretrain(cell, folder, self.stop)
            _check_numbers(pretrained.metrics)
            return asdict(pretrained) | {"history": thinned(pretrained.history)}
        backbone = self._weights(cell.backbone)
        if isinstance(cell, SweepCell):
            return asdict(self.runner.sweep(cell, backbone, folder, self.stop))
        options = cell.options
        if cell.sweep is not None:
            options["lr"] = self.records[cell.sweep.digest]["outcome"]["lr"]
        outcome = self.runner.finetune(cell, backbone, options, folder, self.stop)
        _check_numbers(outcome.metrics)
        names = self._keep_pictures(cell, outcome)
        values = {key: value for key, value in asdict(outcome).items() if key != "pictures"}
        return values | {"history": thinned(outcome.history), "pictures": names}

    def _weights(self, backbone: Backbone) -> str:
        if backbone.cell is None:
            return backbone.spec
        return str(self.out / "runs" / backbone.cell.digest)

    def _keep_pictures(self, cell: DenseCell, outcome: DenseOutcome) -> list[dict[str, str]]:
        """Write the sample predictions of the cells that a report shows; return their names."""
        if cell.digest not in self.pictured:
            return []
        kept = []
        for place, picture in enumerate(outcome.pictures):
            names = {what: f"pictures/{cell.digest}/{place}-{what}.png" for what in picture}
            for what, name in names.items():
                fsops.write_atomic(self.out / name, picture[what])
            kept.append(names)
        return kept


def _needs(cell: Cell) -> list[str]:
    """Digests of the cells that must be done before."""
    if isinstance(cell, PretrainCell):
        return []
    needs = [] if cell.backbone.cell is None else [cell.backbone.cell.digest]
    sweep = cell.sweep if isinstance(cell, DenseCell) else None
    return needs + ([] if sweep is None else [sweep.digest])


def _pictured(plan: Plan) -> set[str]:
    """Of every arm and task the first dense cell: first seed, most samples, most labels."""
    first: dict[tuple[str, str], str] = {}
    for cell in plan.cells:
        if isinstance(cell, DenseCell):
            first.setdefault((cell.arm, cell.task.title), cell.digest)
    return set(first.values())


def _check_numbers(metrics: Mapping[str, float]) -> None:
    for name, value in metrics.items():
        metric_of(name)
        if not math.isfinite(value):
            raise EngineError(f"{name} is {value}", reason="study.not_a_number")


def thinned(history: Sequence[Json]) -> list[Json]:
    """At most 201 points of a curve, evenly, the last one among them; no number becomes null."""
    step = -(-len(history) // MAX_HISTORY) or 1
    kept = list(history[::step])
    if kept and kept[-1] is not history[-1]:
        kept.append(history[-1])
    return [{key: _finite(value) for key, value in point.items()} for point in kept]


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


# -- what is said meanwhile ----------------------------------------------------------------------


def _told(record: Json) -> str:
    if record["status"] == "failed":
        return f"failed ({record['error']['message']})"
    outcome = record["outcome"]
    took = f"in {_duration(record['seconds'])}"
    if "tried" in outcome:
        return f"{outcome['lr']:g} is best {took}"
    metrics = outcome["metrics"]
    if not metrics:
        return f"done {took}"
    name = primary_metric(list(metrics))
    return f"{metric_of(name).amount(metrics[name])} {took}"


def time_left(records: Mapping[str, Json], cells: Iterable[Cell], missing: Iterable[Cell]) -> str:
    """ "; about 8 min left", from the mean time of finished cells of the same kind and task."""
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
    return f"; about {_duration(left)} left" if left else ""


def _task_of(cell: Cell) -> str | None:
    return None if isinstance(cell, PretrainCell) else cell.task.title


def _duration(seconds: float) -> str:
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / _MINUTE:.0f} min" if seconds < 2 * _HOUR else f"{seconds / _HOUR:.1f} h"
