"""Resolve DATASET[@VERSION] to its shards, its store and its version."""

from __future__ import annotations

import itertools
import os
import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from curator.core import progress
from curator.core.errors import UsageError
from curator.shards.dataset import Dataset, ShardRef, discover
from curator.shards.places import Place, Remote, is_remote, parse
from curator.steps import identity
from curator.store import outputs
from curator.store.store import Store, only_read
from curator.store.versions import Version, missing_shards

StoreName = str | Path
"""The folder of a store, or the URL of a copy of one."""

STORE_FOLDER = ".curator"
Reads = Literal["versions", "all"]
"""What a command reads of a store: only which versions there are, or anything."""

_MAGIC = frozenset("*?[{")


@dataclass(frozen=True, slots=True)
class Workspace:
    """A dataset and its store. `spec` is DATASET as the user typed it, without @VERSION.

    `left_out` are skipped folders below the dataset, whose tars `curator export` wrote;
    `store_option` is the value of --store, a folder or a URL. With `shard_slice` (as typed, `0/10`)
    the dataset has only the shards of that slice.
    """

    spec: str
    dataset: Dataset
    store: Store
    version_name: str | None = None
    left_out: tuple[Place, ...] = ()
    store_option: StoreName | None = None
    shard_slice: str | None = None

    @property
    def shards(self) -> tuple[ShardRef, ...]:
        """The shards of the dataset, sorted by name."""
        return self.dataset.shards

    def version(self) -> Version:
        """Return the version that the user named, else the newest."""
        return self.store.resolve(self.version_name)

    def command(self, verb: str, *more: object, version: str | None = None) -> str:
        """Return a shell-quoted curator command for this dataset, or for a version of it."""
        return command(verb, self.spec, self.store_option, *more, version=version)

    def missing(self, version: Version) -> list[str]:
        """Return the names of a version's shards that are not among this dataset's shards."""
        there = {ref.name for ref in self.shards}
        if "{" in self.spec:  # only a brace pattern can name files that do not exist
            there = {ref.name for ref in self.shards if ref.path.exists()}
        return missing_shards(version, there)

    def missing_text(self, version: Version) -> str | None:
        """Return a sentence about `missing`; None if no shard is missing."""
        names = self.missing(version)
        if not names:
            return None
        number = f"{len(names):,} of {len(version.shards):,} shards of {version.name}"
        return f"{number} are not in the dataset {self.spec}, first {names[0]!r}"

    def say_missing(self, version: Version, what: str = "") -> None:
        """Print to stderr which shards of a version are missing, and the consequence `what`."""
        if (text := self.missing_text(version)) is not None:
            progress.say(f"note: {text}{what and ': '}{what}")

    def check_output(self, out: Place) -> None:
        """Refuse an output folder whose tars would become part of this dataset.

        Raises:
            UsageError: output.inside_source; nothing was written.
        """
        root = self.dataset.root
        if isinstance(root, Remote) or isinstance(out, Remote):
            if f"{out}/".startswith(f"{root}/"):
                raise UsageError(
                    f"the output folder is inside the dataset {self.spec}",
                    where=out,
                    did="nothing was written",
                    hint=f"give a folder beside it, such as {root}-export",
                    reason="output.inside_source",
                )
        elif "**" in self.spec or Path(self.spec).expanduser().is_dir():
            hint = f"a folder beside it, such as {root.resolve()}-export"
            outputs.check_outside(out, root, f"the dataset {self.spec}", hint=hint)

    def ref(self, shard: str) -> ShardRef:
        """Return the shard with this name.

        Raises:
            UsageError: the dataset, as named, has no such shard.
        """
        for ref in self.dataset.shards:
            if ref.name == shard:
                return ref
        raise UsageError(
            f"shard {shard!r} is not among the {len(self.shards)} shards of {self.spec}",
            hint="name the dataset that the version was made from",
            reason="shard.unknown",
        )


def command(
    verb: str, dataset: str, store: StoreName | None, *more: object, version: str | None = None
) -> str:
    """See `Workspace.command`."""
    named = dataset if version is None else f"{dataset}@{version}"
    place = () if store is None else ("--store", store)
    return shlex.join(["curator", *verb.split(), named, *map(str, (*more, *place))])


def refuse_version(spec: str, verb: str) -> None:
    """Refuse DATASET@VERSION for a command about the whole dataset, which would ignore it.

    Raises:
        UsageError: `spec` names a version (version.not_taken).
    """
    where, name = split_spec(spec)
    if name is not None:
        raise UsageError(
            f"`curator {verb}` works on the whole dataset and takes no version, but got {name!r}",
            did="nothing was done",
            hint=f"use {where} without @{name}",
            reason="version.not_taken",
        )


def split_spec(spec: str) -> tuple[str, str | None]:
    """Split `shards/@v2` into `shards/` and `v2`; an existing path with an @ stays whole."""
    if not is_remote(spec) and Path(spec).exists():
        return spec, None
    head, at, tail = spec.rpartition("@")
    if not at or "/" in tail:
        return spec, None
    return head, tail


