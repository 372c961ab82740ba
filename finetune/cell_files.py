"""Write and read the folder of a dense cell.

    run.json          identity of the cell: backbone, data, options; written first
    checkpoints/      of the loop, until the cell is finished
    log.jsonl, tensorboard/
    predictions/      a few test images with truth and prediction
    metrics.json      the result, with the digests of the images; written last

Torch-free.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
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
# Field of SavedImages -> word for it in file names.
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
    """The result of a cell; `to_json` of it is stored, here and in the cells of a study.

    Attributes:
        metrics: by name; the task's row in `finetune.tasks.TASKS` describes them.
        seconds: of training and evaluation, including those before a stop; features computed by an
            earlier cell are not counted.
        flops: of training; for a probe on stored features those of the head only.
        history: the log of the training loop.
        lr: the peak learning rate; None for a protocol without one.
        built: what the options left to the architecture: head, layer decay, drop path, dropout,
            weight of the auxiliary loss.
        parameters: numbers of the `backbone`, of `all` of the net, and of those `trained`.
        image_flops: of evaluating one test image as the options say (windows, mirror image).
        device: gpu or cpu; `num_devices` GPUs or CPU threads worked for `seconds`.
        protocol: as printed beside the number, with the digest of every setting that defines it
            (`finetune.protocols`).
        certificate: of a solved probe (`finetune.probes.solved.Certificate`).
        weights: sha256 of the backbone's weights before training.
    """

    metrics: dict[str, float]
    per_image: dict[str, dict[str, float]]
    per_class: dict[str, float]
    num_train: int
    num_test: int
    lr: float | None
    seconds: float
    flops: int
    history: list[dict[str, float]]
    weights: str
    predictions: tuple[SavedImages, ...]
    built: dict[str, float | str | None] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    image_flops: int = 0
    device: str = ""
    num_devices: int = 1
    protocol: str = ""
    protocol_digest: str = ""
    certificate: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return every field; of the saved images only their names."""
        body = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "predictions"}
        return {**body, "predictions": [shown.name for shown in self.predictions]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Learning rates that were tried, and the score of each.

    Attributes:
        lr: the best learning rate.
        metric: the metric it was chosen by, the first of the task.
        tried: (learning rate, score), ascending; None where the training did not stay finite.
        evaluated_on: description of the images.
        at_edge: whether the best rate is the smallest or largest tried, so that a wider sweep may
            find a better one.
    """

    lr: float
    metric: str
    tried: tuple[tuple[float, float | None], ...]
    evaluated_on: str
    at_edge: bool

    def applied_to(self, options: DenseOptions) -> DenseOptions:
        """Return the options of a cell with the chosen learning rate, and what it is from."""
        tried = tuple(lr for lr, _ in self.tried)
        return options.model_copy(update={"lr": self.lr, "swept": tried})


def identity(backbone: str, data: DenseSet, options: DenseOptions) -> dict[str, Any]:
    """Return everything in which two different cells can differ."""
    return {
        "backbone": backbone,
        "data": {**data.describe(), "folder": str(data.folder)},
        "options": options.model_dump(mode="json"),
        # Of the constants too, which the options do not show.
        "protocol": {"digest": options.protocol_digest},
    }


def begin(out: Path, wanted: Mapping[str, Any]) -> None:
    """Claim a folder for a cell, or check that it already belongs to it.

    Raises:
        UsageError: it belongs to another cell; names what differs.
        DamageError: run.json is missing.
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
            "the folder holds another run",
            where=out,
            did="; ".join(differing),
            hint="name a new folder",
        )


def _flat(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten values, as read back from JSON, to names like `options.lr`."""
    flat: dict[str, Any] = {}
    for part, value in json.loads(canonical_json(dict(wanted))).items():
        below = value if isinstance(value, dict) else {"": value}
        flat |= {f"{part}.{name}".rstrip("."): one for name, one in below.items()}
    return flat


def store(out: Path, result: DenseResult) -> None:
    """Write the result, then delete the checkpoints."""
    digests = {}
    for number, shown in enumerate(result.predictions):
        for kind in IMAGES:
            path, data = _png(out, number, kind), getattr(shown, kind)
            fsops.write_atomic(path, data)
            digests[path.relative_to(out).as_posix()] = hashlib.sha256(data).hexdigest()
    # Not sorted: metrics are shown in the task's order, the deciding one first.
    body = {**result.to_json(), sealed.FILES: digests}
    sealed.write(out / RESULT_FILE, body, indent=1, sort_keys=False)
    _drop_checkpoints(out)


def finished(out: Path) -> DenseResult | None:
    """Return the result of a finished cell; None if it is not finished.

    Raises:
        DamageError: the result is missing, or the result or an image fails its checksum.
    """
    path = out / RESULT_FILE
    if not path.is_file():
        if (out / _PICTURES).exists() and not (out / "checkpoints").exists():
            # Images are written before the result, and checkpoints are kept until it is written.
            raise _gone(RESULT_FILE, out, f"remove {_PICTURES}/ to train again")
        return None
    body = sealed.read(path, hint=_AGAIN)
    digests = body.pop(sealed.FILES, {})
    for name, sha256 in digests.items():
        sealed.check_file(out / name, sha256, RESULT_FILE, hint=_AGAIN)
    _drop_checkpoints(out)  # a crash may have left them
    body["predictions"] = tuple(
        SavedImages(name=name, **{kind: _png(out, number, kind).read_bytes() for kind in IMAGES})
        for number, name in enumerate(body["predictions"])
    )
    return DenseResult(**body)


def _gone(name: str, out: Path, way_out: str) -> DamageError:
    return DamageError(
        "the file is missing, but the folder has other files of the run",
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
