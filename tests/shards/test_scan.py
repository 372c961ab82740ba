"""Shards in: damaged archives, and the shard as a file."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.core.errors import DamageError, UsageError
from curator.shards import digest
from curator.shards.dataset import ShardRef, discover
from curator.shards.places import read_bytes
from curator.shards.samples import Member
from curator.shards.scan import ScanOptions, scan_shard
from tests.kit.tars import (
    flip,
    foreign_tar,
    header_at,
    image_bytes,
    only,
    reasons,
    sample,
    samples,
    scan,
    shard_reasons,
    tar,
    write,
    zero,
)

FOUR = samples(4)  # jpg, txt, json of keys 000000000 to 000000003: members 0 to 11


def test_a_whole_shard(tmp_path: Path) -> None:
    data = tar(FOUR)
    result = scan(tmp_path, data)
    assert reasons(result) == {"0": None, "1": None, "2": None, "3": None}
    assert (result.problems, result.num_unsafe) == ([], 0)
    assert (result.name, result.size_bytes) == ("00000", len(data))
    assert result.digest == digest.of_buffer(data)
    second = result.samples[1]
    image = image_bytes(1)
    assert second.image is not None
    assert data[second.image.offset : second.image.offset + second.image.length] == image
    assert second.image_sha256 == hashlib.sha256(image).hexdigest()
    assert (second.width, second.height, second.image_format) == (32, 32, "JPEG")
    assert (second.alt_text, second.alt_raw, second.flags) == ("photo number 1", None, ())
    assert [member.ext for member in second.members] == ["jpg", "txt", "json"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_usual_image_formats(tmp_path: Path, kind: str) -> None:
    ext = kind.lower()
    result = scan(tmp_path, tar([(f"a.{ext}", image_bytes(kind=kind)), ("a.txt", b"x")]))
    assert (only(result).image_format, only(result).flags) == (kind, ())


def test_keys_with_folders_and_extensions_in_capitals(tmp_path: Path) -> None:
    result = scan(tmp_path, tar([("set/a.JPG", image_bytes()), ("set/a.TXT", b"x")]))
    assert (only(result).key, only(result).alt_text) == ("set/a", "x")
    assert [member.ext for member in only(result).members] == ["JPG", "TXT"]


# Damage of the archive


def test_cut_inside_data(tmp_path: Path) -> None:
    # In the image of sample 2: its header is there, 100 of its bytes are.
    result = scan(tmp_path, tar(FOUR)[: header_at(FOUR, 6) + 512 + 100])
    assert reasons(result) == {"0": None, "1": None, "2": "tar.truncated"}
    assert shard_reasons(result) == ["tar.truncated"]
    assert "100 of " in result.problems[0].detail
    assert "6 members read before it, 0 after it" in result.problems[0].detail


def test_half_a_sample_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    # Cut in the text of sample 1: its image alone would look like a sample without a caption.
    result = scan(tmp_path, tar(FOUR)[: header_at(FOUR, 4) + 512 + 3])
    assert reasons(result) == {"0": None, "1": "tar.truncated"}


def test_cut_at_a_member_boundary(tmp_path: Path) -> None:
    result = scan(tmp_path, tar(FOUR)[: header_at(FOUR, 6)])
    assert reasons(result) == {"0": None, "1": None}
    assert shard_reasons(result) == ["tar.no_eof"]


def test_cut_between_image_and_text(tmp_path: Path) -> None:
    result = scan(tmp_path, tar(FOUR)[: header_at(FOUR, 4)])
    assert reasons(result) == {"0": None, "1": "tar.no_eof"}


def test_cut_inside_a_header(tmp_path: Path) -> None:
    result = scan(tmp_path, tar(FOUR)[: header_at(FOUR, 6) + 100])
    assert reasons(result) == {"0": None, "1": None}
    assert shard_reasons(result) == ["tar.truncated"]
    assert "100 bytes of a header" in result.problems[0].detail


@pytest.mark.parametrize(
    ("index", "expected"),
    [(3, "tar.bad_header"), (4, "tar.bad_header"), (5, None)],
    ids=["image", "text", "json"],
)
def test_one_flipped_header_byte(tmp_path: Path, index: int, expected: str | None) -> None:
    # Without its image or its text sample 1 is lost, and said so; without its json it is whole.
    at = header_at(FOUR, index)
    result = scan(tmp_path, flip(tar(FOUR), at + 3))
    assert reasons(result) == {"0": None, "1": expected, "2": None, "3": None}
    assert shard_reasons(result) == ["tar.bad_header"]
    assert result.problems[0].offset == at
    assert f"{index} members read before it, {11 - index} after it" in result.problems[0].detail


def test_a_sample_that_has_no_caption_anyway(tmp_path: Path) -> None:
    # Sample 3 has no caption and lies far from the damage: it keeps its null caption.
    files = [*samples(3), *sample("000000003", caption=None)]
    result = scan(tmp_path, flip(tar(files), header_at(files, 4) + 3))
    assert reasons(result) == {"0": None, "1": "tar.bad_header", "2": None, "3": None}


def test_four_kilobytes_of_zeros(tmp_path: Path) -> None:
    # From the text of sample 1 on; what they cover depends on the sizes of the images (each member
    # of FOUR takes two blocks or three): here the headers from 000000001.txt on.
    data = tar(FOUR)
    at = header_at(FOUR, 4)
    result = scan(tmp_path, zero(data, at, 4096))
    assert shard_reasons(result) == ["tar.premature_eof"]
    found = reasons(result)
    assert found["0"] is None
    assert found["1"] == "tar.premature_eof"
    assert found["3"] is None  # behind the zeros: recovered


def test_no_byte_at_all(tmp_path: Path) -> None:
    result = scan(tmp_path, b"")
    assert (reasons(result), shard_reasons(result)) == ({}, ["tar.empty"])
    assert result.digest == digest.of_buffer(b"")


def test_zeros_only(tmp_path: Path) -> None:
    assert shard_reasons(scan(tmp_path, bytes(10240))) == ["tar.empty"]


@pytest.mark.parametrize("size", [50, 5000], ids=["short", "long"])
def test_an_html_page(tmp_path: Path, size: int) -> None:
    result = scan(tmp_path, b"<!DOCTYPE html><title>404</title>".ljust(size, b"."))
    assert shard_reasons(result) == ["tar.not_a_tar"]
    assert "<!DOCTYPE html>" in result.problems[0].detail


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (gzip.compress(tar(FOUR)), "gzip"),
        (b"\x28\xb5\x2f\xfd" + bytes(900), "zstd"),
        (b"BZh9" + bytes(900), "bzip2"),
        (b"\xfd7zXZ\0" + bytes(900), "xz"),
    ],
    ids=["gzip", "zstd", "bzip2", "xz"],
)
def test_compressed(tmp_path: Path, data: bytes, name: str) -> None:
    result = scan(tmp_path, data)
    assert shard_reasons(result) == ["tar.compressed"]
    assert name in result.problems[0].detail


def test_parquet(tmp_path: Path) -> None:
    result = scan(tmp_path, b"PAR1" + bytes(5000) + b"PAR1")
    assert shard_reasons(result) == ["tar.not_a_tar"]
    assert "curator pack" in result.problems[0].detail


@pytest.mark.parametrize("build", [tar, foreign_tar], ids=["ours", "records"])
def test_concatenated(tmp_path: Path, build: object) -> None:
    assert callable(build)
    result = scan(tmp_path, build(FOUR) + build(samples(1, first=4)))
    assert reasons(result) == dict.fromkeys("01234")
    assert shard_reasons(result) == ["tar.data_after_eof"]


def test_something_else_behind_the_end(tmp_path: Path) -> None:
    result = scan(tmp_path, tar(FOUR) + b"signature")
    assert reasons(result) == dict.fromkeys("0123")
    assert shard_reasons(result) == ["tar.data_after_eof"]
    assert "9 bytes that are not a tar" in result.problems[0].detail


def test_the_same_name_twice(tmp_path: Path) -> None:
    files = [("a.jpg", image_bytes(1)), ("a.jpg", image_bytes(2)), ("a.txt", b"x")]
    result = scan(tmp_path, tar(files))
    assert only(result).reason is None
    assert only(result).image_sha256 == hashlib.sha256(image_bytes(1)).hexdigest()
    assert [member.ext for member in only(result).members] == ["jpg", "txt"]
    assert [(one.reason, one.member) for one in result.problems] == [
        ("key.duplicate_member", "a.jpg")
    ]


def test_a_sample_that_comes_again_whole(tmp_path: Path) -> None:
    result = scan(tmp_path, tar(FOUR + FOUR[:3]))
    assert reasons(result) == dict.fromkeys("0123")
    assert shard_reasons(result) == ["key.duplicate_member"] * 3


def test_names_that_differ_in_case_only(tmp_path: Path) -> None:
    # WebDataset lowers extensions, so these are one name to every reader.
    result = scan(tmp_path, tar([("a.jpg", image_bytes()), ("a.JPG", image_bytes(1))]))
    assert shard_reasons(result) == ["key.duplicate_member"]


def test_files_apart(tmp_path: Path) -> None:
    # All images first, then all texts: the layout of somebody who sorted by extension.
    files = [("a.jpg", image_bytes()), ("b.jpg", image_bytes()), ("a.txt", b"x"), ("b.txt", b"y")]
    result = scan(tmp_path, tar([*files, *sample("c")]))
    assert [(one.key, one.reason) for one in result.samples] == [
        ("a", "key.not_adjacent"),
        ("b", "key.not_adjacent"),
        ("a", "key.not_adjacent"),
        ("b", "key.not_adjacent"),
        ("c", None),
    ]


# The shard as a file


@pytest.mark.parametrize(
    ("stats", "expected"),
    [
        ({"successes": 5}, ["shard.count_mismatch"]),
        ({"successes": 4}, []),
        ({"successes": 3}, []),
        ({}, ["shard.count_mismatch"]),
        ([], ["shard.count_mismatch"]),
    ],
    ids=["more", "equal", "fewer", "no_count", "no_object"],
)
def test_img2dataset_stats(tmp_path: Path, stats: object, expected: list[str]) -> None:
    (tmp_path / "00000_stats.json").write_text(json.dumps(stats))
    assert shard_reasons(scan(tmp_path, tar(FOUR))) == expected


def test_a_shard_that_is_not_there(tmp_path: Path) -> None:
    result = scan_shard(ShardRef("x", tmp_path / "x.tar"), options=ScanOptions())
    assert (result.samples, shard_reasons(result)) == ([], ["shard.missing"])


def test_a_fifo_named_tar_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.tar")
    result = scan_shard(ShardRef("x", tmp_path / "x.tar"), options=ScanOptions())
    assert shard_reasons(result) == ["shard.missing"]


def test_read_bytes(tmp_path: Path) -> None:
    ref = write(tmp_path, tar(FOUR))
    image = scan_shard(ref, options=ScanOptions()).samples[2].image
    assert image is not None
    assert read_bytes(ref.path, image.offset, image.length) == image_bytes(2)


def test_a_shard_that_got_shorter_or_went(tmp_path: Path) -> None:
    ref = write(tmp_path, bytes(100))
    with pytest.raises(DamageError, match="60 of 90 bytes") as shorter:
        read_bytes(ref.path, 40, 90)
    assert (shorter.value.reason, shorter.value.code) == ("source.changed", 12)
    ref.path.unlink()
    with pytest.raises(DamageError) as gone:
        read_bytes(ref.path, 0, 1)
    assert gone.value.reason == "source.changed"


def test_a_shard_that_changes_while_it_is_scanned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = write(tmp_path, tar(FOUR))
    compare = "curator.shards.scan._compare_stats"  # runs at the end of the pass
    monkeypatch.setattr(compare, lambda *_: os.utime(ref.path, ns=(1, 1)) or [])
    with pytest.raises(DamageError) as changed:
        scan_shard(ref, options=ScanOptions())
    assert changed.value.reason == "source.changed"


def test_options_are_checked() -> None:
    for options in (
        {"caption_field": ""},
        {"caption_field": "a..b"},
        {"image_ext": ()},
        {"image_ext": (".jpg",)},
        {"image_ext": ("JPG",)},
        {"max_member_bytes": 1},
        {"max_pixels": 0},
        {"min_side_px": 0},
        {"max_aspect": float("nan")},
        {"image_formats": ("EPS",)},
    ):
        with pytest.raises(UsageError, match=next(iter(options)).removeprefix("image_f")):
            ScanOptions(**options)  # type: ignore[arg-type]  # wrong on purpose


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutations")


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_random_damage_never_raises_and_never_loses_silently(
    folder: Path, data: st.DataObject
) -> None:
    # Every original sample is found whole (image and caption), or something is reported. One flip:
    # two may cancel out in the checksum of a header, and then nobody can tell.
    whole = tar(FOUR)
    position = st.integers(0, len(whole) - 1)
    kind = data.draw(st.sampled_from(["flip", "cut", "zero"]))
    at = data.draw(position)
    if kind == "flip":
        damaged = flip(whole, at, mask=1 << data.draw(st.integers(0, 7)))
    elif kind == "cut":
        damaged = whole[:at]
    else:
        damaged = zero(whole, at, data.draw(st.sampled_from([1, 512, 4096, len(whole)])))
    result = scan(folder, damaged)
    if not result.problems and not any(one.reason for one in result.samples):
        assert [one.key for one in result.samples] == [f"{index:09d}" for index in range(4)]
        # Wiped text is an empty text, flagged; tar cannot tell it from a written one.
        assert all(one.alt_text or one.flags for one in result.samples)


@pytest.mark.realdata
def test_the_real_photos(shared: Path) -> None:
    dataset = discover(str(shared / "data" / "photos"))
    scans = [scan_shard(shard, options=ScanOptions()) for shard in dataset.shards]
    assert [len(one.samples) for one in scans] == [500] * 4
    assert not any(one.problems or one.num_unsafe for one in scans)
    for shard, one in zip(dataset.shards, scans, strict=True):
        for real in one.samples:
            json_at = next(member for member in real.members if member.ext == "json")
            meta = json.loads(read_bytes(shard.path, json_at.offset, json_at.length))
            assert (real.reason, real.flags) == (None, ())
            assert (real.key, real.image_sha256) == (meta["key"], meta["sha256"])
            assert (real.width, real.height) == (meta["width"], meta["height"])
            assert isinstance(real.image, Member)
