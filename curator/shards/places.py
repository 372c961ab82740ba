"""The bytes of a shard, wherever it is: a local path, or an object of a store.

Local files are read and mapped where they are. Objects are fetched whole into the local cache
(`curator.shards.cache`), or read by ranges where few bytes are wanted (`sparse`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from curator.core.errors import DamageError, StorageError
from curator.shards import cache, objects
from curator.shards import digest as digests
from curator.shards.objects import Remote, Stamp, is_remote, parse

__all__ = ["Place", "Remote", "Stamp", "is_remote", "parse"]

Place = Path | Remote

_SPARSE = 4
"""Less than one byte in so many of a shard is asked for by ranges, ..."""
_SMALL_BYTES = 1 << 20
"""... unless the whole shard is about one range."""


def stamp(place: Place) -> Stamp | None:
    """Return what tells whether the file changed; None if there is no file.

    That of an object is the one it had when it was listed; reading it checks that it still holds.
    """
    if isinstance(place, Remote):
        return place.stamp
    try:
        found = place.stat()
    except FileNotFoundError:
        return None
    return Stamp(found.st_size, found.st_mtime_ns)


@contextlib.contextmanager
def local(place: Place) -> Iterator[Path]:
    """Hold a shard as a local file for the block.

    Raises:
        DamageError: source.changed, the object is not the one that was listed.
        StorageError: the store refuses or does not answer.
    """
    if isinstance(place, Remote):
        with cache.whole(place) as path:
            yield path
    else:
        yield place


def has_digest(place: Place, known: str) -> bool:
    """Whether a shard has this digest (`curator.shards.digest`); reads all of it.

    A shard that is not there has none.
    """
    try:
        with local(place) as path:
            return digests.of_file(path, like=known) == known
    except FileNotFoundError:
        return False


def is_same(place: Place, known: str, other: str) -> bool:
    """Whether two digests are of the same bytes; reads the shard if they are of different kinds."""
    if known == other or digests.is_plain(known) == digests.is_plain(other):
        return known == other
    return has_digest(place, known) and has_digest(place, other)


def sparse(place: Place, num_bytes: int) -> Place:
    """Return the place as it is best read for `num_bytes` of it: whole, or by ranges."""
    if isinstance(place, Remote) and place.stamp is not None:
        size = place.stamp.size_bytes
        return replace(place, whole=size <= _SMALL_BYTES or num_bytes * _SPARSE >= size)
    return place


def is_whole(place: Place) -> bool:
    """Whether reading the place fetches a whole object."""
    return isinstance(place, Remote) and place.whole


def by_ranges(place: Place) -> Place:
    """Return the place so that nothing is fetched beside the bytes asked for."""
    return replace(place, whole=False) if isinstance(place, Remote) else place


def read_bytes(place: Place, offset: int, length: int) -> bytes:
    """Read the bytes of one member again, at the offset that a scan found.

    Raises:
        DamageError: source.changed, the file is missing or shorter than before.
        StorageError: reading fails.
    """
    return read_many(place, [(offset, length)])[0]


def read_many(place: Place, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Read several (offset, length) ranges, as `read_bytes`."""
    if isinstance(place, Remote) and not place.whole:
        return objects.read_ranges(place, ranges)
    found = []
    try:
        if isinstance(place, Remote):
            found = [cache.read(place, offset, length) for offset, length in ranges]
        else:
            with place.open("rb") as file:
                for offset, length in ranges:
                    file.seek(offset)
                    found.append(file.read(length))
    except FileNotFoundError as exc:
        raise changed(place, "it is gone") from exc
    except OSError as exc:
        raise StorageError(f"cannot read: {exc.strerror or exc}", where=place) from exc
    for data, (offset, length) in zip(found, ranges, strict=True):
        if len(data) != length:
            raise changed(place, f"{len(data)} of {length} bytes are left at offset {offset}")
    return found


def read_each(place: Place, ranges: Sequence[tuple[int, int]]) -> list[bytes | DamageError]:
    """Like `read_many`, but what cannot be read is an error in its place."""
    try:
        return list(read_many(place, ranges))
    except DamageError as error:
        if len(ranges) == 1 or isinstance(place, Remote):
            return [error] * len(ranges)
    return [read_each(place, [one])[0] for one in ranges]


def read_small(place: Place, *, most_bytes: int) -> bytes | None:
    """Return the first bytes of a small file beside shards; None if there is none."""
    if isinstance(place, Remote):
        return objects.read_small(place, most_bytes=most_bytes)
    try:
        with place.open("rb") as file:
            return file.read(most_bytes)
    except FileNotFoundError:
        return None


def below(place: Place, root: Place) -> str:
    """Return the path of a file below a folder, with /.

    Raises:
        ValueError: it is not below it.
    """
    if isinstance(place, Remote) and isinstance(root, Remote):
        return place.below(root)
    assert isinstance(place, Path)
    assert isinstance(root, Path)
    return place.relative_to(root).as_posix()


def to_text(place: Place) -> str:
    """Return a place as a text, for tables of paths; `from_text` turns it back."""
    if isinstance(place, Remote) and place.stamp is not None:
        return "\n".join([place.url, *map(str, place.stamp)])  # no name of a shard has a newline
    return str(place)


def from_text(text: str) -> Place:
    """Return the place of `to_text`."""
    if not is_remote(text):
        return Path(text)
    url, *stamp = text.split("\n")
    return Remote(url, Stamp(int(stamp[0]), int(stamp[1]), stamp[2]) if stamp else None)


def changed(
    place: Place,
    how: str,
    *,
    did: str | None = None,
    hint: str = "run `curator index` again to use its current content",
) -> DamageError:
    """Return the error for a shard whose bytes differ from those indexed."""
    return DamageError(
        f"the shard is not the one that was indexed: {how}",
        where=place,
        did=did,
        hint=hint,
        reason="source.changed",
    )
