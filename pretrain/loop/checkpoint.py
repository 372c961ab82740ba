"""Write and read checkpoints: tensors in safetensors, and a JSON manifest that makes them valid.

    00001200.safetensors   model and optimizer
    00001200.json          manifest: step, what was trained, sha256 of the tensors

The tensors are written first, as 00001200.unfinished, and renamed once the manifest exists. A crash
therefore never leaves 00001200.safetensors without a manifest: where one is missing, a file was
lost, and training refuses to start over at step 0.

All randomness of a step comes from (seed, step), and the step determines its place in the data, so
a checkpoint stores neither. A resumed training is bit-identical to one that never stopped (on the
same machine, with the same number of threads). The two newest checkpoints are kept; if the newest
is damaged, the steps since the one before are repeated. Writing takes three times the size of the
model, once in memory and once on disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from curator.core.errors import DamageError, FormatError
from curator.core.progress import say
from curator.store import fsops, sealed

_FORMAT = 1
_KEPT = 2
_MODEL, _OPTIMIZER = "model.", "optimizer."
_NUMBERS, _UNFINISHED = ".safetensors", ".unfinished"


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """State after `step` steps. `facts` are small JSON values of the caller."""

    step: int
    tensors: dict[str, torch.Tensor]
    facts: dict[str, Any]

    def restore(self, module: torch.nn.Module, optimizer: torch.optim.Optimizer | None) -> None:
        """Load the tensors into a model and an optimizer built as when they were saved.

        Raises:
            RuntimeError: the model has other parameters.
        """
        module.load_state_dict(_part(self.tensors, _MODEL))
        if optimizer is None:
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in _part(self.tensors, _OPTIMIZER).items():
            number, _, what = name.partition(".")
            parameter = parameters[int(number)]
            if value.shape == parameter.shape:
                # The kernels walk through a parameter and its moments side by side and ignore
                # strides, so the moments must have the parameter's layout (channels last).
                laid_out = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            else:
                laid_out = value
            state.setdefault(int(number), {})[what] = laid_out
        optimizer.load_state_dict(
            {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
        )


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def save_checkpoint(
    folder: Path,
    step: int,
    module: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    facts: dict[str, Any],
) -> None:
    """Write a checkpoint atomically and remove all but the two newest."""
    data = save(dict(_named(module, optimizer)))
    manifest = {
        "format": _FORMAT,
        "step": step,
        "sha256": hashlib.sha256(data).hexdigest(),
        "facts": facts,
    }
    fsops.write_atomic(_unfinished(folder, step), data)
    sealed.write(_manifest(folder, step), manifest)
    fsops.rename(_unfinished(folder, step), _numbers(folder, step))
    for old in _steps(folder)[_KEPT:]:
        fsops.remove(_manifest(folder, old))
    kept = {f"{number:08d}" for number in _steps(folder)}
    for path in folder.iterdir():
        left_over = path.name.startswith(fsops.TEMP_PREFIX)
        if left_over or (path.suffix in (_NUMBERS, _UNFINISHED) and path.stem not in kept):
            fsops.remove(path)


def _named(
    module: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> Iterator[tuple[str, torch.Tensor]]:
    written: set[int] = set()
    for name, value in module.state_dict().items():
        # safetensors refuses two names for one memory, so tied weights are written twice.
        apart = value.clone() if value.data_ptr() in written else value
        written.add(value.data_ptr())
        yield _MODEL + name, apart.detach().cpu().contiguous()
    for number, values in optimizer.state_dict()["state"].items():
        for what, value in values.items():
            yield f"{_OPTIMIZER}{number}.{what}", value.detach().cpu().contiguous()


def newest_valid(folder: Path) -> Checkpoint | None:
    """Return the newest intact checkpoint, or None where there is no checkpoint at all.

    Damaged or incomplete checkpoints are skipped, with a message.

    Raises:
        DamageError: there are checkpoints but none is intact; starting over would lose work
            silently.
        FormatError: written by a newer version of this tool.
    """
    steps = {*_steps(folder), *(int(path.stem) for path in folder.glob(f"[0-9]*{_NUMBERS}"))}
    for step in sorted(steps, reverse=True):
        found = _read(folder, step)
        if found is not None:
            return found
    if steps:
        raise DamageError(
            f"none of the {len(steps)} checkpoints is intact",
            where=folder,
            did="nothing was trained and nothing was changed",
            hint="restore one from a backup; or start over at step 0 with another --out, or here "
            "after removing this folder",
            reason="checkpoint.damaged",
        )
    return None


def _read(folder: Path, step: int) -> Checkpoint | None:
    path = _numbers(folder, step)
    if not path.exists() and _unfinished(folder, step).exists():
        path = _unfinished(folder, step)  # a crash came just before the rename
    try:
        manifest = sealed.read(_manifest(folder, step))
        data = path.read_bytes()
    except (OSError, DamageError) as error:
        say(f"checkpoint of step {step:,} cannot be read ({error}): trying the one before")
        return None
    if manifest.get("format", 0) > _FORMAT:
        raise FormatError(f"checkpoint format {manifest['format']}", where=path)
    if hashlib.sha256(data).hexdigest() != manifest.get("sha256"):
        say(f"checkpoint of step {step:,} fails its checksum ({path}): trying the one before")
        return None
    return Checkpoint(step=step, tensors=load(data), facts=manifest["facts"])


def _numbers(folder: Path, step: int) -> Path:
    return folder / f"{step:08d}{_NUMBERS}"


def _unfinished(folder: Path, step: int) -> Path:
    return folder / f"{step:08d}{_UNFINISHED}"


def _manifest(folder: Path, step: int) -> Path:
    return folder / f"{step:08d}.json"


def _steps(folder: Path) -> list[int]:
    """Return the steps that have a manifest, newest first."""
    return sorted((int(path.stem) for path in folder.glob("[0-9]*.json")), reverse=True)
