"""One cell of a study: run, its file written when it is finished, all or nothing. Torch-free."""

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
from finetune.study.cells import (
    BackboneSource,
    Cell,
    DenseOutcome,
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
    """A cell with what running it takes: the study's folder, the rate that a sweep found for it (or
    None), and whether the report shows its pictures.
    """

    cell: Cell
    out: Path
    lr: float | None
    is_pictured: bool


def run_cell(job: Job, runner: Runner, stop: StopRequest) -> Json:
    """Run it and write its file: what came of it, or why it failed.

    Raises:
        StoppedError, StorageError, ConflictError: nothing to do with this cell; no file.
    """
    started = time.monotonic()
    found: Json = {"format": FORMAT, "label": job.cell.label, "config": job.cell.config}
    try:
        outcome = _outcome(job, runner, stop)
        found |= {sealed.FILES: outcome.pop(sealed.FILES, {})}
        found |= {"status": "done", "outcome": outcome}
    except (StoppedError, StorageError, ConflictError, KeyboardInterrupt):
        raise  # the next cell would meet the same
    except Exception as error:  # noqa: BLE001 - whatever a model does is this cell's failure
        reason = error.reason if isinstance(error, CuratorError) else type(error).__name__
        trace = "" if isinstance(error, CuratorError) else traceback.format_exc()
        message = str(error) or type(error).__name__
        problem = {"reason": reason, "message": message, "traceback": trace}
        found |= {"status": "failed", "error": problem}
    found["seconds"] = time.monotonic() - started
    found["finished_at"] = clock.iso(clock.now())
    fsops.write_atomic(job.out / "cells" / f"{job.cell.digest}.json", to_bytes(found))
    return found


def _outcome(job: Job, runner: Runner, stop: StopRequest) -> Json:
    cell, folder = job.cell, job.out / "runs" / job.cell.digest
    if isinstance(cell, PretrainCell):
        pretrained = runner.pretrain(cell, folder, stop)
        _check_numbers(pretrained.metrics)
        return asdict(pretrained) | {"history": thinned(pretrained.history)}
    backbone = _weights(cell.backbone, job.out)
    if isinstance(cell, SweepCell):
        return asdict(runner.sweep(cell, backbone, folder, stop))
    options = cell.options
    if cell.sweep is not None:
        options["lr"] = job.lr
    outcome = runner.finetune(cell, backbone, options, folder, stop)
    _check_numbers(outcome.metrics)
    names, files = _keep_pictures(job, outcome) if job.is_pictured else ([], {})
    values = {key: value for key, value in asdict(outcome).items() if key != "pictures"}
    kept = {"history": thinned(outcome.history), "pictures": names, sealed.FILES: files}
    return values | kept


def _weights(backbone: BackboneSource, out: Path) -> str:
    if backbone.cell is None:
        return backbone.spec
    return str(out / "runs" / backbone.cell.digest)


def _keep_pictures(job: Job, outcome: DenseOutcome) -> tuple[list[dict[str, str]], dict[str, str]]:
    """Write the sample predictions for the report; return their names, and name -> digest."""
    kept, files = [], {}
    for place, picture in enumerate(outcome.pictures):
        names = {what: f"pictures/{job.cell.digest}/{place}-{what}.png" for what in picture}
        for what, name in names.items():
            fsops.write_atomic(job.out / name, picture[what])
            files[name] = hashlib.sha256(picture[what]).hexdigest()
        kept.append(names)
    return kept, files


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