def folder_of(spec: str) -> Path:
    """Return the absolute path before any pattern character; it need not exist.

    For a URL the folder on the local disk that its store is in.
    """
    if is_remote(spec):
        fixed = itertools.takewhile(_MAGIC.isdisjoint, split_spec(spec)[0].split("/"))
        return default_store(Remote("/".join(fixed).rstrip("/"))).parent
    path = Path(os.path.expanduser(split_spec(spec)[0]))
    if not os.path.exists(path):  # a pattern: the folder above its first special character
        path = Path(*itertools.takewhile(_MAGIC.isdisjoint, path.parts))
    return Path(os.path.abspath(path))


def slice_of(dataset: Dataset, part: str) -> Dataset:
    """Return the dataset with every N-th shard, from number I on, for a `part` I/N.

    Slices are counted from 0, as in Kubernetes (JOB_COMPLETION_INDEX), torch (RANK) and datatrove.
    Shards are dealt out by name one at a time, so slices differ by one shard at most. The slices
    of one N have no shard in common and together have all.

    Raises:
        UsageError: `part` is not I/N with 0 <= I < N.
    """
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", part.strip())
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not number < count:
        hint = "write I/N, counted from 0: the slices of 10 machines are 0/10, 1/10, ..., 9/10"
        if match and count and number == count:
            hint = (
                f"slices are counted from 0: the last of {count} is {count - 1}/{count}; a Slurm "
                f"array for it is --array=0-{count - 1}"
            )
        raise UsageError(f"--shard-slice is {part!r}", hint=hint, reason="option.value")
    shards = dataset.shards[number::count]
    if not shards:
        progress.say(
            f"note: slice {part} has no shard, since the dataset has only {len(dataset.shards):,}: "
            "there is nothing to do here"
        )
    return replace(dataset, shards=shards)


def open_workspace(
    spec: str,
    store: StoreName | None,
    *,
    create: bool = False,
    adopt: bool = False,
    shard_slice: str | None = None,
    reads: Reads | None = None,
) -> Workspace:
    """Find the shards and open their store: `store`, else $CURATOR_STORE, else `default_store`.

    Where the store is a URL, the newest state there is copied and opened to read from, as much of
    it as `reads` says. A command that writes leaves `reads` out, and is refused a URL.

    Folders below the dataset that `curator export` wrote are skipped: their texts come from a
    version and would return as alt texts. Such a folder can be used by naming it itself.

    A store belongs to one dataset (`curator.steps.identity`); `adopt` skips that check.
    `shard_slice` restricts the workspace to one slice of the shards (`slice_of`).

    Raises:
        UsageError: no shard was found, the store belongs to another dataset, `shard_slice` is
            not a slice, or the store is a URL and the command writes.
        NotFoundError: there is no store and `create` is false.
    """
    where, version_name = split_spec(spec)
    dataset, left_out = _without_exports(discover(where))
    chosen = dataset if shard_slice is None else slice_of(dataset, shard_slice)
    root = store_place(store, dataset.root)
    if isinstance(root, Remote):
        if reads is None:
            raise only_read(root.url)
        from curator.store import copies  # loads Arrow, which finding shards does not need

        opened = copies.read_only(root, brief=reads == "versions")
    else:
        opened = Store.create(root) if create else Store.open(root)
    is_brief = isinstance(root, Remote) and reads == "versions"  # has no index to compare with
    if not adopt and not is_brief:
        identity.check(opened, dataset, spec=where)
    if create:
        identity.remember(opened, dataset)
    return Workspace(where, chosen, opened, version_name, left_out, store, shard_slice)


def store_place(store: StoreName | None, root: Place) -> Place:
    """Return where the store of a dataset is: `store`, else $CURATOR_STORE, else the default."""
    named = store or os.environ.get("CURATOR_STORE")
    if named:
        return parse(str(named)) if is_remote(str(named)) else Path(named)
    place = default_store(root)
    if isinstance(root, Remote):
        progress.say(f"store of {root}: {place} (another one: --store FOLDER)")
    return place


def default_store(root: Place) -> Path:
    """Return the folder of a dataset's store: inside the dataset, `.curator`.

    That of a dataset in an object store is on the local disk, where a journal can be appended to
    and locked: by its URL, below $XDG_DATA_HOME or ~/.local/share. It does not depend on the
    current folder, from where a second, empty store would be filled by mistake.
    """
    if not isinstance(root, Remote):
        return root / STORE_FOLDER
    home = Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser()
    scheme, _, rest = root.url.partition("://")
    return Path(os.path.abspath(home / "caption-curator" / scheme / rest / STORE_FOLDER))


def _without_exports(dataset: Dataset) -> tuple[Dataset, tuple[Place, ...]]:
    """Return the dataset without exports below its root, and the folders of those.

    Raises:
        UsageError: all shards are exports.
    """
    exports: dict[Place, bool] = {}

    def is_own(ref: ShardRef) -> bool:
        for folder in ref.path.parents[: ref.name.count("/")]:
            if folder not in exports:
                exports[folder] = outputs.is_export(folder)
            if exports[folder]:
                return False
        return True

    shards = tuple(filter(is_own, dataset.shards))
    left_out = tuple(sorted((folder for folder, is_out in exports.items() if is_out), key=str))
    if not shards:
        raise UsageError(
            f"all {len(dataset.shards)} tars were written by `curator export`",
            where=left_out[0],
            did="exports below a dataset are skipped",
            hint=f"to curate an export, name its folder: {left_out[0]}",
            reason="input.none_found",
        )
    return replace(dataset, shards=shards), left_out
