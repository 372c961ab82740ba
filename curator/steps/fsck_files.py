"""Check files with a checksum of their own, and files that a listing names. Used by `fsck`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curator.core import hashing
from curator.core.errors import CuratorError, DamageError
from curator.core.hashing import file_sha256
from curator.steps.decide import FACT_FILES
from curator.store import fsops, listing, sealed
from curator.store.facts import CAPTIONS, SCORES
from curator.store.store import Store
from curator.store.versions import Version

_UNKNOWN = 1 << 62
SET_ASIDE = ".damaged"
"""Suffix of the files that `fsck --repair` set aside."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem. `where` is a path, `what` says what was expected and what was found."""

    where: str
    what: str


def found_in(error: CuratorError) -> Finding:
    """Convert an error to a finding."""
    return Finding(str(error.where), error.what)


# -- a store ---------------------------------------------------------------------------------------


def missing(store: Store, found: Sequence[Version]) -> Iterator[Finding]:
    """Yield missing files, and listings that are missing or lost lines."""
    listed: dict[Path, int] = {}
    for one in listing.all_listings(store.root):
        try:
            for path in one.missing():
                yield Finding(str(path), "the file is missing, but its listing names it")
            listed[one.path] = one.num_listed(".parquet")
        except DamageError as error:
            yield found_in(error)
            listed[one.path] = _UNKNOWN
    for version in found:
        for name, count in version.extra.get(FACT_FILES, {}).items():
            path = listing.Listing(store.root, name).path
            if listed.get(path, 0) < count:
                what = f"lists {listed.get(path, 0)} fact files, {version.name} was made from"
                yield Finding(str(path), f"{what} {count}")
                listed[path] = _UNKNOWN  # report it once


def tags(store: Store) -> Iterator[Finding]:
    """Yield tags that are damaged or name a missing version."""
    for path in sorted((store.root / "tags").glob("*.json")):
        try:
            number = int(sealed.read(path)["version"])
            if number not in store.numbers():
                yield Finding(str(path), f"names version {number}, which does not exist")
            else:
                store.tagged(path.stem)
        except (KeyError, ValueError, TypeError):
            yield Finding(str(path), "the tag cannot be read")
        except DamageError as error:
            if error.where == str(path):  # else the version is reported already
                yield found_in(error)


def runs(store: Store) -> Iterator[Finding]:
    """Yield records of commands that are damaged or lack one of their two files."""
    for folder in sorted((store.root / "runs").glob("*/")):
        if all(path.name.startswith(fsops.TEMP_PREFIX) for path in folder.iterdir()):
            continue  # the command crashed before the first file
        yield from _sealed_files(folder, [folder / "run.json"])
        log = folder / "log.jsonl"
        if log.exists():
            yield from _log_lines(log)


def spelling(store: Store, number: int) -> Iterator[Finding]:
    """Yield a manifest whose bytes changed although its parsed content is still correct."""
    path = store.manifest_path(number)
    data = path.read_bytes().rstrip(b"\n")
    if hashing.canonical_json(sealed.parse(data, path).value) != data:
        yield Finding(
            str(path), "the content is correct, but its bytes are not those that were written"
        )


def unlisted(store: Store) -> Iterator[Finding]:
    """Yield folders without a listing: an older version wrote them, or the listing was lost."""
    for name, pattern in {
        "versions": "versions/*.json",
        "edits": "edits/**/*.log",
        "ratings": "facts/ratings/*.json",
        **{
            f"{kind}/{maker}": f"facts/{kind}/{maker}/**/*.parquet"
            for kind in (CAPTIONS, SCORES)
            for maker in store.makers(kind)
        },
    }.items():
        path = listing.Listing(store.root, name).path
        if not path.exists() and any(store.root.glob(pattern)):
            what = "no listing: written by an older version, or lost; the next write starts one"
            yield Finding(str(path), what)


