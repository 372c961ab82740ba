"""Estimate how long the cells of a study take, by the finished cells of this one or a pilot.

Works on the cells of study.json, so that it needs no models. Seconds are of one cell after the
other; `--jobs` share them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence

from finetune.study.files import Json


class Times:
    """Mean seconds of finished cells, by what decides how long a cell takes.

    A cell is looked up by its arm first, then by its task alone. Pretraining is counted by the
    sample, so that a pilot may see fewer.
    """

    def __init__(self, plan: Json, records: Mapping[str, Json]) -> None:
        spent: dict[Hashable, list[float]] = defaultdict(list)
        for digest, cell in {cell["digest"]: cell for cell in plan["cells"]}.items():
            record = records.get(digest, {})
            if record.get("status") == "done":
                for key in _keys(cell):
                    spent[key].append(record["seconds"] / _amount(cell))
        self._mean = {key: sum(found) / len(found) for key, found in spent.items()}

    def seconds(self, cell: Json) -> float | None:
        """Return the expected seconds of a cell; None if no cell of its kind and task is known."""
        known = (self._mean[key] for key in _keys(cell) if key in self._mean)
        found = next(known, None)
        return None if found is None else found * _amount(cell)

    def total(self, cells: Iterable[Json]) -> float | None:
        """Return the sum over different cells; None if one of them is not known."""
        found = [self.seconds(cell) for cell in {cell["digest"]: cell for cell in cells}.values()]
        known = [seconds for seconds in found if seconds is not None]
        return sum(known) if len(known) == len(found) else None


def _keys(cell: Json) -> list[Hashable]:
    """Return what a cell may be looked up by, the most like it first."""
    kind, arm, task = cell["kind"], cell["arm"], cell.get("task")
    size = (cell.get("budget"), cell.get("fraction"))
    if kind == "pretrain":
        return [(kind, arm, size), (kind, arm), (kind,)]
    return [(kind, task, arm, size), (kind, task, size[1]), (kind, task)]


def _amount(cell: Json) -> float:
    return float(cell["budget"]) if cell["kind"] == "pretrain" else 1.0


def cells_of_a_seed(plan: Json, asked: Sequence[str] = ()) -> list[Json]:
    """Return the cells that one more seed of the study adds.

    Those of arms with fewer seeds of their own are left out, unless they are `asked` for.
    """
    study = plan["study"]
    arms = {arm["name"] for arm in study["arm"] if arm["seeds"] is None} | set(asked)
    return [
        cell
        for cell in plan["cells"]
        if cell["seed"] == study["seeds"][0] and cell["arm"] in arms and cell["kind"] != "sweep"
    ]
