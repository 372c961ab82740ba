"""What `fsck` finds in files that vouch for themselves or are vouched for by a listing."""

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
"""What the name of a file ends in that `fsck --repair` set aside."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. `where` is a path, `what` names expected and found."""

    where: str
    what: str


def found_in(error: CuratorError) -> Finding:
    """An error as a finding."""
    return Finding(str(error.where), error.what)


# -- a store ---------------------------------------------------------------------------------------


def missing(store: Store, found: Sequence[Version]) -> Iterator[Finding]:
    """Files that are gone, and listings that are gone or lost lines."""
    listed: dict[Path, int] = {}
    for one in listing.all_listings(store.root):
        try:
            for path in one.missing():
                yield Finding(str(path), "the file is missing, its listing names it")
            listed[one.path] = one.num_listed(".parquet")
        except DamageError as error:
            yield found_in(error)
            listed[one.path] = _UNKNOWN
    for version in found:
        for name, count in version.extra.get(FACT_FILES, {}).items():
            path = listing.Listing(store.root, name).path
            if listed.get(path, 0) < count:
                what = f"{listed.get(path, 0)} fact files listed, {version.name} was made from"
                yield Finding(str(path), f"{what} {count}")
                listed[path] = _UNKNOWN  # it is said once


def tags(store: Store) -> Iterator[Finding]:
    """Tags that are not what was written, or name a version that is not there."""
    for path in sorted((store.root / "tags").glob("*.json")):
        try:
            number = int(sealed.read(path)["version"])
            if number not in store.numbers():
                yield Finding(str(path), f"names version {number}: not there")
            else:
                store.tagged(path.stem)
        except (KeyError, ValueError, TypeError):
            yield Finding(str(path), "the tag is not readable")
        except DamageError as error:
            if error.where == str(path):  # else the version is named already
                yield found_in(error)


def runs(store: Store) -> Iterator[Finding]:
    """Records of commands that are not what was written, or lack one of their two files."""
    for folder in sorted((store.root / "runs").glob("*/")):
        if all(path.name.startswith(fsops.TEMP_PREFIX) for path in folder.iterdir()):
            continue  # a crash came before the first file
        yield from _sealed_files(folder, [folder / "run.json"])
        log = folder / "log.jsonl"
        if log.exists():
            yield from _log_lines(log)


def spelling(store: Store, number: int) -> Iterator[Finding]:
    """A manifest with the right content, spelled as it never was: by a bit that says the same."""
    path = store.manifest_path(number)
    data = path.read_bytes().rstrip(b"\n")
    if hashing.canonical_json(sealed.parse(data, path).value) != data:
        yield Finding(str(path), "the content is right, its bytes are not those that were written")


def unlisted(store: Store) -> Iterator[Finding]:
    """Files without a listing: of an older version, or the listing is gone."""
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
            what = "no listing: it is of an older version, or the listing is gone; the next write"
            yield Finding(str(path), f"{what} begins one")


def without_checksum(root: Path) -> int:
    """How many JSON files were written by a version that knew no checksums."""
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
    """Damage and notices of what `study`, `pretrain`, `finetune`, `export` and `pack` wrote.

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
        Finding(str(path.with_suffix(".json")), f"the file is missing, {path.name} is there")
        for path in others
        if path.parent.name == "checkpoints" and path.suffix == ".safetensors"
        if not path.with_suffix(".json").exists()
    ]
    loose = [path for path in others if path not in named and not _is_derived(path)]
    notices = [Finding(str(path), "written before there were checksums") for path in unsealed]
    notices += [Finding(str(path), "nothing vouches for it") for path in loose]
    return damage, notices, len(paths) - len(loose)


def _is_derived(path: Path) -> bool:
    """A file that people read and no command does, or that holds no data."""
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
    """Damage of sealed files, and of the files that they name."""
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
                yield Finding(str(other), f"the file is missing, {path.name} names it")
            elif (found := file_sha256(other)) != sha256:
                what = f"sha256 is {found[:12]}, {path.name} says {sha256[:12]}"
                yield Finding(str(other), what)


def _named_by(path: Path, value: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and digests: under `files`, and of a checkpoint those of its numbers."""
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
        yield Finding(str(path), f"the table is not readable ({str(error)[:100]})")