def without_checksum(root: Path) -> int:
    """Count the JSON files without a checksum, written by an older version."""
    count = 0
    for pattern in (
        "store.json",
        "dataset.json",
        "tags/*.json",
        "facts/ratings/*.json",
        "runs/*/run.json",
    ):
        for path in root.glob(pattern):
            try:
                count += not sealed.load(path).is_sealed
            except DamageError:
                continue
    return count


# -- any folder ------------------------------------------------------------------------------------

ROOTS = ("study.json", "run.json", "curator_version.json", "curator_pack.json")
"""A folder with one of these is the root of the paths in its sealed files."""
_DERIVED = (".html", ".md", ".toml", ".tfevents")


def folder(root: Path) -> tuple[list[Finding], list[Finding], int]:
    """Check a folder that `study`, `pretrain`, `finetune`, `export` or `pack` wrote.

    Returns:
        damage, notices, and the number of files that were checked.
    """
    damage: list[Finding] = []
    unsealed: list[Path] = []
    named: set[Path] = set()
    others: list[Path] = []
    paths = [path for path in sorted(root.rglob("*")) if path.is_file()]
    for path in paths:
        if path.suffix == ".json":
            damage += _sealed_files(_root_of(path, root), [path], named, unsealed)
        elif path.suffix == ".jsonl":
            damage += _log_lines(path)
        elif path.suffix == ".parquet":
            damage += _table(path)
        else:
            others.append(path)
    damage += [
        Finding(str(path.with_suffix(".json")), f"the file is missing, but {path.name} exists")
        for path in others
        if path.parent.name == "checkpoints" and path.suffix == ".safetensors"
        if not path.with_suffix(".json").exists()
    ]
    loose = [path for path in others if path not in named and not _is_derived(path)]
    notices = [Finding(str(path), "no checksum: an older version wrote it") for path in unsealed]
    notices += [Finding(str(path), "not checked: no checksum covers it") for path in loose]
    return damage, notices, len(paths) - len(loose)


def _is_derived(path: Path) -> bool:
    """Whether a file is read only by people, never by a command, or holds no data."""
    return path.name.startswith((".", "events.out.")) or path.suffix in _DERIVED


def _root_of(path: Path, top: Path) -> Path:
    for parent in path.parents:
        if parent == top or any((parent / name).is_file() for name in ROOTS):
            return parent
    return top


def _sealed_files(
    root: Path,
    paths: Sequence[Path],
    named: set[Path] | None = None,
    unsealed: list[Path] | None = None,
) -> Iterator[Finding]:
    """Yield damage of sealed files, and of the files that they name."""
    for path in paths:
        try:
            value, is_sealed = sealed.load(path)
        except DamageError as error:
            yield found_in(error)
            continue
        if not is_sealed and unsealed is not None:
            unsealed.append(path)
        for name, sha256 in _named_by(path, value):
            other = root / name
            if named is not None:
                named.add(other)
            if not other.is_file():
                yield Finding(str(other), f"the file is missing, but {path.name} names it")
            elif (found := file_sha256(other)) != sha256:
                what = f"sha256 is {found[:12]}, expected {sha256[:12]} ({path.name})"
                yield Finding(str(other), what)


def _named_by(path: Path, value: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (name, sha256) of the files under `files`, and of a checkpoint's tensor file."""
    files = value.get(sealed.FILES, {})
    for name, about in files.items() if isinstance(files, dict) else ():
        sha256 = about.get("sha256") if isinstance(about, dict) else about
        if isinstance(sha256, str):
            yield name, sha256
    if path.parent.name == "checkpoints" and isinstance(value.get("sha256"), str):
        whole = path.with_suffix(".safetensors")
        there = whole if whole.exists() else path.with_suffix(".unfinished")
        yield f"checkpoints/{(there if there.exists() else whole).name}", value["sha256"]


def _log_lines(path: Path) -> Iterator[Finding]:
    try:
        sealed.lines(path.read_bytes(), path)
    except DamageError as error:
        yield found_in(error)


def _table(path: Path) -> Iterator[Finding]:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            file.read()
    except (pa.ArrowException, OSError) as error:
        yield Finding(str(path), f"the table cannot be read ({str(error)[:100]})")
