"""Files in the folder of a pretraining run, and the checks that they are intact. Torch-free.

run.json        identity of the folder: recipe, digest, source, versions; written first
checkpoints/    see `pretrain.loop.checkpoint`
log.jsonl       a line every ten steps, each with a checksum
model/          the trained model
summary.json    written last; lists every file of the model with its digest
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from curator.core.errors import DamageError, NotFoundError, UsageError
from curator.core.hashing import file_sha256
from curator.store import sealed
from pretrain.data.cuts import Cuts

RUN_FILE, SUMMARY_FILE, MODEL_FOLDER = "run.json", "summary.json", "model"
_HINT = "restore it from a backup, or train again with another --out"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """The summary of a finished run.

    `flops` are those of forward and backward over all steps, counted on the first step and
    multiplied. `seconds` cover training alone, summed over resumptions. `final` is the last line of
    the log. `retrieval` and `zero_shot` are measured on held-out pairs; empty for objectives
    without text. `texts` and `held_out_texts` are `pretrain.data.cuts.Cuts` of the training texts
    and of the held-out texts; empty without text, and in runs of older versions of this tool.
    """

    recipe: str
    recipe_digest: str
    source: str
    source_id: str
    steps: int
    samples_seen: int
    epochs: float
    flops: int
    seconds: float
    precision: str
    device: str
    num_processes: int
    num_parameters: int
    final: dict[str, float]
    retrieval: dict[str, float]
    zero_shot: dict[str, float]
    finished_at: float
    texts: dict[str, int] = field(default_factory=dict)
    held_out_texts: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def cut_texts(self) -> list[str]:
        """Return sentences on the texts cut at the text tower's context; empty if none was cut."""
        parts = (("", self.texts), ("held-out pairs: ", self.held_out_texts))
        said = [
            f"{what}{Cuts(**found).sentence()}" for what, found in parts if found.get("num_cut")
        ]
        if cut := self.zero_shot.get("num_words_cut"):
            said.append(f"zero-shot: the prompts of {cut:,.0f} words are longer than the context")
        return said


def read_run(out: Path) -> dict[str, Any]:
    """Read run.json of a run.

    Raises:
        DamageError: the file fails its checksum.
    """
    return sealed.read(out / RUN_FILE, hint=_HINT)


def read_summary(out: Path) -> RunSummary:
    """Return the summary of a finished run.

    Raises:
        UsageError: not a finished run. DamageError: the summary fails its checksum.
    """
    path = out / SUMMARY_FILE
    if not path.is_file():
        raise UsageError(
            "no finished run here", where=out, hint="finish it with `curator pretrain`"
        )
    value = sealed.read(path, hint=_HINT)
    value.pop(sealed.FILES, None)
    try:
        return RunSummary(**value)
    except TypeError as error:
        raise DamageError(f"the summary has other fields ({error})", where=path) from error


def write_summary(out: Path, summary: RunSummary) -> None:
    """Write summary.json, including the digests of the model's files."""
    files = {
        path.relative_to(out).as_posix(): file_sha256(path)
        for path in sorted((out / MODEL_FOLDER).rglob("*"))
        if path.is_file()
    }
    sealed.write(out / SUMMARY_FILE, {**summary.to_json(), sealed.FILES: files})


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
            hint=f"restore summary.json from a backup, or remove {MODEL_FOLDER}/ to train it again",
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
