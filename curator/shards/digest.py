"""The digest of a shard, for which every byte of it is hashed once, also if its images are too.

    parts:HEX     HEX is the SHA-256 of one line for each large file in the tar, and a last line:
                      OFFSET LENGTH SHA256           where the file's bytes are, and their SHA-256
                      SIZE SHA256                    of the tar; of all bytes in no line above
    HEX           the SHA-256 of the tar file itself: shards indexed before December 2026

The lines name every byte of the tar once, so two tars with one digest are a collision of SHA-256,
as for the plain one. The files are found by the sizes in the chain of headers alone, up to the
first block without a size; nothing else is read into them, since any choice of parts gives a valid
digest. So this does not change when the reading of damaged archives (`curator.shards.tar`) does,
and must never change itself: versions contain it. Behind damage everything belongs to the last
line, and images there are hashed twice.

Cost: about 2 us for each header beside the hashing.
"""

from __future__ import annotations

import hashlib
import mmap
import re
from pathlib import Path

from curator.shards.tar import BLOCK, Buffer

_PREFIX = "parts:"
_LARGE_BYTES = 4096
"""Files from this size on have their own line; smaller ones are not worth one."""
_SIZE_AT, _SIZE_END = 124, 136
_SIZE = re.compile(rb"[ \0]*([0-7]+)(?:[ \0]|\Z)")
_STEP_BYTES = 8 << 20


class Parts:
    """One pass over a shard that hashes its bytes as far as asked, for its digest and its images.

    `buffer` may be mapped and its pages released behind what was asked for.
    """

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self._header: int | None = 0  # where the next one is; None behind the last
        self._done = 0  # all bytes before it are hashed
        self._lines = hashlib.sha256()
        self._others = hashlib.sha256()
        self._files: dict[int, tuple[int, str]] = {}  # offset -> length, SHA-256; until asked for

    def advance(self, offset: int) -> None:
        """Hash the large files that begin at `offset` or before it, and most of what is around."""
        while self._header is not None and self._header <= offset:
            self._header = self._next(self._header)
        if offset - self._done > _STEP_BYTES:
            self._others_until(offset)

    def sha256(self, offset: int, length: int) -> str:
        """Return the SHA-256 (hex) of some bytes: for free if they are a large file of the tar.

        It is forgotten then; asked again, the bytes are hashed again.
        """
        self.advance(offset)
        found, digest = self._files.pop(offset, (-1, ""))
        if found == length:
            return digest
        with memoryview(self._buffer) as view, view[offset : offset + length] as part:
            return hashlib.sha256(part).hexdigest()

    def finish(self) -> str:
        """Hash the rest and return the digest of the shard."""
        size = len(self._buffer)
        self.advance(size)
        self._others_until(size)
        self._lines.update(f"{size} {self._others.hexdigest()}\n".encode())
        return _PREFIX + self._lines.hexdigest()

    def _next(self, header: int) -> int | None:
        """Hash the file behind a header if it is large; return where the next header is."""
        match = _SIZE.match(self._buffer, header + _SIZE_AT, header + _SIZE_END)
        start = header + BLOCK
        end = start + (int(match[1], 8) if match else 0)
        if match is None or end > len(self._buffer):
            return None
        if end - start >= _LARGE_BYTES:
            self._others_until(start)
            with memoryview(self._buffer) as view, view[start:end] as part:
                digest = hashlib.sha256(part).hexdigest()
            self._lines.update(f"{start} {end - start} {digest}\n".encode())
            self._files[start] = (end - start, digest)
            self._done = end
        return start + -(-(end - start) // BLOCK) * BLOCK

    def _others_until(self, end: int) -> None:
        if end > self._done:
            with memoryview(self._buffer) as view, view[self._done : end] as part:
                self._others.update(part)
            self._done = end


def release(buffer: Buffer, start: int, end: int) -> int:
    """Release mapped pages that are no longer needed, so that resident memory stays flat.

    Returns:
        where the released pages end.
    """
    end = min(end, len(buffer)) // mmap.PAGESIZE * mmap.PAGESIZE
    start = start // mmap.PAGESIZE * mmap.PAGESIZE
    if isinstance(buffer, mmap.mmap) and end > start:
        buffer.madvise(mmap.MADV_DONTNEED, start, end - start)
    return end


def of_buffer(buffer: Buffer) -> str:
    """Return the digest of a shard's bytes."""
    parts, behind = Parts(buffer), 0
    for offset in range(_STEP_BYTES, len(buffer), _STEP_BYTES):
        parts.advance(offset)
        behind = release(buffer, behind, offset)
    return parts.finish()


def of_file(path: Path, *, like: str = _PREFIX) -> str:
    """Return the digest of a shard, of the same kind as the digest `like`."""
    with path.open("rb") as file:
        if is_plain(like):
            return hashlib.file_digest(file, "sha256").hexdigest()
        if not path.stat().st_size:  # an empty file cannot be mapped
            return of_buffer(b"")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return of_buffer(mapped)


def is_plain(digest: str) -> bool:
    """Whether a digest is the SHA-256 of the file itself."""
    return not digest.startswith(_PREFIX)


def short(digest: str) -> str:
    """Return enough of a digest for a message."""
    return digest.removeprefix(_PREFIX)[:12]
