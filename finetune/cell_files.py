"""What a dense cell leaves in its folder, and how a finished one is read back.

    run.json          what the cell is: backbone, data, options; written first
    checkpoints/      of the loop, until the cell is finished
    log.jsonl, tensorboard/
    predictions/      a few test images with truth and prediction
    metrics.json      the result, with the digests of the images; the cell is finished

Torch-free.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from curator.core.errors import DamageError, UsageError
from curator.core.hashing import canonical_json
from curator.core.package import tool_version
from curator.store import fsops, sealed
from finetune.layouts import DenseSet
from finetune.options import DenseOptions

RUN_FILE, RESULT_FILE = "run.json", "metrics.json"
_PICTURES = "predictions"
_AGAIN = "restore it from a copy, or train again in another folder"
# What is shown of a test image -> the word for it in the names of files.
IMAGES = {"image": "picture", "truth": "truth", "prediction": "prediction"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedImages:
    """One test image with its truth and prediction, as small PNG files."""

    name: str
    image: bytes
    truth: bytes
    prediction: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseResult:
    """What a cell found out; `to_json` of it is the record, here and in the cells of a study.

    Attributes:
        metrics: by name; the task's row of `finetune.tasks.TASKS` says what they are.
        seconds: of training and evaluating, also before a stop; features that an earlier cell made
            are free.
        flops: of training; of a probe on kept features those of the head only.
        history: what the loop logged.
        layer_decay: what was taken; None for a probe, and in files that are older than the field.
        weights: sha256 of the backbone's weights before training.
    """

    metrics: dict[str, float]
    per_image: dict[str, dict[str, float]]
    per_class: dict[str, float]
    num_train: int
    num_test: int
    lr: float
    seconds: float
    flops: int
    history: list[dict[str, float]]
    weights: str
    predictions: tuple[SavedImages, ...]
    layer_decay: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Every field, with the names of the images that predictions are shown of."""
        body = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "predictions"}
        return {**body, "predictions": [shown.name for shown in self.predictions]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Learning rates that were tried, and what each came to.

    Attributes:
        lr: the best of them.
        metric: the one that was looked at, the first of the task.
        tried: (rate, its value), in rising order; None where the training did not stay finite.
        evaluated_on: the images, in words.
        at_edge: the best is the smallest or largest rate tried: a wider sweep may find a better.
    """

    lr: float
    metric: str
    tried: tuple[tuple[float, float | None], ...]
    evaluated_on: str
    at_edge: bool


def identity(backbone: str, data: DenseSet, options: DenseOptions) -> dict[str, Any]:
    """All that makes two cells different ones."""
    return {
        "backbone": backbone,
        "data": {**data.describe(), "folder": str(data.folder)},
        "options": options.model_dump(mode="json"),
    }


def begin(out: Path, wanted: Mapping[str, Any]) -> None:
    """Claim a folder for a cell, or see that it is its own.

    Raises:
        UsageError: another cell is kept there; says what differs.
        DamageError: what was run there is not said any more.
    """
    path = out / RUN_FILE
    if not path.is_file():
        if (out / RESULT_FILE).exists() or (out / "checkpoints").exists():
            raise _gone(RUN_FILE, out, "name a new folder")
        sealed.write(path, {**wanted, "tool": tool_version()})
        return
    there, here = _flat(sealed.read(path, hint=_AGAIN)), _flat(wanted)
    differing = [
        f"{name} is {there.get(name)!r} there and {value!r} here"
        for name, value in here.items()
        if there.get(name) != value
    ]
    if differing:
        raise UsageError(
            "another run is kept here",
            where=out,
            did="; ".join(differing),
            hint="name a new folder",
        )


def _flat(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Values as they come back from JSON, with names like `options.lr`."""
    flat: dict[str, Any] = {}
    for part, value in json.loads(canonical_json(dict(wanted))).items():
        below = value if isinstance(value, dict) else {"": value}
        flat |= {f"{part}.{name}".rstrip("."): one for name, one in below.items()}
    return flat


def store(out: Path, result: DenseResult) -> None:
    """Write the result, then let go of the checkpoints."""
    digests = {}
    for number, shown in enumerate(result.predictions):
        for kind in IMAGES:
            path, data = _png(out, number, kind), getattr(shown, kind)
            fsops.write_atomic(path, data)
            digests[path.relative_to(out).as_posix()] = hashlib.sha256(data).hexdigest()
    # Not sorted: metrics are shown in the order of their task, the deciding one first.
    body = {**result.to_json(), sealed.FILES: digests}
    sealed.write(out / RESULT_FILE, body, indent=1, sort_keys=False)
    _drop_checkpoints(out)


def finished(out: Path) -> DenseResult | None:
    """The result of a finished cell; None if it is not finished.

    Raises:
        DamageError: the result or an image is not what was written, or the result is gone.
    """
    path = out / RESULT_FILE
    if not path.is_file():
        if (out / _PICTURES).exists() and not (out / "checkpoints").exists():
            # Images come before the result, and the checkpoints stay until it is there.
            raise _gone(RESULT_FILE, out, f"remove {_PICTURES}/ to train again")
        return None
    body = sealed.read(path, hint=_AGAIN)
    digests = body.pop(sealed.FILES, {})
    for name, sha256 in digests.items():
        sealed.check_file(out / name, sha256, RESULT_FILE, hint=_AGAIN)
    _drop_checkpoints(out)  # a crash may have come between
    body["predictions"] = tuple(
        SavedImages(name=name, **{kind: _png(out, number, kind).read_bytes() for kind in IMAGES})
        for number, name in enumerate(body["predictions"])
    )
    return DenseResult(**body)


def _gone(name: str, out: Path, way_out: str) -> DamageError:
    return DamageError(
        "the file is missing, and the rest of the run is there",
        where=out / name,
        did="nothing was trained and nothing was changed",
        hint=f"restore it from a copy, or {way_out}",
        reason="run.damaged",
    )


def _png(out: Path, number: int, kind: str) -> Path:
    return out / _PICTURES / f"{number}-{IMAGES[kind]}.png"


def _drop_checkpoints(out: Path) -> None:
    if (out / "checkpoints").is_dir():
        fsops.remove_tree(out / "checkpoints")
