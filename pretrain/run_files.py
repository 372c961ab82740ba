"""Files in the folder of a pretraining run, and the checks that they are intact. Torch-free.

run.json        identity of the folder: recipe, digest, source, versions; written first
checkpoints/    see `pretrain.loop.checkpoint`
log.jsonl       a line every ten steps, each with a checksum
model/          the trained model
summary.json    written last; lists every file of the model with its digest
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from curator.core.errors import DamageError, NotFoundError
from curator.core.hashing import file_sha256
from curator.store import sealed

RUN_FILE, SUMMARY_FILE, MODEL_FOLDER = "run.json", "summary.json", "model"
_HINT = "restore it from a copy, or train again with another --out"


def read_run(out: Path) -> dict[str, Any]:
    """Read run.json of a run.

    Raises:
        DamageError: the file fails its checksum.
    """
    return sealed.read(out / RUN_FILE, hint=_HINT)


def read_summary(out: Path) -> dict[str, Any]:
    """Read the fields of summary.json of a finished run.

    Raises:
        DamageError: the file is missing or fails its checksum.
    """
    value = sealed.read(out / SUMMARY_FILE, hint=_HINT)
    value.pop(sealed.FILES, None)
    return value


def write_summary(out: Path, value: dict[str, Any]) -> None:
    """Write summary.json, including the digests of the model's files."""
    files = {
        path.relative_to(out).as_posix(): file_sha256(path)
        for path in sorted((out / MODEL_FOLDER).rglob("*"))
        if path.is_file()
    }
    sealed.write(out / SUMMARY_FILE, {**value, sealed.FILES: files})


def check_unclaimed(out: Path) -> None:
    """Refuse a folder that has no run.json but files of an earlier run.

    Raises:
        DamageError: the folder has checkpoints, a model or a summary.
    """
    for name in ("checkpoints", MODEL_FOLDER, SUMMARY_FILE):
        if (out / name).exists():
            raise DamageError(
                f"the file is missing, but the folder has {name} of a run",
                where=out / RUN_FILE,
                did="nothing was trained and nothing was changed",
                hint=_HINT,
                reason="run.damaged",
            )


def check_can_begin(out: Path) -> None:
    """Refuse to start at step 0 in the folder of a finished run.

    Raises:
        DamageError: the folder has a model but neither summary nor checkpoints, so one was lost.
    """
    checkpoints = out / "checkpoints"
    if (out / MODEL_FOLDER).exists() and not (checkpoints.is_dir() and any(checkpoints.iterdir())):
        raise DamageError(
            "the run has a model but neither summary.json nor checkpoints",
            where=out,
            did="nothing was trained and nothing was changed",
            hint=f"restore summary.json from a copy, or remove {MODEL_FOLDER}/ to train it again",
            reason="run.damaged",
        )


def check_model(out: Path) -> None:
    """Check the model of a run against the digests in its summary.

    Raises:
        NotFoundError: the run is not finished. DamageError: a file is missing or was changed.
    """
    if not (out / SUMMARY_FILE).is_file():
        raise NotFoundError(
            "the run is not finished",
            where=out,
            hint="run the same `curator pretrain` again to finish it",
            reason="model.not_found",
        )
    for name, sha256 in sealed.read(out / SUMMARY_FILE, hint=_HINT).get(sealed.FILES, {}).items():
        sealed.check_file(out / name, sha256, SUMMARY_FILE, hint=_HINT)
