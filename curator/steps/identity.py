"""Which dataset a store serves: facts are shared by content, but shards are known by their names.

    dataset.json      the folders that the dataset of this store was found in, with a checksum

A dataset in one of these folders is the store's own, whichever of its shards were named, and also
with shards that were replaced since. In another folder it is the same dataset, moved or mounted
elsewhere, if every shard that the index knows by its name is the one that was indexed: of the same
size and time, or of the same size with the same first picture. A store that lies in its dataset
(`DATASET/.curator`) moves with it, so there one such shard is enough. A dataset none of whose
names is known is taken for more shards of the same one, and that is said. Any other is refused.
"""

from __future__ import annotations

import hashlib
import shlex

from curator.core import hashing, progress
from curator.core.errors import CuratorError, DamageError, UsageError
from curator.shards.scan import Dataset, ShardRef, read_bytes
from curator.store import index, sealed
from curator.store.store import Store

FILE = "dataset.json"


def roots(store: Store) -> list[str]:
    """The folders that the dataset was found in; none in a store of an older tool.

    Raises:
        DamageError: the file is not what was written.
    """
    path = store.root / FILE
    if not path.exists():
        return []
    hint = "restore it from a copy, or remove it: `curator index` writes it anew"
    try:
        return [str(root) for root in sealed.read(path, hint=hint)["roots"]]
    except (TypeError, KeyError) as error:
        raise DamageError(f"not readable ({error})", where=path, hint=hint) from error


def remember(store: Store, dataset: Dataset) -> None:
    """Write down where the dataset lies, unless it is known."""
    known, here = roots(store), _place(dataset)
    if here not in known:
        sealed.write(store.root / FILE, {"roots": [*known, here]})


def check(store: Store, dataset: Dataset, *, spec: str) -> None:
    """Make sure that this is the store's dataset; see the module.

    Raises:
        UsageError: it is another one (store.other_dataset). DamageError: dataset.json.
    """
    known = roots(store)
    lies_inside = store.root.resolve().parent == dataset.root.resolve()
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
            f"the store {store.root} was made from {known[0]}; it knows no shard of "
            f"{dataset.root}, which is taken for more of the same dataset (--store keeps two apart)"
        )


def _place(dataset: Dataset) -> str:
    return str(dataset.root.resolve())


def _is_indexed(store: Store, ref: ShardRef) -> bool:
    """Whether a shard is the one that was indexed under its name, as far as one look tells."""
    try:
        facts = index.shard_facts(store, ref.name)
        stat = ref.path.stat()
        if stat.st_size != facts.size_bytes:
            return False
        if stat.st_mtime_ns == facts.mtime_ns:
            return True
        columns = ["offset", "length", "image_sha256"]
        pictures = index.read(store, ref.name, columns).drop_nulls("image_sha256")
        for offset, length, sha256 in pictures.head(1).iter_rows():
            return bool(hashlib.sha256(read_bytes(ref.path, offset, length)).hexdigest() == sha256)
        return hashing.file_sha256(ref.path) == facts.sha256
    except DamageError:
        return True  # of the index, which others name: no sign of another dataset


def _refusal(
    store: Store, dataset: Dataset, known: list[str], others: list[str], same: int, spec: str
) -> CuratorError:
    adopt = ["curator", "index", spec, "--store", str(store.root), "--adopt"]
    made_from = f", made from {known[0]}" if known else ""
    return UsageError(
        f"the store serves another dataset{made_from}: {len(others)} of {len(others) + same} "
        f"shards that it knows by name have other bytes in {dataset.root}, first {others[0]!r}",
        where=store.root,
        did="nothing was written",
        hint="give this dataset a store of its own with --store FOLDER (or unset CURATOR_STORE); "
        f"if it is the same dataset with shards replaced, `{shlex.join(adopt)}` takes it over",
        reason="store.other_dataset",
    )
