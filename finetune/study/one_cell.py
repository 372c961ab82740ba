"""Run one cell of a study, and write its file atomically when it is finished. Torch-free."""

from __future__ import annotations

import hashlib
import math
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from curator.core import clock
from curator.core.errors import ConflictError, CuratorError, EngineError, StoppedError, StorageError
from curator.core.stopping import StopRequest
from curator.store import fsops, sealed
from finetune.cell_files import IMAGES, DenseResult
from finetune.study.cells import (
    BackboneSource,
    Cell,
    Json,
    PretrainCell,
    Runner,
    SweepCell,
)
from finetune.study.files import FORMAT, to_bytes
from finetune.study.results import metric_of

MAX_HISTORY = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A cell to run in the study's folder `out`, with the learning rate from its sweep, if any.

    `has_images`: whether the report shows its predictions.
    """

    cell: Cell
    out: Path
    lr: float | None
    has_images: bool


def run_cell(job: Job, runner: Runner, stop: StopRequest) -> Json:
    """Run a cell and write its file: its outcome, or why it failed.

    Raises:
        StoppedError, StorageError, ConflictError: not caused by this cell; no file is written.
    """
    started = time.monotonic()
    found: Json = {"format": FORMAT, "label": job.cell.label, "config": job.cell.config}
    try:
        outcome = _outcome(job, runner, stop)
        found |= {sealed.FILES: outcome.pop(sealed.FILES, {})}
        found |= {"status": "done", "outcome": outcome}
    except (StoppedError, StorageError, ConflictError, KeyboardInterrupt):
        raise  # the next cell would fail in the same way
    except Exception as error:  # noqa: BLE001 - any error of a model is a failure of this cell
        reason = error.reason if isinstance(error, CuratorError) else type(error).__name__
        trace = "" if isinstance(error, CuratorError) else traceback.format_exc()
        message = str(error) or type(error).__name__
        problem = {"reason": reason, "message": message, "traceback": trace}
        found |= {"status": "failed", "error": problem}
    found["seconds"] = time.monotonic() - started
    found["finished_at"] = clock.iso(clock.now())
    fsops.write_atomic(job.out / "cells" / f"{job.cell.digest}.json", to_bytes(found))
    if found["status"] == "done" and not isinstance(job.cell, PretrainCell):
        # The record is complete now. A failed cell's folder stays, so that it can be resumed.
        folder = _folder(job)
        if folder.is_dir():
            fsops.remove_tree(folder)
    return found


def _folder(job: Job) -> Path:
    return job.out / "runs" / job.cell.digest


def _outcome(job: Job, runner: Runner, stop: StopRequest) -> Json:
    cell, folder = job.cell, _folder(job)
    if isinstance(cell, PretrainCell):
        pretrained = runner.pretrain(cell, folder, stop)
        _check_numbers(pretrained.metrics)
        return pretrained.to_json() | {"history": thinned(pretrained.history)}
    backbone = _weights(cell.backbone, job.out)
    if isinstance(cell, SweepCell):
        return asdict(runner.sweep(cell, backbone, folder, stop))
    options = cell.options
    if cell.sweep is not None:
        options["lr"] = job.lr
    result = runner.finetune(cell, backbone, options, folder, stop)
    _check_numbers(result.metrics)
    names, files = _keep_images(job, result) if job.has_images else ([], {})
    kept = {"history": thinned(result.history), "pictures": names, sealed.FILES: files}
    return result.to_json() | kept


def _weights(backbone: BackboneSource, out: Path) -> str:
    if backbone.cell is None:
        return backbone.spec
    return str(out / "runs" / backbone.cell.digest)


def _keep_images(job: Job, result: DenseResult) -> tuple[list[dict[str, str]], dict[str, str]]:
    """Write the sample predictions for the report; return their names, and name -> digest."""
    kept, files = [], {}
    for place, shown in enumerate(result.predictions):
        names = {what: f"pictures/{job.cell.digest}/{place}-{what}.png" for what in IMAGES}
        for what, name in names.items():
            data: bytes = getattr(shown, what)
            fsops.write_atomic(job.out / name, data)
            files[name] = hashlib.sha256(data).hexdigest()
        kept.append(names)
    return kept, files


def _check_numbers(metrics: Mapping[str, float]) -> None:
    for name, value in metrics.items():
        metric_of(name)
        if not math.isfinite(value):
            raise EngineError(f"{name} is {value}", reason="study.not_a_number")


def thinned(history: Sequence[Json]) -> list[Json]:
    """Return at most 201 evenly spaced points of a curve, with the last one; NaN becomes null."""
    step = -(-len(history) // MAX_HISTORY) or 1
    kept = list(history[::step])
    if kept and kept[-1] is not history[-1]:
        kept.append(history[-1])
    return [{key: _finite(value) for key, value in point.items()} for point in kept]


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
