"""Run one backbone over fractions of the labels and seeds, for `curator finetune`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from curator.core.progress import say
from curator.core.stopping import StopRequest
from finetune.cell_files import DenseResult, Sweep
from finetune.feeding import Features
from finetune.labels import examined
from finetune.layouts import DenseSet
from finetune.options import DenseOptions
from finetune.run import finetune, require_cells, sweep
from finetune.tasks import TASKS


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Results by fraction of the labels, one per seed, with the sweep and the examined data set."""

    data: DenseSet
    swept: Sweep | None
    results: dict[float, list[DenseResult]]


def run_grid(
    backbone: str,
    data: DenseSet,
    cells: Sequence[DenseOptions],
    *,
    choose_rate: bool,
    out: Path | None,
    device: str | None,
    stop: StopRequest,
) -> Grid:
    """Read all labels, then run cells that differ only in `fraction` and `seed`.

    With `choose_rate` one sweep, on the largest fraction, sets the learning rate of all cells. Each
    cell has a folder in `out`. A frozen backbone runs once for all of them.

    Raises:
        UsageError, EngineError, StoppedError: as `finetune.run.finetune`.
    """
    TASKS.get(cells[0].task)  # first refuse a class that breaks its contract
    data = examined(data, stop)
    for warning in data.warnings:
        say(f"warning: {warning}")
    require_cells(data, cells, choose_rate=choose_rate, stop=stop)
    features = Features()
    swept = None
    if choose_rate:
        swept = sweep(
            backbone,
            data,
            max(cells, key=lambda cell: cell.fraction),
            out=None if out is None else out / "sweep",
            stop=stop,
            device=device,
            features=features,
        )
    results: dict[float, list[DenseResult]] = {}
    for cell in cells:
        options = cell if swept is None else swept.applied_to(cell)
        found = finetune(
            backbone,
            data,
            options,
            out=None if out is None else out / f"labels-{cell.fraction:g}-seed-{cell.seed}",
            stop=stop,
            device=device,
            features=features,
        )
        results.setdefault(cell.fraction, []).append(found)
    return Grid(data=data, swept=swept, results=results)
