"""Check the machine, the store and the models before a long run."""

from __future__ import annotations

import platform
import re
import resource
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from curator.captioners import CAPTIONERS, DEFAULT_CAPTIONER
from curator.captioners.server import reach
from curator.core.errors import CuratorError, NotFoundError, mask_secrets
from curator.core.model_spec import ModelSpec
from curator.core.models import identify
from curator.core.package import EXTRAS, first_missing, install_command
from curator.core.registry import Registry
from curator.engine.makers import check_row, default_model
from curator.scorers import OF_MODELS, SCORERS
from curator.shards.dataset import discover
from curator.store import fsops

_FLOOR = re.compile(r"(?P<name>[A-Za-z0-9._-]+)\s*>=\s*(?P<floor>[\d.]+)")
# All others are shown only if they are too old.
_SHOWN = ("pillow", "pyarrow", "torch", "streamlit")
_MIN_FREE_BYTES = 1 << 30
_MIN_OPEN_FILES = 1024


@dataclass(frozen=True, slots=True)
class DoctorCheck:
    """One check: `status` is ok, warn or fail."""

    name: str
    status: str
    text: str


def doctor(
    store_root: Path,
    dataset: Path | str | None = None,
    *,
    scorer: str | None = None,
    captioner: str | None = None,
    model: str | None = None,
    urls: Sequence[str] = (),
) -> Iterator[DoctorCheck]:
    """Run all checks for a store in this folder, which may not exist yet.

    `dataset`, a folder or a URL, must exist. `scorer` and `captioner` are the values for --scorer
    and --captioner of the planned run, `model` and `urls` those of the captioner; None means the
    default of a run.
    """
    if isinstance(dataset, str):
        yield _shards(dataset)
    elif dataset is not None and not dataset.exists():
        yield DoctorCheck("dataset", "fail", f"{dataset} does not exist")
    yield DoctorCheck("python", "ok", platform.python_version())
    yield from _packages()
    missing = {extra: first_missing(extra) for extra in EXTRAS}
    for extra, module in missing.items():
        if module is not None:
            said = f"{module} is not installed; if you need it: {install_command(extra)}"
            yield DoctorCheck(f"extra {extra}", "warn", said)
    has_models = missing["models"] is None
    if has_models:
        yield _device()
    folder = next(path for path in (store_root, *store_root.parents) if path.exists())
    yield _space(folder)
    yield _open_files()
    yield _put_if_absent(folder)
    row, _, named = (scorer or OF_MODELS).partition("=")
    if row not in SCORERS and scorer and ("/" in scorer or ":" in scorer):
        row, named = OF_MODELS, scorer
    yield from _needs(SCORERS, row, named or None, (), asked=scorer is not None)
    if captioner is None and urls:
        captioner = next(name for name, spec in CAPTIONERS.rows.items() if spec.needs == "server")
    is_asked = captioner is not None
    yield from _needs(CAPTIONERS, captioner or DEFAULT_CAPTIONER, model, urls, asked=is_asked)


def _shards(url: str) -> DoctorCheck:
    """Check that the shards at a URL can be listed."""
    try:
        return DoctorCheck("dataset", "ok", f"{len(discover(url).shards):,} shards at {url}")
    except CuratorError as error:
        return DoctorCheck("dataset", "fail", str(error))


def _needs(
    table: Registry[Any], row: str, model: str | None, urls: Sequence[str], *, asked: bool
) -> Iterator[DoctorCheck]:
    """Check that the model or server that a row of a table needs is available.

    Without `asked`, for a default that the run may not use, a missing extra is not a failure.
    """
    known = table.rows.get(row)
    module = first_missing("models")
    if known is not None and known.needs == "model" and module is not None:
        if asked:
            text = f"{row} needs {module}, which is not installed; {install_command('models')}"
            yield DoctorCheck(table.kind, "fail", text)
        return  # the check of the extra reports it
    try:
        spec: ModelSpec = check_row(table, row)
    except CuratorError as error:
        yield DoctorCheck(table.kind, "fail", str(error))
        return
    if spec.needs == "server":
        if not urls:
            yield DoctorCheck("server", "fail", f"{table.kind} {row!r} needs --url")
        yield from map(_server, urls)
    elif spec.needs == "model":
        named = model or default_model(spec, None)
        if named is None:
            yield DoctorCheck(table.kind, "fail", f"{table.kind} {row!r} needs a model")
        else:
            yield _model(table.kind, named)


def _packages() -> Iterator[DoctorCheck]:
    """Compare what is installed with the floors of pyproject.toml, as the package states them."""
    floors = {}
    for line in requires("caption-curator") or []:
        if found := _FLOOR.match(line):
            floors[found["name"].lower()] = found["floor"]
    for package, floor in floors.items():
        try:
            version = package_version(package)
        except PackageNotFoundError:
            continue  # part of an extra; reported as such
        is_old = _numbers(version) < _numbers(floor)
        if is_old or package in _SHOWN:
            status = "fail" if is_old else "ok"
            yield DoctorCheck(package, status, f"{version} (at least {floor})")


def _numbers(version: str) -> tuple[int, ...]:
    """The release of a version: 2.10 for 2.10.0rc1+cpu, without zeros at its end."""
    found = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in found[0].split(".")] if found else []
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def _device() -> DoctorCheck:
    from curator.core.devices import gpu_names

    names = gpu_names()
    if not names:
        return DoctorCheck("device", "warn", "no CUDA device: captioning runs on the CPU, slowly")
    return DoctorCheck("device", "ok", ", ".join(names))


def _space(folder: Path) -> DoctorCheck:
    free = shutil.disk_usage(folder).free
    status = "ok" if free >= _MIN_FREE_BYTES else "warn"
    return DoctorCheck("disk", status, f"{free / 2**30:.1f} GiB free at {folder}")


def _open_files() -> DoctorCheck:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return DoctorCheck("open files", "ok" if soft >= _MIN_OPEN_FILES else "warn", f"limit {soft}")


def _put_if_absent(folder: Path) -> DoctorCheck:
    """Check exclusive creation, which commits need: a second put of a name must be refused."""
    probe = folder / f"{fsops.TEMP_PREFIX}doctor-{secrets.token_hex(4)}"
    try:
        first = fsops.put_if_absent(probe, b"1")
        second = fsops.put_if_absent(probe, b"2")
        fsops.remove(probe)
    except (CuratorError, OSError) as error:
        return DoctorCheck("commit", "fail", f"{folder} cannot be written: {error}")
    if first and not second:
        return DoctorCheck("commit", "ok", f"exclusive creation works at {folder}")
    return DoctorCheck("commit", "fail", f"{folder} lets a second writer overwrite a commit")


def _model(kind: str, model: str) -> DoctorCheck:
    try:
        return DoctorCheck(kind, "ok", str(identify(model)))
    except NotFoundError as error:
        if error.reason != "model.unknown_revision":
            return DoctorCheck(kind, "fail", str(error))
    except CuratorError as error:
        return DoctorCheck(kind, "fail", str(error))
    from curator.core import hub

    if (why := hub.why_unreachable()) is not None:
        return DoctorCheck(kind, "fail", f"{model} is not in the hub cache, and {why}")
    return DoctorCheck(
        kind, "warn", f"{model} is not in the hub cache; it is downloaded on first use"
    )


def _server(url: str) -> DoctorCheck:
    try:
        reach(url)
    except CuratorError as error:
        return DoctorCheck("server", "fail", str(error))
    return DoctorCheck("server", "ok", f"{mask_secrets(url)} answers")
