"""Read the folder of a study: the plan, the cells, and the table made from them.

    OUT/study.json                  the study, the versions and labels that it uses, its cells
    OUT/cells/<digest>.json         ONE FINISHED CELL: its outcome, or why it failed; the outcome
                                    of a pretraining is its whole `pretrain.run_files.RunSummary`,
                                    that of a dense cell a `finetune.cell_files.DenseResult`
    OUT/pictures/<digest>/          sample predictions of a dense cell
    OUT/runs/<digest>/              log and model of every pretraining, and cells in progress; dense
                                    cells and sweeps leave nothing here once finished
    OUT/results.parquet             the table, made from the cells, written last

Reports are made from the cells, without the table, so a killed study can be reported too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from curator.core.errors import DamageError, FormatError, UsageError
from curator.store import sealed
from finetune.metrics import RETRIEVAL
from finetune.study.cells import digest_of
from finetune.study.results import metric_of
from pretrain.data.cuts import Cuts

FORMAT = 1
STUDY_FILE, CELLS = "study.json", "cells"
_AGAIN = "restore it from a backup, or repeat the same `curator study`: it runs this cell again"
_ANEW = (
    "restore it from a backup, or remove it and repeat the same `curator study`, which rewrites it"
)

Json = dict[str, Any]


def read_plan(out: Path) -> Json:
    """Read study.json of a study folder.

    Raises:
        UsageError: the file is missing. DamageError: it cannot be read. FormatError: it was written
            by a newer version of this tool.
    """
    path = out / STUDY_FILE
    if not path.is_file():
        raise UsageError(
            "no study here",
            where=out,
            hint="`curator study STUDY.toml` makes one",
            reason="study.missing",
        )
    return _read_json(path, _ANEW)


def read_cells(out: Path, damaged: list[DamageError] | None = None) -> dict[str, Json]:
    """Return digest -> record of every cell file, including those of earlier recipes.

    With a list `damaged`, the errors of damaged cells are added to it and the cells are left out.

    Raises:
        DamageError: a cell, or an image that it names, is damaged.
    """
    found = {}
    for path in sorted((out / CELLS).glob("*.json")):
        try:
            found[path.stem] = _read_cell(out, path)
        except DamageError as error:
            if damaged is None:
                raise
            damaged.append(error)
    return found


def _read_cell(out: Path, path: Path) -> Json:
    record = _read_json(path, _AGAIN)
    if digest_of(record.get("config", {})) != path.stem:
        raise DamageError("the record belongs to another run", where=path, hint=_AGAIN)
    for name, sha256 in record.get(sealed.FILES, {}).items():
        sealed.check_file(out / name, sha256, path.name, hint=_AGAIN)
    outcome = record.get("outcome", {})
    if "samples" in outcome:  # the name in cells of earlier versions
        outcome["samples_seen"] = outcome.pop("samples")
    return record


def _read_json(path: Path, hint: str) -> Json:
    found = sealed.read(path, hint=hint)
    number = found.get("format")
    if not isinstance(number, int):
        raise DamageError("the file was changed after it was written", where=path, hint=hint)
    if number > FORMAT:
        raise FormatError("written by a newer version of this tool", where=path)
    return found


def rows_of(plan: Mapping[str, Any], records: Mapping[str, Json]) -> list[Json]:
    """Return the results table (`finetune.study.results.RESULTS_SCHEMA`), in the plan's order."""
    rows = []
    for cell in plan["cells"]:
        record = records.get(cell["digest"], {})
        if record.get("status") != "done" or cell["kind"] == "sweep":
            continue
        outcome = record["outcome"]
        digest = cell["digest"] if cell["kind"] == "pretrain" else cell["pretrain"]
        before = records.get(digest or "", {}).get("outcome", {})
        dense = cell["kind"] == "dense"
        shared = {
            "study": plan["study"]["name"],
            "arm": cell["arm"],
            "kind": plan["kinds"][cell["arm"]],
            "seed": cell["seed"],
            "task": cell["task"] if dense else RETRIEVAL,
            "protocol": cell["protocol"] if dense else None,
            "protocol_digest": cell["protocol_digest"] if dense else None,
            "fraction": cell["fraction"] if dense else None,
            "num_train": outcome["num_train"] if dense else None,
            "num_test": outcome["num_test"] if dense else None,
            "lr": outcome["lr"] if dense else None,
            "budget_samples": cell["budget"],
            "pretrain_samples": before.get("samples_seen"),
            "pretrain_flops": before.get("flops"),
            "pretrain_seconds": before.get("seconds"),
            "texts_cut": Cuts(**before["texts"]).share if before.get("texts") else None,
            "dense_seconds": outcome["seconds"] if dense else None,
            "config_digest": cell["digest"],
            "source_id": plan["sources"].get(cell["arm"], {}).get("id"),
            "finished_at": record["finished_at"],
        }
        for name, value in outcome["metrics"].items():
            metric = metric_of(name)
            if not metric.is_possible(value):
                continue  # `finetune.report.warnings` reports it
            better = metric.higher_is_better
            rows.append({**shared, "metric": name, "value": value, "higher_is_better": better})
    return rows


def to_bytes(value: Json) -> bytes:
    """Encode readable JSON; the same value gives the same bytes. NaN is refused."""
    return sealed.to_bytes(value, indent=1)
