"""Find a model and identify its weights: names, local folders, the hub cache. Imports no torch.

Scorers and captioners name a model in one of three ways:

    a folder                     models/my-clip, local-dir:models/my-clip
    a hub repository             org/name, hf-hub:org/name
    an open_clip name and tag    ViT-B-32:laion2b_s34b_b79k (open_clip knows the repository)

`locate` returns the folder with its files, from the hub's cache or the hub; `identify` returns
which weights these are, without any network, because facts are keyed by it. Weights must be
safetensors; pickled ones are refused, because loading them runs code.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from curator.core.errors import EngineError, NotFoundError, UsageError
from curator.core.model_spec import TRANSFORMERS_FILES

_PICKLES = frozenset((".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"))
_MODEL_FILES = frozenset((".safetensors", ".json", ".jinja", ".txt", ".model", ".tiktoken"))
# Files beside a model that describe it and do not affect its output.
_ABOUT = re.compile(
    r"(readme|license|licence|notice|usage|use_policy|requirements|metrics|trainer_state"
    r"|(all|eval|train)_results)\b.*",
    re.IGNORECASE,
)
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_OPEN_CLIP = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*):(?P<tag>[A-Za-z0-9][\w.-]*)")


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Identity of weights: `name` is for people, `revision` pins them.

    `revision` is the commit of a hub repository, or `sha256:` and 64 hex digits over the files
    of a local folder.
    """

    name: str
    revision: str

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}"


def identify(model: str, *, revision: str | None = None) -> ModelIdentity:
    """Identify the model named `model`, from local files only.

    A folder is named by its last part and pinned by its content, so a copy elsewhere is the same
    model; its files are read completely once per process. A hub repository is pinned by
    `revision`, else by the commit in the local cache.

    Raises:
        UsageError: the name has none of the three forms, or the folder has no safetensors weights.
        NotFoundError: no such folder, or a hub model that is neither cached nor pinned.
    """
    folder = _folder(model)
    if folder is not None:
        return ModelIdentity(folder.name, f"sha256:{_fingerprint(folder, revision)}")
    name, repository = _hub_name(model), _repository(model)
    if revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision):
        return ModelIdentity(name, revision)
    cached = _cached(repository, revision)
    if cached is None:
        raise NotFoundError(
            f"{repository!r} is not in the hub cache, so its revision is unknown",
            hint="run once with access to the hub, give a full commit as the revision, or "
            + _by_hand(repository),
            reason="model.unknown_revision",
        )
    return ModelIdentity(name, cached.name)


def locate(
    model: str,
    *,
    revision: str | None = None,
    files: tuple[str, ...] = TRANSFORMERS_FILES,
    option: str = "--model",
) -> Path:
    """Return the folder with the files of `model`; downloads them if they are not cached.

    Cached files are used as they are, without asking the hub for newer ones: the same command uses
    the same model tomorrow. `files` are the patterns to fetch; `option` is the option by which the
    user names a folder instead.

    Raises:
        UsageError: the name has none of the three forms, or there are no safetensors weights.
        NotFoundError: no such folder, repository or revision.
        EngineError: the hub cannot be reached or refuses.
    """
    folder = _folder(model)
    if folder is None:
        repository = _repository(model)
        folder = _cached(repository, revision)
        if folder is None or _missing(folder, files):
            folder = _fetch(repository, revision, files, option)
    elif revision is not None:
        raise _no_revision(folder)
    weights(folder)
    return folder


def at_hand(model: str, *, revision: str | None = None) -> Path | None:
    """Return the folder of `model` if it is here, in a folder or the hub's cache; else None."""
    try:
        return _folder(model) or _cached(_repository(model), revision)
    except (UsageError, NotFoundError):
        return None


