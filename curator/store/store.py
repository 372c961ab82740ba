"""The store: where files are, and the one commit that makes a version visible.

    store.json                             format version
    index/<shard>.parquet                  one row per sample of the shard, usable or not
    facts/captions/<generator>/            captions by models     (see curator.store.facts)
    facts/scores/<scorer>/                 scores by scorers
    facts/ratings/                         blind ratings by people (curator.ratings.log)
    edits/<shard>.log                      edits by people               (curator.edits.log)
    journal/<kind>/<maker>/<shard>.jnl     facts not yet in a Parquet file
    claims/<kind>/<maker>/<shard>.lock     held while a process makes facts  (engine.claims)
    captions/<shard>.<digest>.parquet      a decision about a shard, named by its content
    versions/000001.json                   THE COMMIT, written last, put-if-absent
    runs/<run>/                            run.json and log.jsonl of every command that wrote
    tags/<tag>.json
    decisions.lock                         held while deciding or collecting garbage

If versions/N.json exists, the version is complete. Files that a user owns are never modified.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from curator.core import clock, hashing
from curator.core.errors import (
    CommitUnknownError,
    ConflictError,
    DamageError,
    FormatError,
    NotFoundError,
    UsageError,
    nearest,
)
from curator.store import fsops, sealed, versions
from curator.store.listing import Listing
from curator.store.versions import FORMAT, Version

_MAX_REBASES = 1000
_TAG = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
_VERSION_NAME = re.compile(r"v?(\d{1,9})")
_MIN_ID_PREFIX = 6
MAKER_DIGEST_CHARS = 8
"""Number of digits of a recipe's digest at the end of a maker's name."""
_RETAG = "restore it from a backup, or set it again: `curator tag DATASET@VERSION NAME`"


class Store:
    """A store on disk. `Store.open` checks the format, `Store.create` creates one if needed."""

    def __init__(self, root: Path, *, copy_of: str | None = None) -> None:
        self.root = root
        self.copy_of = copy_of

    @property
    def name(self) -> str:
        """What to call the store in a message: its folder, or the URL that it is a copy of."""
        return self.copy_of or str(self.root)

    def check_writable(self) -> None:
        """Refuse to write to a copy of a store, where it would be lost.

        Raises:
            UsageError: store.copy, it is a copy that was made to read from.
        """
        if self.copy_of is not None:
            raise only_read(self.copy_of)

    @classmethod
    def create(cls, root: Path) -> Store:
        """Open the store; create it if it does not exist."""
        marker = canonical_marker()
        if not (root / "store.json").exists():
            fsops.put_if_absent(root / "store.json", marker)
        return cls.open(root)

    @classmethod
    def open(cls, root: Path, *, copy_of: str | None = None) -> Store:
        """Open an existing store; `copy_of` is the URL of the store that this is a copy of.

        Raises:
            NotFoundError: there is none. FormatError: it is newer. DamageError: it is damaged.
        """
        path = root / "store.json"
        if not path.exists():
            raise NotFoundError(
                "there is no store",
                where=root,
                hint="make one with `curator index SHARDS`, or name another with --store FOLDER",
                reason="store.none",
            )
        hint = f"restore it from a backup; or remove it: it only says format {FORMAT}"
        try:
            found = int(sealed.read(path, hint=hint)["format"])
        except (ValueError, KeyError, TypeError) as error:
            raise DamageError("store.json is unreadable", where=path, hint=hint) from error
        if found > FORMAT:
            raise FormatError(
                f"store format {found} is newer than this tool supports ({FORMAT})",
                where=path,
                hint="upgrade caption-curator",
            )
        return cls(root, copy_of=copy_of)

    # -- paths ----------------------------------------------------------------------------------

    def index_path(self, shard: str) -> Path:
        """Return the path of a shard's index."""
        return self.root / "index" / f"{shard}.parquet"

    def facts_dir(self, kind: str, maker: str) -> Path:
        """Return the folder of one maker's fact files; `kind` is captions or scores."""
        return self.root / "facts" / kind / maker

    def journal_path(self, kind: str, maker: str, shard: str) -> Path:
        """Return the path of the journal of one maker over one shard."""
        return self.root / "journal" / kind / maker / f"{shard}.jnl"

    def decision_path(self, shard: str, rows_digest: str) -> Path:
        """Return the path of a decision about a shard: named by content, shared by versions."""
        return self.root / "captions" / f"{shard}.{rows_digest[:12]}.parquet"

    # -- versions -------------------------------------------------------------------------------

    def numbers(self) -> list[int]:
        """Return all version numbers, ascending."""
        folder = self.root / "versions"
        return sorted(int(path.stem) for path in folder.glob("*.json") if path.stem.isdigit())

    def manifest_path(self, number: int) -> Path:
        """Return the path of a version's commit file."""
        return self.root / "versions" / f"{number:06d}.json"

    def version(self, number: int) -> Version:
        """Read one version.

        Raises:
            DamageError: the manifest is missing, or it, its number or its id is wrong.
        """
        path = self.manifest_path(number)
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise DamageError(
                f"version {number} is missing", where=path, reason="manifest.damaged"
            ) from error
        found = versions.from_json(data, path)
        if found.number != number:
            raise DamageError(
                f"holds version {found.number}, expected {number}",
                where=path,
                reason="manifest.damaged",
            )
        if versions.version_id(found.policy, found.shards) != found.id:
            raise DamageError(
                "the id does not match the content", where=path, reason="manifest.damaged"
            )
        return found

    def versions(self) -> Iterator[Version]:
        """Yield all versions, oldest first."""
        return map(self.version, self.numbers())

    def newest(self) -> Version | None:
        """Return the version with the highest number, or None in a store without versions.

        Raises:
            DamageError: a version is missing, which may have been the newest.
        """
        self.committed().check()
        numbers = self.numbers()
        return self.version(numbers[-1]) if numbers else None

    def resolve(self, name: str | None) -> Version:
        """Find a version by `v3`, `3`, a tag, an id prefix of 6 or more characters, or a policy.

        The name of a policy stands for the newest version it decided.

        Raises:
            NotFoundError: no version has that name; lists the existing names.
            DamageError: the version is damaged; or the newest is wanted, and one is missing.
        """
        if name is None:
            self.committed().check()
        numbers = self.numbers()
        if not numbers:
            raise NotFoundError(
                "there is no version yet",
                where=self.root,
                hint="make one with `curator recaption SHARDS` or `curator decide SHARDS`",
                reason="version.none",
            )
        if name is None:
            return self.version(numbers[-1])
        match = _VERSION_NAME.fullmatch(name)
        if match and int(match[1]) in numbers:
            return self.version(int(match[1]))
        tags = self.tags()
        if name in tags:
            return self.tagged(name)
        if len(name) >= _MIN_ID_PREFIX:
            hits = [version for version in self.versions() if version.id.startswith(name)]
            if len(hits) == 1:
                return hits[0]
        policies = {str(found.policy.get("name")): found for found in self.versions()}
        if name in policies:  # the newest, as they come oldest first
            return policies[name]
        known = [f"v{number}" for number in numbers[-20:]] + sorted({*tags, *policies})
        raise NotFoundError(
            f"there is no version {name!r}",
            hint=f"{nearest(name, known)}; `curator log DATASET` lists them",
            reason="version.unknown",
        )

    def commit(self, draft: Version) -> tuple[Version, bool]:
        """Make a decision visible under the next free number.

        A decision does not depend on its parent, so after a lost race the next number is taken.
        The same decision is not committed twice: if a version with this id exists, it is
        returned. A draft of another store brings the time it was created; other drafts have 0.

        Returns:
            The version as it is in the store, and whether it is new.

        Raises:
            DamageError: a version is missing: its number is not reused.
            ConflictError: other writers won a thousand times in a row.
            CommitUnknownError: the write failed in a way that leaves its result unknown.
            UsageError: it is a copy of a store.
        """
        self.check_writable()
        self.committed().check()
        parent: Version | None = None
        for _ in range(_MAX_REBASES):
            for number in self.numbers():
                if parent is None or number > parent.number:
                    parent = self.version(number)
                    if parent.id == draft.id:
                        self.list_versions()
                        return parent, False
            version = dataclasses.replace(
                draft,
                number=parent.number + 1 if parent else 1,
                parent=parent.id if parent else None,
                created=max(draft.created or clock.now(), parent.created + 1 if parent else 0.0),
            )
            if self._put_manifest(version):
                self.list_versions()
                return version, True
        raise ConflictError(
            f"{_MAX_REBASES} other commits came first",
            where=self.root,
            did="all facts and decision files are kept",
            hint="run the same command again",
        )

    def list_versions(self) -> None:
        """List all versions; a committer may have died between its commit and this."""
        self.committed().add([("there", self.manifest_path(number)) for number in self.numbers()])

    def committed(self) -> Listing:
        """Return the listing of committed versions."""
        return Listing(self.root, "versions")

    def deciding(self) -> AbstractContextManager[None]:
        """Hold this from the first file of a decision to its commit, so that gc keeps them.

        A decision may reuse old files that no version refers to, and those are not protected by the
        grace period of gc.

        Raises:
            ConflictError: on entering, while garbage is being collected.
            UsageError: it is a copy of a store.
        """
        self.check_writable()
        return fsops.locked(self.root / "decisions.lock", shared=True)

    def collecting(self) -> AbstractContextManager[None]:
        """Hold this while unreferenced files are searched for and removed.

        Raises:
            ConflictError: on entering, while another process decides or collects.
        """
        return fsops.locked(self.root / "decisions.lock")

    def _put_manifest(self, version: Version) -> bool:
        path = self.manifest_path(version.number)
        try:
            return fsops.put_if_absent(path, versions.to_json(version))
        except OSError as error:
            # The link may have been made before the error: read it back before reporting.
            # Another writer's commit of the same decision is as good as ours.
            if path.exists() and self.version(version.number).id == version.id:
                return True
            raise CommitUnknownError(
                f"the commit of {version.name} failed ({error})",
                where=path,
                did="all files are kept",
                hint="run the same command again; finished work is not repeated",
            ) from error

    # -- tags -----------------------------------------------------------------------------------

    def tags(self) -> dict[str, int]:
        """Return tag -> version number.

        Raises:
            DamageError: a tag is damaged.
        """
        found = {}
        for path in sorted((self.root / "tags").glob("*.json")):
            tag = sealed.load(path, hint=_RETAG)
            try:
                found[path.stem] = int(tag.value["version"])
            except (ValueError, KeyError, TypeError) as error:
                raise DamageError("the tag is unreadable", where=path, hint=_RETAG) from error
            if not tag.is_sealed:  # from an older tool: only its id confirms it
                self.tagged(path.stem)
        return found

    def tagged(self, name: str) -> Version:
        """Return the version of a tag; its number and id must agree.

        Raises:
            DamageError: they disagree, or the tag or the version is damaged.
        """
        path = self.root / "tags" / f"{name}.json"
        tag = sealed.read(path, hint=_RETAG)
        try:
            version = self.version(int(tag["version"]))
            expected = str(tag["id"])
        except (ValueError, KeyError, TypeError) as error:
            raise DamageError("the tag is unreadable", where=path, hint=_RETAG) from error
        if version.id != expected:
            what = f"the tag says {version.name} and {expected[:12]}, {version.name} is"
            raise DamageError(f"{what} {version.id[:12]}", where=path, hint=_RETAG)
        return version

    def tag(self, name: str, version: Version) -> None:
        """Point a tag at a version; an existing tag is moved.

        Raises:
            UsageError: the name could be read as a version, or is not a plain word; or it is a
                copy of a store.
        """
        self.check_writable()
        if not _TAG.fullmatch(name) or _VERSION_NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} cannot be a tag",
                hint="a tag is a word of letters, digits, . _ - that is not a version like v3",
                reason="tag.invalid",
            )
        body = {"version": version.number, "id": version.id}
        sealed.write(self.root / "tags" / f"{name}.json", body)

    # -- runs -----------------------------------------------------------------------------------

    def write_recipe(self, kind: str, maker: str, recipe: Mapping[str, object]) -> None:
        """Store the recipe of a maker beside its facts, once; the maker's name is its digest."""
        path = self.facts_dir(kind, maker) / "maker.json"
        if path.exists():
            self.recipe(kind, maker)
        else:
            fsops.write_atomic(path, hashing.canonical_json(recipe))

    def recipe(self, kind: str, maker: str) -> dict[str, object]:
        """Return the recipe of a maker, as written by `write_recipe`.

        Raises:
            DamageError: it is missing, or does not match the digest in the maker's name.
        """
        path = self.facts_dir(kind, maker) / "maker.json"
        hint = "restore it from a backup; the next run of this maker rewrites a missing one"
        try:
            data = path.read_bytes()
            recipe: dict[str, object] = dict(json.loads(data))
        except FileNotFoundError as error:
            raise DamageError("the recipe is missing", where=path, hint=hint) from error
        except (ValueError, TypeError) as error:
            raise DamageError("the recipe is unreadable", where=path, hint=hint) from error
        digest = hashing.digest(recipe)
        if not maker.endswith(digest[:MAKER_DIGEST_CHARS]) or hashing.canonical_json(
            recipe
        ) != data.rstrip(b"\n"):
            raise DamageError(
                f"the recipe digests to {digest[:MAKER_DIGEST_CHARS]}, not the one of {maker}",
                where=path,
                hint=hint,
            )
        return recipe

    def makers(self, kind: str) -> list[str]:
        """Return all generators (`captions`) or scorers (`scores`) that have facts."""
        # One without a recipe is included: reading its recipe reports what is missing.
        return sorted(
            folder.name
            for folder in (self.root / "facts" / kind).glob("*/")
            if (folder / "maker.json").exists() or any(folder.rglob("*.parquet"))
        )


def only_read(url: str) -> UsageError:
    """Return the error for writing to a store that is named by a URL."""
    return UsageError(
        "a store in an object store can only be read",
        where=url,
        did="nothing was written",
        hint=f"`curator pull DATASET {url}` makes a store to work in, and `curator push` brings "
        "back what it got",
        reason="store.copy",
    )


def canonical_marker() -> bytes:
    """Return the content of store.json."""
    return sealed.to_bytes({"format": FORMAT, "tool": versions.STORE_TOOL})
