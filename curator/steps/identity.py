"""Check that a store is used with its own dataset: facts are keyed by content, shards by name.

    dataset.json      the folders in which the dataset of this store was found, with a checksum

A dataset in one of these folders is the store's own, whichever of its shards are selected, and even
if shards were replaced. A dataset in another folder is the same one, moved or mounted elsewhere, if
every shard whose name is in the index is the one that was indexed: same size and time, or same size
and same first image. A store inside its dataset (`DATASET/.curator`) moves with it, so there one
such shard is enough. A dataset with no shard name in the index is accepted as more shards of the
same dataset, with a message. Any other dataset is refused.
"""

from __future__ import annotations

import hashlib
import shlex

from curator.core import progress
from curator.core.errors import CuratorError, DamageError, UsageError
from curator.shards import places
from curator.shards.dataset import Dataset, ShardRef
from curator.shards.places import Remote, by_ranges, read_bytes
from curator.store import sealed
from curator.store.store import Store

FILE = "dataset.json"


def roots(store: Store) -> list[str]:
    """Return the folders in which the dataset was found; [] for a store of an older version.

    Raises:
        DamageError: the file is damaged.
    """
    path = store.root / FILE
    if not path.exists():
        return []
    hint = "restore it from a backup, or remove it: `curator index` writes a new one"
    try:
        return [str(root) for root in sealed.read(path, hint=hint)["roots"]]
    except (TypeError, KeyError) as error:
        raise DamageError(f"cannot be read ({error})", where=path, hint=hint) from error


def remember(store: Store, dataset: Dataset) -> None:
    """Add the dataset's folder to dataset.json, unless it is there."""
    known, here = roots(store), _place(dataset)
    if here not in known:
        sealed.write(store.root / FILE, {"roots": [*known, here]})


def check(store: Store, dataset: Dataset, *, spec: str) -> None:
    """Check that `dataset` is the store's dataset, by the rules of this module.

    Raises:
        UsageError: it is another dataset (store.other_dataset).
        DamageError: dataset.json is damaged.
    """
    known = roots(store)
    lies_inside = str(store.root.resolve().parent) == _place(dataset)
    if _place(dataset) in known or (lies_inside and not known):
        return
    others, same = [], 0
    for ref in dataset.shards:
        if store.index_path(ref.name).exists() and ref.path.exists():
            if _is_indexed(store, ref):
                same += 1
            else:
                others.append(ref.name)
    if others and not (lies_inside and same):
        raise _refusal(store, dataset, known, others, same, spec)
    if not same and known:
        progress.say(
            f"the store {store.root} was made from {known[0]} and has no shard of "
            f"{dataset.root}: adding it as more shards of the same dataset (for a separate store "
            "use --store FOLDER)"
        )


def check_part(store: Store, dataset: Dataset, *, spec: str) -> None:
    """Check that a store to be merged was made from shards of `dataset`, wherever it was made.

    Every indexed shard that is in the dataset must be the one that was indexed, and at least one
    must be. A store without an index is accepted: its facts are keyed by the bytes of images.

    Raises:
        UsageError: it was made from another dataset (store.other_dataset).
        DamageError: dataset.json is damaged.
    """
    known = roots(store)
    here = [ref for ref in dataset.shards if store.index_path(ref.name).exists()]
    others = [ref.name for ref in here if ref.path.exists() and not _is_indexed(store, ref)]
    if others:
        raise _refusal(store, dataset, known, others, len(here) - len(others), spec, merge=True)
    if not here and (first := next((store.root / "index").rglob("*.parquet"), None)) is not None:
        name = first.relative_to(store.root / "index").as_posix().removesuffix(".parquet")
        raise UsageError(
            f"the store belongs to another dataset{_made_from(known)}: no shard of its index is in "
            f"{dataset.root}, it has {name!r}",
            where=store.root,
            did="nothing was merged",
            hint="leave it out, or name the dataset that it was made from",
            reason="store.other_dataset",
        )


def _made_from(known: list[str]) -> str:
    return f", made from {known[0]}" if known else ""


def _place(dataset: Dataset) -> str:
    root = dataset.root
    return str(root if isinstance(root, Remote) else root.resolve())


def _is_indexed(store: Store, ref: ShardRef) -> bool:
    """Whether a shard is the one indexed under its name, judged without reading all of it."""
    from curator.store import (
        index,  # loads polars, and most commands find the dataset by its folder
    )

    try:
        facts = index.shard_facts(store, ref.name)
        found = places.stamp(ref.path)
        if found is None or found.size_bytes != facts.size_bytes:
            return False
        if found.is_same(facts.stamp):
            return True
        columns = ["offset", "length", "image_sha256"]
        pictures = index.read(store, ref.name, columns).drop_nulls("image_sha256")
        for offset, length, sha256 in pictures.head(1).iter_rows():
            return bool(
                hashlib.sha256(read_bytes(by_ranges(ref.path), offset, length)).hexdigest()
                == sha256
            )
        return places.has_digest(ref.path, facts.digest)
    except DamageError:
        return True  # damage of the index, reported elsewhere: no sign of another dataset


def _refusal(
    store: Store,
    dataset: Dataset,
    known: list[str],
    others: list[str],
    same: int,
    spec: str,
    *,
    merge: bool = False,
) -> CuratorError:
    adopt = ["curator", "index", spec, "--store", str(store.root), "--adopt"]
    hint = "give this dataset a store of its own with --store FOLDER (or unset CURATOR_STORE)"
    if merge:
        hint = "leave it out"
    return UsageError(
        f"the store belongs to another dataset{_made_from(known)}: {len(others)} of "
        f"{len(others) + same} shards with a name in its index have other bytes in "
        f"{dataset.root}, first {others[0]!r}",
        where=store.root,
        did="nothing was merged" if merge else "nothing was written",
        hint=f"{hint}; if it is the same dataset with replaced shards, run `{shlex.join(adopt)}`",
        reason="store.other_dataset",
    )
