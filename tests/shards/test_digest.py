"""The digest of a shard: as defined, another for any changed byte, and no byte hashed twice."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.shards import digest, places
from curator.shards.dataset import ShardRef
from curator.shards.scan import ScanOptions, scan_shard
from curator.shards.tar import TarMember, member_bytes, walk
from tests.kit.tars import foreign_tar, image_bytes, sample, tar

LARGE = 4096
FILES = [("a.jpg", bytes(LARGE)), ("a.txt", b"a dog"), ("a.npy", bytes(LARGE - 1)),
         ("b.jpg", b"x" * 10_000)]  # fmt: skip


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def plain(data: bytes) -> str:
    """The definition, once more."""
    lines, others, at, done = "", b"", 0, 0
    while size := re.match(rb"[ \0]*([0-7]+)(?:[ \0]|\Z)", data[at + 124 : at + 136]):
        start, end = at + 512, at + 512 + int(size[1], 8)
        if end > len(data):
            break
        if end - start >= LARGE:
            others += data[done:start]
            lines += f"{start} {end - start} {sha(data[start:end])}\n"
            done = end
        at = start + (end - start + 511) // 512 * 512
    lines += f"{len(data)} {sha(others + data[done:])}\n"
    return f"parts:{sha(lines.encode())}"


def test_two_large_files_have_a_line_each() -> None:
    """Worked out by hand, and never to change: versions contain such digests.

    a.jpg is at byte 512 and has 4,096; a.txt takes 1,024 with its header and a.npy 4,608, so that
    b.jpg is at 512 + 4096 + 1024 + 4608 + 512 = 10,752; its 10,000 are filled up to 10,240, and
    1,024 zeros end the tar.
    """
    data = tar(FILES)
    others = data[:512] + data[4608:10752] + data[20752:]
    lines = f"512 4096 {sha(bytes(4096))}\n10752 10000 {sha(b'x' * 10_000)}\n22016 {sha(others)}\n"
    assert digest.of_buffer(data) == f"parts:{sha(lines.encode())}"
    assert digest.of_buffer(data) == plain(data) == FROZEN


# with head, tail and sha256sum
FROZEN = "parts:fec66c0095c4ba924b204aa0e57b2661671653f155bfd2bd59a3d4be90c3bb27"


def test_an_empty_file_has_one_line() -> None:
    line = f"0 {sha(b'')}\n"
    assert digest.of_buffer(b"") == f"parts:{sha(line.encode())}"


contents = st.builds(
    lambda size, seed: bytes([seed]) * size,
    st.sampled_from([0, 1, 511, 512, 513, LARGE - 1, LARGE, LARGE + 1, 3 * LARGE]),
    st.integers(0, 255),
)
archives = st.lists(contents, max_size=6).map(
    lambda found: tar([(f"{number}.jpg", data) for number, data in enumerate(found)])
)


@st.composite
def shards(draw: st.DrawFn) -> bytes:
    """Archives, whole or cut, with a stretch overwritten, or one behind the other; or any bytes."""
    data = draw(archives)
    match draw(st.sampled_from(["whole", "cut", "overwritten", "two", "any"])):
        case "cut":
            return data[: draw(st.integers(0, len(data)))]
        case "overwritten":
            at = draw(st.integers(0, len(data)))
            with_ = draw(st.binary(max_size=600) | st.integers(0, 2000).map(bytes))
            return data[:at] + with_ + data[at + len(with_) :]
        case "two":
            return data + draw(archives)
        case "any":
            return draw(st.binary(max_size=2000))
    return data


@given(shards(), st.sampled_from([512, 5000, digest._STEP_BYTES]))
def test_it_is_as_defined_for_any_bytes(data: bytes, step: int) -> None:
    with mock.patch.object(digest, "_STEP_BYTES", step):
        assert digest.of_buffer(data) == plain(data)


@given(shards(), st.data())
def test_any_changed_byte_changes_it(data: bytes, draw: st.DataObject) -> None:
    known = digest.of_buffer(data)
    at = draw.draw(st.integers(0, len(data)))
    assert digest.of_buffer(data[:at] + b"\0" + data[at:]) != known
    if at < len(data):
        assert digest.of_buffer(data[:at]) != known
        assert digest.of_buffer(data[:at] + data[at + 1 :]) != known
        flipped = data[at] ^ draw.draw(st.integers(1, 255))
        assert digest.of_buffer(data[:at] + bytes([flipped]) + data[at + 1 :]) != known


def test_a_file_that_holds_the_hash_in_place_of_the_bytes_is_another() -> None:
    """What a digest over the tar with hashes in the places of files would take for the same."""
    header = tar([("a.jpg", bytes(LARGE))])[:512]
    for hashed in (hashlib.sha256(bytes(LARGE)).digest(), sha(bytes(LARGE)).encode()):
        assert digest.of_buffer(header + hashed) != digest.of_buffer(header + bytes(LARGE))


@given(shards(), st.data())
def test_it_gives_the_sha256_of_any_bytes_on_the_way(data: bytes, draw: st.DataObject) -> None:
    parts = digest.Parts(data)
    with mock.patch.object(digest, "_STEP_BYTES", 5000):
        for found in walk(data):
            if isinstance(found, TarMember):
                if draw.draw(st.booleans()):
                    parts.advance(found.offset)
                asked = draw.draw(st.sampled_from([found.length, found.length // 2]))
                expected = sha(data[found.offset : found.offset + asked])
                assert parts.sha256(found.offset, asked) == expected
                assert parts.sha256(found.offset, asked) == expected
        assert parts.finish() == plain(data)


class Counting:
    """hashlib.sha256 that counts its bytes."""

    num_bytes = 0

    def __init__(self, data: bytes = b"") -> None:
        self._real = hashlib.new("sha256")
        self.update(data)

    def update(self, data: bytes) -> None:
        Counting.num_bytes += len(data)
        self._real.update(data)

    def hexdigest(self) -> str:
        return self._real.hexdigest()


def test_every_byte_is_hashed_once_while_images_are_looked_at() -> None:
    files = [(f"{key}.{ext}", image) for key in "abcd" for ext, image in
             (("jpg", image_bytes(side_px=900)), ("txt", b"a dog"))]  # fmt: skip
    assert len(image_bytes(side_px=900)) > LARGE
    data = tar(files)
    with mock.patch.object(digest.hashlib, "sha256", Counting):
        parts = digest.Parts(data)
        for found in walk(data):
            assert isinstance(found, TarMember)
            if found.name.endswith(".jpg"):
                parts.sha256(found.offset, found.length)
        parts.finish()
    lines = 5 * len("512 10000 \n") + 5 * 64
    assert len(data) < Counting.num_bytes < len(data) + lines + 100


@pytest.mark.parametrize(
    "data",
    [
        tar([*sample("a"), *FILES[3:]]),
        tar([*sample("a"), *FILES[3:]])[:-3000],
        member_bytes("a.jpg", image_bytes()) + b"no header".ljust(600) + tar(FILES),
        foreign_tar([(f"{'x' * 150}.jpg", bytes(9000)), *sample("b")]),
        b"",
    ],
    ids=["whole", "cut", "damaged", "long names", "empty"],
)
def test_scanning_a_shard_gives_the_same_digest_as_reading_the_file(
    tmp_path: Path, data: bytes
) -> None:
    path = tmp_path / "00000.tar"
    path.write_bytes(data)
    for options in (ScanOptions(), ScanOptions(max_member_bytes=65_536, image_ext=("npy",))):
        scan = scan_shard(ShardRef("00000", path), options=options)
        assert scan.digest == digest.of_file(path) == plain(data)


def test_two_kinds_of_digest_of_one_shard(tmp_path: Path) -> None:
    """A shard that was indexed before December 2026 is known by the SHA-256 of its file."""
    path, other = tmp_path / "a.tar", tmp_path / "b.tar"
    path.write_bytes(tar(FILES))
    other.write_bytes(tar(FILES[1:]))
    new, old = digest.of_file(path), digest.of_file(path, like=sha(b"anything"))
    assert (old, new) == (sha(path.read_bytes()), plain(path.read_bytes()))
    assert digest.is_plain(old)
    assert not digest.is_plain(new)
    for known in (old, new):
        assert places.has_digest(path, known)
        assert not places.has_digest(other, known)
        assert places.is_same(path, known, known)
    assert places.is_same(path, old, new)
    assert places.is_same(path, new, old)
    assert not places.is_same(other, old, new), "the file at hand decides, and it is another"
    assert not places.is_same(path, old, sha(b"another"))
