"""Output folders that a command fills file by file and can resume after a crash.

Used by `pack` and `export`. While the folder is being filled it holds the command's recipe in a
hidden file; at the end the manifest, which repeats the recipe, is written last. A command that
finds another recipe, or files without a recipe, refuses the folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from curator.core.errors import UsageError
from curator.core.hashing import canonical_json
from curator.shards import objects
from curator.shards.places import Place, Remote, read_small
from curator.shards.tar import BLOCK, END_OF_ARCHIVE, member_header
from curator.store import fsops, sealed
from curator.store.versions import STORE_TOOL

CLAIM = ".curator-recipe.json"
LOCK = ".curator-lock"
EXPORT_MANIFEST = "curator_version.json"
PACK_MANIFEST = "curator_pack.json"
STORE_MARKER = "store.json"

_FLUSH_BYTES = 8 << 20
_MANIFEST_BYTES = 1 << 30
_AGAIN = "restore it from a backup, or write the output again elsewhere"
_DRIVE = re.compile(r"[A-Za-z]:")

Recipe = Mapping[str, Any]


def inside(root: Place, name: str) -> Place:
    """Return `root / name`, for a name from untrusted data.

    Raises:
        UsageError: the name points outside, or cannot be a file name; nothing was written.
    """
    parts = name.split("/")
    if (
        not name.isprintable()
        or "\\" in name
        or _DRIVE.match(name)
        or any(part in ("", ".", "..") for part in parts)
    ):
        raise UsageError(
            f"the name {name!r} points outside the output folder or is not a file name",
            where=root,
            did="nothing was written under this name",
            hint="rename the shard and index it again",
            reason="path.traversal",
        )
    return root / name


@contextlib.contextmanager
def new_file(place: Place) -> Iterator[Sink]:
    """Open a file or an object for streaming; it is there when the block ends without an error."""
    if isinstance(place, Remote):
        with objects.writing(place) as file:
            yield file
    else:
        with fsops.atomic_file(place) as file:
            yield file


def put(place: Place, data: bytes) -> None:
    """Create or replace a small file or object, all or nothing."""
    if isinstance(place, Remote):
        objects.put(place, data)
    else:
        fsops.write_atomic(place, data)


def is_export(folder: Place) -> bool:
    """Whether `curator export` filled this folder, or is filling it."""
    if isinstance(folder, Remote):
        marks = objects.stat([folder / EXPORT_MANIFEST, folder / CLAIM])
        return any(mark.exists() for mark in marks)
    return (folder / EXPORT_MANIFEST).is_file() or _claimed_by(folder) == "export"


def is_output(folder: Path) -> bool:
    """Whether `curator export` or `curator pack` filled this folder, or is filling it."""
    return is_export(folder) or (folder / PACK_MANIFEST).is_file() or _claimed_by(folder) == "pack"


def _claimed_by(folder: Path) -> object:
    return _read_object(folder / CLAIM).get("verb")


def check_outside(out: Path, taken: Path, what: str, *, hint: str = "a folder beside it") -> None:
    """Refuse an output folder that is `taken` or inside it; links are followed.

    Raises:
        UsageError: output.inside_source; nothing was written.
    """
    if out.resolve().is_relative_to(taken.resolve()):
        raise UsageError(
            f"the output folder is inside {what}",
            where=out,
            did="nothing was written",
            hint=f"give {hint}",
            reason="output.inside_source",
        )


def _check_no_store(root: Path) -> None:
    whole = root.resolve()
    for folder in (whole, *whole.parents):
        if _read_object(folder / STORE_MARKER).get("tool") == STORE_TOOL:
            check_outside(root, folder, f"the store {folder}")


def _read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; an empty one if there is no file."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@contextlib.contextmanager
def filling(root: Place, *, manifest: str, recipe: Recipe) -> Iterator[None]:
    """Hold a new, empty or own folder exclusively for the block.

    A folder of an object store is claimed by a recipe and not locked: processes with the same
    recipe write the same bytes to the same names. `manifest` is the name of the
    file that the block writes last, with `write_manifest`.

    Raises:
        UsageError: the folder holds other files (reason `output.foreign`), was started with
            another recipe (`output.other`), or is in a store (`output.inside_source`); nothing
            was written.
        ConflictError: another process is filling it.
    """
    if isinstance(root, Remote):
        objects.check_writable(root)
        _check_owner(root, manifest, recipe)
        if not objects.stat([root / manifest])[0].exists():
            objects.put(root / CLAIM, sealed.to_bytes(recipe), is_new=True)
            _check_owner(root, manifest, recipe)  # again: another process may have been faster
        yield  # the claim stays: a bucket may allow no deletes
        return
    _check_no_store(root)
    _check_owner(root, manifest, recipe)
    with fsops.locked(root / LOCK):
        _check_owner(root, manifest, recipe)  # check again: from here on nobody else can claim it
        for leftover in sorted(root.rglob(f"{fsops.TEMP_PREFIX}*")):
            fsops.remove(leftover)
        if not (root / manifest).exists():
            sealed.write(root / CLAIM, recipe)
        yield
        fsops.remove(root / CLAIM)


def write_manifest(path: Place, recipe: Recipe, body: Mapping[str, Any]) -> None:
    """Write the manifest, the last file of a `filling` block: it marks the output as complete."""
    write_json(path, {"recipe": recipe, **body})


def write_json(path: Place, value: Mapping[str, Any]) -> None:
    """Write a small JSON file for people and tools, in canonical form."""
    put(path, sealed.to_bytes(value, indent=1))


def read_json(path: Path) -> dict[str, Any]:
    """Read a file written by `write_json`.

    Raises:
        DamageError: the file is damaged.
    """
    return sealed.read(path, hint=_AGAIN)


def parse_json(data: bytes, where: object) -> dict[str, Any]:
    """Parse the bytes of a file written by `write_json`, as `read_json`."""
    return sealed.parse(data, where, hint=_AGAIN).value


def _check_owner(root: Place, manifest: str, recipe: Recipe) -> None:
    names = _names_in(root)
    if not names:
        return
    owner = next((root / name for name in (CLAIM, manifest) if name in names), None)
    data = read_small(owner, most_bytes=_MANIFEST_BYTES) if owner else None
    if owner is not None and data is None:  # finished a moment ago, by another process
        return _check_owner(root, manifest, recipe)
    found = None if data is None else parse_json(data, owner)
    if found is not None and owner is not None and owner.name == manifest:
        found = found.get("recipe")
    if not isinstance(found, dict):
        raise UsageError(
            f"the output folder holds other files ({', '.join(names[:3])}, {len(names)} in total)",
            where=root,
            did="nothing was written",
            hint="give a new or empty folder",
            reason="output.foreign",
        )
    wanted = json.loads(canonical_json(recipe))
    differing = sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k))
    if differing:
        changes = ", ".join(f"{k} {found.get(k)!r}, not {wanted.get(k)!r}" for k in differing)
        raise UsageError(
            f"the output folder was made with {changes}",
            where=root,
            did="nothing was written",
            hint="give a new or empty folder, or the same options to resume",
            reason="output.other",
        )


def _names_in(root: Place) -> list[str]:
    if isinstance(root, Remote):
        return sorted({one.below(root).partition("/")[0] for one in objects.listing(root)})
    if not root.exists():
        return []
    if not root.is_dir():
        raise UsageError("is a file, not a folder", where=root, reason="output.foreign")
    return sorted(
        path.name
        for path in root.iterdir()
        if path.name != LOCK and not path.name.startswith(fsops.TEMP_PREFIX)
    )


class Sink(Protocol):
    """What a file of an output is written to."""

    def write(self, data: bytes, /) -> int:
        """Append bytes."""
        ...


class TarSink:
    """A tar that grows member by member, written in pieces of 8 MiB and hashed meanwhile.

    Call `finish` once at the end. `size_bytes` is the size so far, without the end of the archive.
    """

    def __init__(self, file: Sink) -> None:
        self._file = file
        self._parts: list[bytes] = []
        self._pending_bytes = 0
        self._sha = hashlib.sha256()
        self.size_bytes = 0

    def add(self, name: str, data: bytes) -> None:
        """Append one member."""
        for part in (member_header(name, len(data)), data, bytes(-len(data) % BLOCK)):
            self._put(part)
        if self._pending_bytes >= _FLUSH_BYTES:
            self._flush()

    def finish(self) -> str:
        """Write the end of the archive; return the SHA-256 (hex) of the whole file."""
        self._put(END_OF_ARCHIVE)
        self._flush()
        return self._sha.hexdigest()

    def _put(self, part: bytes) -> None:
        self._parts.append(part)
        self._pending_bytes += len(part)
        self.size_bytes += len(part)

    def _flush(self) -> None:
        piece = b"".join(self._parts)
        self._sha.update(piece)
        self._file.write(piece)
        self._parts.clear()
        self._pending_bytes = 0
