"""Repair a store (fsck --repair): set damaged files aside, keep intact parts, report losses.

For stores without a backup. Nothing is deleted: damaged files are renamed to *.damaged. Versions,
decisions and source shards are not touched, because they cannot be rebuilt from the store.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from curator.edits import log as edit_log
from curator.steps.fsck_files import SET_ASIDE, Finding
from curator.store import fsops, journal
from curator.store.listing import LISTINGS, Listing, Mark, all_listings
from curator.store.store import Store

_LISTED = (".parquet", ".jnl", ".log", ".json")
_AGAIN = {
    "index": "`curator index` rebuilds it",
    "facts": "the next run makes its facts again, and writes a missing recipe",
    "tags": "set it again with `curator tag DATASET@VERSION NAME`",
    "runs": "nothing depends on it",
}
"""Top folder of a file that can be set aside -> how its content is restored."""


def repair(store: Store, damage: Sequence[Finding]) -> Iterator[Finding]:
    """Set damaged files aside, and remove missing ones from their listings.

    Yields:
        what was done, file by file; nothing for files that cannot be repaired.

    Raises:
        ConflictError: another process writes to a damaged file.
    """
    for where in dict.fromkeys(finding.where for finding in damage):
        path = Path(where)
        if not path.is_relative_to(store.root) or not path.exists():
            continue
        kind = path.relative_to(store.root).parts[0]
        if kind == "journal":
            yield Finding(where, _journal(path))
        elif kind == "edits":
            yield Finding(where, _edits(store, path))
        elif kind == LISTINGS:
            yield Finding(where, _listing(store, path))
        elif kind in _AGAIN:
            yield Finding(where, f"set aside as {_set_aside(path).name}; {_AGAIN[kind]}")
    for listing in all_listings(store.root):
        yield from _let_go(listing)


def _let_go(listing: Listing) -> Iterator[Finding]:
    missing = listing.missing()
    gone: list[tuple[Mark, Path]] = [
        ("lost" if path.suffix == ".parquet" else "done", path) for path in missing
    ]
    if gone:
        listing.add(gone)
    for path in missing:
        yield Finding(
            str(path),
            "removed from its listing; its content is lost, or made again by the next run",
        )


def _set_aside(path: Path) -> Path:
    number, to = 1, path.with_name(path.name + SET_ASIDE)
    while to.exists():
        number += 1
        to = path.with_name(f"{path.name}{SET_ASIDE}-{number}")
    fsops.rename(path, to)
    return to


def _listing(store: Store, path: Path) -> str:
    aside = _set_aside(path)
    name = path.relative_to(store.root / LISTINGS).as_posix().removesuffix(".log")
    folders = [store.root / "facts" / name, store.root / "journal" / name, store.root / name]
    there = [
        file
        for folder in folders
        for file in sorted(folder.rglob("*"))
        if file.suffix in _LISTED and file.name != "maker.json"
    ]
    Listing(store.root, name).add([], found=there)
    return f"set aside as {aside.name}; a new listing names the {len(there)} existing files"


def _journal(path: Path) -> str:
    held = fsops.Appender(path)  # locks the file against other writers
    try:
        records = journal.intact(path)
        aside = _set_aside(path)
    finally:
        held.close()
    new = journal.Journal(path)
    if records:
        new.append(records)
    new.close()
    return f"set aside as {aside.name}; {len(records)} facts are kept, the next run makes the rest"


def _edits(store: Store, path: Path) -> str:
    folder = store.root / "edits"
    shard = path.relative_to(folder).as_posix().removesuffix(".log")
    held = fsops.Appender(path)
    try:
        kept, num_lost = edit_log.intact(path, shard)
        aside = _set_aside(path)
    finally:
        held.close()
    fsops.write_atomic(path, edit_log.log_bytes(kept))
    Listing(store.root, "edits").add([("there", path)])
    lost = f"at least {num_lost} are lost" if num_lost else "none is known to be lost"
    return f"set aside as {aside.name}; {len(kept)} edits are kept, {lost}"
