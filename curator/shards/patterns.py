"""Expand what a user types into files: a folder, a file, a glob, a brace pattern.

`find` is for local files, `find_remote` for s3://, gs://, az:// and https://. WebDataset would run
`pipe:` through a shell and pass `http:` to curl; here any other scheme is an error before anything
is opened.
"""

from __future__ import annotations

import fnmatch
import glob
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from braceexpand import braceexpand

from curator.core.errors import NotFoundError, StorageError, UsageError, not_there
from curator.shards import objects
from curator.shards.objects import Remote

MAX_FILES = 1_000_000

_SCHEME = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]+://)|(?:pipe|https?|ftp|file|s3|gs|hdfs):")
_MAGIC = re.compile(r"[*?\[{]")
_GLOB = re.compile(r"[*?\[]")
_RANGE = re.compile(r"\{(-?\d+)\.\.(-?\d+)")


def find(spec: str, *, suffix: str) -> tuple[Path, list[Path]]:
    """Return (root, sorted paths below it), both absolute.

    Folders and globs match files that end in `suffix`. Files named in full, also by a brace
    pattern, are returned as named, and need not exist as long as one of them does. Linked folders
    are followed.

    Raises:
        NotFoundError: input.none_found; the folder or file that is named does not exist.
        UsageError: input.none_found for a pattern or folder without any file,
            input.scheme_refused or input.bad_pattern.
        StorageError: a folder cannot be read.
    """
    check_scheme(spec)
    try:
        return _find(Path(spec).expanduser(), suffix)
    except OSError as exc:
        raise StorageError(
            f"cannot search for shards: {exc.strerror or exc}", where=exc.filename or spec
        ) from exc


def check_scheme(spec: str) -> None:
    """Refuse a URL where a local path is wanted.

    Raises:
        UsageError: input.scheme_refused.
    """
    scheme = _SCHEME.match(spec)
    if scheme is not None:
        raise UsageError(
            f"{scheme[0]} is not supported: {spec!r}",
            hint="shards are local files, or objects of s3://, gs://, az:// or https://; "
            "tables and folders to pack are local",
            reason="input.scheme_refused",
        )


def _find(path: Path, suffix: str) -> tuple[Path, list[Path]]:
    whole = _absolute(path)
    if whole.is_dir():
        root, found, looked_for = whole, list(_below(whole, suffix)), f"**/*{suffix} below it"
    elif whole.exists() or not _MAGIC.search(str(path)):
        root, found, looked_for = whole.parent, [whole], f"the file {whole.name}"
    else:
        fixed = list(itertools.takewhile(lambda part: not _MAGIC.search(part), path.parts))
        root, pattern = _absolute(Path(*fixed)), str(Path(*path.parts[len(fixed) :]))
        found, looked_for = list(_expand(root, pattern, suffix)), f"files that match {pattern}"
    hint = "name a folder, a file, or a quoted pattern such as 'shards/{00000..00099}.tar'"
    if found == [whole] and not whole.exists():
        kind = "file" if whole.suffix == suffix else "folder"
        raise not_there(kind, whole, hint=hint, reason="input.none_found")
    if not any(one.exists() for one in found):
        first = f", first {found[0]}" if found else ""
        raise UsageError(
            f"no {suffix} file found",
            where=root,
            did=f"looked for {looked_for}{first}",
            hint=hint,
            reason="input.none_found",
        )
    return root, sorted(set(found))


def _absolute(path: Path) -> Path:
    return Path(
        os.path.abspath(path)
    )  # not resolve(): a linked folder keeps the name the user gave


def _expand(root: Path, pattern: str, suffix: str) -> Iterator[Path]:
    for name in _expand_braces(pattern):
        path = _absolute(root / name)
        if not path.is_relative_to(root):
            raise UsageError(
                f"{name!r} points outside its folder", where=root, reason="input.bad_pattern"
            )
        if path.is_dir():
            yield from _below(path, suffix)
        elif path.exists() or not _GLOB.search(name):
            yield path
        else:
            matches = (root / match for match in glob.iglob(name, root_dir=root, recursive=True))
            yield from (path for path in matches if path.name.endswith(suffix) and path.is_file())


def _expand_braces(pattern: str) -> list[str]:
    too_many = UsageError(
        f"{pattern!r} names more than {MAX_FILES} files", reason="input.bad_pattern"
    )
    # braceexpand expands a whole range before it yields its first name.
    if any(abs(int(end) - int(start)) >= MAX_FILES for start, end in _RANGE.findall(pattern)):
        raise too_many
    try:
        names = list(itertools.islice(braceexpand(pattern), MAX_FILES + 1))
    except ValueError as exc:
        raise UsageError(str(exc), reason="input.bad_pattern") from exc
    if len(names) > MAX_FILES:
        raise too_many
    return names