def weights(folder: Path) -> list[Path]:
    """List the safetensors files of a model folder, sorted by name.

    Raises:
        UsageError: there are none; names the pickled files found instead.
    """
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
        raise UsageError(
            f"only pickled weights ({', '.join(pickles)})" if pickles else "no weights",
            where=folder,
            did="nothing was loaded",
            hint="a folder needs *.safetensors; pickles run code and are never read",
            reason="model.pickle" if pickles else "model.no_weights",
        )
    return found


def _folder(model: str) -> Path | None:
    """Return the local folder that `model` names, or None if it names something on the hub."""
    name = model.removeprefix("local-dir:")
    path = Path(name).expanduser()
    if name and path.is_dir():
        return path.resolve()
    path_like = model.startswith(("local-dir:", ".", "/", "~")) or model.count("/") > 1
    if path_like:
        raise NotFoundError(f"no model folder {str(path)!r}", reason="model.not_found")
    return None


def _hub_name(model: str) -> str:
    return model.removeprefix("hf-hub:")


def _repository(model: str) -> str:
    """Return the hub repository `org/name` for a name that is not a folder."""
    name = _hub_name(model)
    if _REPOSITORY.fullmatch(name):
        return name
    tagged = _OPEN_CLIP.fullmatch(name)
    if tagged is not None:
        from curator.core.open_clip_names import repository

        return repository(tagged["name"], tagged["tag"])
    raise UsageError(
        f"{model!r} does not name a model",
        hint="give a folder, a hub repository (org/name) or an open_clip model with its tag "
        "(ViT-B-32:laion2b_s34b_b79k)",
        reason="model.name",
    )


def _cached(repository: str, revision: str | None) -> Path | None:
    """Return the cached snapshot of `repository`, a folder named by the commit; or None."""
    from curator.core import hub

    return hub.cached(repository, revision)


def _missing(folder: Path, files: tuple[str, ...]) -> list[str]:
    """Return the files that a cached snapshot lacks, as after an interrupted download."""
    index = folder / "model.safetensors.index.json"
    wanted = {name for name in files if "*" not in name}
    if index.exists():
        wanted |= set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    missing = sorted(name for name in wanted if not (folder / name).exists())
    return missing if missing or any(folder.glob("*.safetensors")) else ["*.safetensors"]


def _fetch(repository: str, revision: str | None, files: tuple[str, ...], option: str) -> Path:
    from curator.core import hub

    by_hand = _by_hand(repository, option)
    folder = hub.fetch(repository, revision, files, by_hand)
    # Offline, huggingface_hub returns any partial snapshot that is cached.
    missing = _missing(folder, files)
    if missing:
        raise EngineError(
            f"model {repository!r} lacks {', '.join(missing)}",
            where=folder,
            hint="the hub cannot be reached, or has only pickled weights (docs/reference/models.md "
            "says how to convert those); " + by_hand,
            reason="model.incomplete",
        )
    return folder


def _by_hand(repository: str, option: str = "--model") -> str:
    folder = repository.rsplit("/", 1)[-1]
    return (
        "on a machine with access to the hub run: "
        f"hf download {repository} --exclude '*.bin' '*.pt' --local-dir {folder} "
        f"and give the folder: {option} {folder}"
    )


def _no_revision(folder: Path) -> UsageError:
    return UsageError(
        "a local folder takes no revision: its content identifies it",
        where=folder,
        reason="model.revision",
    )


def _fingerprint(folder: Path, revision: str | None) -> str:
    """Return the SHA-256 over the sorted (relative name, SHA-256) of the model's files."""
    if revision is not None:
        raise _no_revision(folder)
    weights(folder)
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in _MODEL_FILES):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts)
        if hidden or _ABOUT.fullmatch(path.name) or not path.is_file():
            continue
        stat = path.stat()
        digest = _file_sha256(path, stat.st_size, stat.st_mtime_ns)
        total.update(f"{name.as_posix()}\0{digest}\n".encode())
    return total.hexdigest()


@functools.lru_cache(maxsize=1024)
def _file_sha256(path: Path, size: int, mtime_ns: int) -> str:
    """Hash a file; `size` and `mtime_ns` only make a changed file miss the cache."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
