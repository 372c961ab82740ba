"""Find the shards of a dataset. Commands start here, so it imports nothing that reads images."""

from __future__ import annotations

from dataclasses import dataclass, replace

from curator.core.errors import UsageError
from curator.shards import objects
from curator.shards.keys import points_outside
from curator.shards.objects import Remote, is_remote
from curator.shards.patterns import find, find_remote
from curator.shards.places import Place, below


@dataclass(frozen=True, slots=True)
class ShardRef:
    """A shard: `name` is its path below the dataset's root, with / and without .tar."""

    name: str
    path: Place


@dataclass(frozen=True, slots=True)
class Dataset:
    """Shards below one folder, sorted by name."""

    root: Place
    shards: tuple[ShardRef, ...]


def discover(spec: str) -> Dataset:
    """Find the shards that `spec` names: a folder, a tar, a glob or a brace pattern, also of a URL.

    Folders are searched recursively, without hidden folders and files. The root is the folder, or
    the longest part of the pattern without pattern characters. Files that a brace pattern names and
    that do not exist are kept, and become `shard.missing` when they are scanned.

    Raises:
        NotFoundError: input.none_found; the folder or file that is named does not exist.
        UsageError: input.none_found, input.scheme_refused, input.bad_pattern, or
            input.bad_name for a file name that cannot be stored, or used twice.
    """
    found = find_remote(spec, suffix=".tar") if is_remote(spec) else find(spec, suffix=".tar")
    root, paths = found
    shards: dict[str, ShardRef] = {}
    for path in paths:
        name = below(path, root).removesuffix(".tar")
        # `export` names its files after the shards: refuse here what it would refuse.
        if not name.isprintable() or points_outside(name):
            raise UsageError(f"unusable file name {name!r}", where=root, reason="input.bad_name")
        if shards.setdefault(name, ShardRef(name, path)).path != path:
            raise UsageError(
                f"{path.name} and {shards[name].path.name} would have the same name",
                where=root,
                reason="input.bad_name",
            )
    return Dataset(root, tuple(shards[name] for name in sorted(shards)))


def as_now(dataset: Dataset) -> tuple[ShardRef, ...]:
    """Return the shards with the stamps that their objects have now, by one listing where possible.

    Local files are asked when they are used, and are returned as they are.
    """
    root = dataset.root
    if not isinstance(root, Remote):
        return dataset.shards
    asked = [Remote(str(ref.path)) for ref in dataset.shards]
    has_list = root.url.partition("://")[0] in objects.LISTED
    there = {one.url: one for one in (objects.listing(root) if has_list else objects.stat(asked))}
    return tuple(
        replace(ref, path=there.get(one.url, one))
        for ref, one in zip(dataset.shards, asked, strict=True)
    )