def _below(folder: Path, suffix: str) -> Iterator[Path]:
    """Yield files below `folder`, without hidden files and hidden folders (such as a store)."""

    def fail(error: OSError) -> None:  # os.walk would skip unreadable folders
        raise error

    seen = set()  # a link may point to a parent folder
    for where, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        folder_id = os.path.realpath(where)
        if folder_id in seen:
            folders.clear()
            continue
        seen.add(folder_id)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if name.endswith(suffix) and not name.startswith("."):
                yield Path(where, name)


# -- object stores ---------------------------------------------------------------------------------


def find_remote(spec: str, *, suffix: str) -> tuple[Remote, list[Remote]]:
    """Return (root, sorted files below it) in an object store, by the rules of `find`.

    One listing below the root answers everything, with sizes and etags; https:// has no listing, so
    every file of it is named, also by a brace pattern, and asked for.

    Raises:
        NotFoundError, UsageError: as `find`.
        StorageError: the store refuses or does not answer.
    """
    objects.parse(spec)  # refuses what no URL may have
    scheme, _, rest = spec.partition("://")
    parts = [part for part in rest.split("/") if part]
    fixed = list(itertools.takewhile(lambda part: not _MAGIC.search(part), parts))
    if not fixed:
        raise UsageError(
            f"{spec!r} has a pattern for a bucket or host",
            hint="name it: s3://BUCKET/...",
            reason="input.bad_pattern",
        )
    has_list = scheme.lower() in objects.LISTED
    if len(fixed) == len(parts):
        if fixed[-1].endswith(suffix) and len(fixed) > 1:
            whole = objects.parse(spec)
            (found,) = objects.stat([whole])
            if found.exists():
                return whole.parent, [found]
        if has_list:
            root = objects.parse(spec)
            files = [one for one in objects.listing(root) if _is_shard(one, root, suffix)]
            if files:
                return root, sorted(files, key=str)
        raise _no_remote(spec, suffix, has_list)
    root = objects.parse(f"{scheme}://{'/'.join(fixed)}")
    names = _expand_braces("/".join(parts[len(fixed) :]))
    if not has_list:
        if any(_GLOB.search(name) for name in names):
            raise _no_remote(spec, suffix, has_list)
        found_files = objects.stat([objects.parse(f"{root}/{name}") for name in names])
    else:
        there = {one.below(root): one for one in objects.listing(root)}
        found_files = [one for name in names for one in _matching(name, there, root, suffix)]
    if not any(one.exists() for one in found_files):
        raise _no_remote(spec, suffix, has_list)
    return root, sorted(set(found_files), key=str)


def _matching(name: str, there: dict[str, Remote], root: Remote, suffix: str) -> Iterator[Remote]:
    if name in there:
        yield there[name]
    elif _GLOB.search(name):
        pattern = name.split("/")
        for path, one in there.items():
            if _is_shard(one, root, suffix) and _fits(path.split("/"), pattern):
                yield one
    else:
        inside = [one for path, one in there.items() if path.startswith(f"{name}/")]
        yield from (one for one in inside if _is_shard(one, root / name, suffix))
        if not inside:
            yield root / name


def _fits(parts: list[str], pattern: list[str]) -> bool:
    """Whether a path fits a glob: * stays in its folder, ** is any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        if len(pattern) == 1:
            return True
        return any(_fits(parts[start:], pattern[1:]) for start in range(len(parts)))
    if not parts or not fnmatch.fnmatchcase(parts[0], pattern[0]):
        return False
    return _fits(parts[1:], pattern[1:])


def _is_shard(file: Remote, root: Remote, suffix: str) -> bool:
    parts = file.below(root).split("/")
    return file.name.endswith(suffix) and not any(part.startswith(".") for part in parts)


def _no_remote(spec: str, suffix: str, has_list: bool) -> UsageError | NotFoundError:
    if not has_list:
        return UsageError(
            f"no {suffix} file found",
            where=spec,
            did="https:// has no listing: asked for the files named",
            hint="name a file, or a quoted brace pattern: 'https://HOST/shards/{00000..00099}.tar'",
            reason="input.none_found",
        )
    kind = UsageError if _MAGIC.search(spec) else NotFoundError
    return kind(
        f"no {suffix} file found",
        where=spec,
        hint="name a folder, a file, or a quoted pattern: 's3://BUCKET/shards/{00000..00099}.tar'",
        reason="input.none_found",
    )
