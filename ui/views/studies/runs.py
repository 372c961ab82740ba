"""Find studies on disk, and list the runs of one as rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune.study.results import metric_of

STUDY_FILE = "study.json"
_MAX_STUDIES = 200


def find_studies(root: Path, depth: int) -> dict[str, Path]:
    """Return name below `root` -> folder of every study at most `depth` folders down."""
    found: dict[str, Path] = {}
    level = [root]
    for _ in range(depth + 1):
        below: list[Path] = []
        for folder in level:
            if (folder / STUDY_FILE).is_file():
                name = folder.relative_to(root).as_posix()
                found[root.resolve().name if name == "." else name] = folder
            else:
                below += _folders(folder)
        level = below
    return dict(sorted(found.items())[:_MAX_STUDIES])


def _folders(folder: Path) -> list[Path]:
    """Return the subfolders of a folder, without hidden, linked and unreadable ones."""
    try:
        return [
            path
            for path in sorted(folder.iterdir())
            if path.is_dir() and not path.is_symlink() and not path.name.startswith(".")
        ]
    except PermissionError:
        return []


def runs(plan: Mapping[str, Any], records: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row per run of the study: what it is, how it ended, its metrics as displayed."""
    rows = []
    for cell in plan["cells"]:
        record = records.get(cell["digest"], {})
        outcome = record.get("outcome") or {}
        found = [(metric_of(name), value) for name, value in outcome.get("metrics", {}).items()]
        found.sort(key=lambda one: not one[0].primary)
        shown = [metric.amount(value) for metric, value in found if metric.is_possible(value)]
        rows.append(
            {
                "arm": cell["arm"],
                "stage": cell["kind"],
                "task": cell.get("task"),
                "seed": cell.get("seed"),
                "labels": cell.get("fraction"),
                "samples": cell.get("budget"),
                "result": ", ".join(shown) or None,
                "state": record.get("status", "waiting"),
                "learning rate": outcome.get("lr"),
                "seconds": record.get("seconds"),
                "finished": record.get("finished_at"),
                "reason": (record.get("error") or {}).get("message"),
            }
        )
    return rows
