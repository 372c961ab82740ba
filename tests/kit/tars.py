"""Builders of shards, whole and damaged, and of tiny images. Everything is deterministic."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from PIL import Image

from curator.core.reasons import REASONS
from curator.shards.dataset import ShardRef
from curator.shards.samples import ScannedSample
from curator.shards.scan import ScanOptions, ShardScan, scan_shard
from curator.shards.tar import BLOCK, END_OF_ARCHIVE, member_bytes

Files = list[tuple[str, bytes]]


@lru_cache(maxsize=256)
def image_bytes(
    seed: int = 0, *, kind: str = "JPEG", side_px: int = 32, mode: str = "RGB"
) -> bytes:
    """A valid image of one colour, another for each seed."""
    red, green, blue = (seed * 37) % 256, (seed * 91 + 50) % 256, (seed * 151 + 100) % 256
    out = io.BytesIO()
    Image.new("RGB", (side_px, side_px), (red, green, blue)).convert(mode).save(out, kind)
    return out.getvalue()


def sample(key: str, seed: int = 0, *, caption: str | bytes | None = "a photo") -> Files:
    """The files of one img2dataset sample: KEY.jpg, KEY.txt (unless None), KEY.json."""
    files = [(f"{key}.jpg", image_bytes(seed))]
    if caption is not None:
        text = caption if isinstance(caption, bytes) else caption.encode()
        files.append((f"{key}.txt", text))
    files.append((f"{key}.json", json.dumps({"key": key, "caption": f"json of {key}"}).encode()))
    return files


def samples(count: int, *, first: int = 0) -> Files:
    """`count` samples with the keys 000000000, 000000001, ..."""
    return [
        file
        for index in range(first, first + count)
        for file in sample(f"{index:09d}", index, caption=f"photo number {index}")
    ]


def tar(files: Iterable[tuple[str, bytes]], *, end: bytes = END_OF_ARCHIVE) -> bytes:
    """An archive of `files`, written by the code under test."""
    return b"".join(member_bytes(name, data) for name, data in files) + end


def foreign_tar(files: Files, *, format: int = tarfile.PAX_FORMAT, mtime: float = 0) -> bytes:
    """The same, written by Python's tarfile: filled up to a record of 10,240 bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), mtime
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def odd_member(name: str, kind: bytes, *, size: int = 0, linkname: str = "") -> bytes:
    """The bare header of a link, device, FIFO or any other type, with any size it claims."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, linkname
    return info.tobuf(tarfile.GNU_FORMAT)


def header_at(files: Files, index: int) -> int:
    """Where in `tar(files)` the header of member number `index` begins."""
    return sum(len(member_bytes(name, data)) for name, data in files[:index])


def flip(data: bytes, at: int, *, mask: int = 1) -> bytes:
    """`data` with bits of one byte changed."""
    return data[:at] + bytes((data[at] ^ mask,)) + data[at + 1 :]


def zero(data: bytes, start: int, length: int) -> bytes:
    """`data` with `length` bytes from `start` wiped."""
    return data[:start] + bytes(len(data[start : start + length])) + data[start + length :]


def padded(data: bytes) -> bytes:
    """`data` filled up to whole blocks of 512 bytes."""
    return data + bytes(-len(data) % BLOCK)


def write(folder: Path, data: bytes, *, name: str = "00000") -> ShardRef:
    """Put a shard into a folder."""
    path = folder / f"{name}.tar"
    path.write_bytes(data)
    return ShardRef(name, path)


def scan(folder: Path, data: bytes, **options: object) -> ShardScan:
    """Put a shard into a folder and read it."""
    return scan_shard(write(folder, data), options=ScanOptions(**options))  # type: ignore[arg-type]  # kwargs


def reasons(result: ShardScan) -> dict[str, str | None]:
    """Last character of the key -> reason, and a check that every reason is in the closed list."""
    for found in [*result.samples, *result.problems]:
        assert found.reason is None or found.reason in REASONS
    assert [one.row for one in result.samples] == list(range(len(result.samples)))
    return {one.key[-1]: one.reason for one in result.samples}


def shard_reasons(result: ShardScan) -> list[str]:
    """The reasons of the problems, in file order."""
    return [problem.reason for problem in result.problems]


def only(result: ShardScan) -> ScannedSample:
    """The sample of a shard that holds one."""
    assert len(result.samples) == 1
    return result.samples[0]
