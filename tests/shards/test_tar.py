"""The tar reader and writer by themselves; what becomes of samples is in test_shards."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.shards.tar import (
    END_OF_ARCHIVE,
    Problem,
    TarMember,
    member_bytes,
    member_header,
    printable,
    walk,
)
from tests.kit.tars import flip, foreign_tar, header_at, odd_member, padded, tar, zero

FILES = [("a.jpg", b"A" * 600), ("a.txt", b"alpha"), ("b.jpg", b"B" * 512), ("b.txt", b"")]


def names(data: bytes) -> list[str]:
    return [found.name for found in walk(data) if isinstance(found, TarMember)]


def problems(data: bytes, **options: int) -> list[Problem]:
    return [found for found in walk(data, **options) if isinstance(found, Problem)]


def read_all(data: bytes) -> list[tuple[str, bytes]]:
    found = list(walk(data))
    assert not [one for one in found if isinstance(one, Problem)]
    return [(m.name, data[m.offset : m.offset + m.length]) for m in found]  # type: ignore[union-attr]  # asserted above


def test_offsets_and_lengths_address_the_data() -> None:
    # header 512, data 600 in two blocks; header at 1536
    assert list(walk(tar(FILES)))[:2] == [
        TarMember("a.jpg", 512, 600),
        TarMember("a.txt", 1536 + 512, 5),
    ]


LONG = "folder/" * 40 + "x.jpg"  # 285 characters: no ustar prefix (155) is long enough


@pytest.mark.parametrize(
    "format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=str
)
def test_reads_what_pythons_tarfile_writes(format: int) -> None:
    split = "p" * 90 + "/" + "n" * 90 + ".jpg"  # fits ustar only with its prefix field
    files = [*FILES, ("größe.jpg", b"utf-8"), (split, b"split")]
    if format != tarfile.USTAR_FORMAT:
        files.append((LONG, b"long"))  # GNU 'L' or PAX 'x'
    assert read_all(foreign_tar(files, format=format)) == files


def test_reads_img2dataset_tars_with_a_pax_header_for_each_member() -> None:
    # webdataset's writer sets a float mtime, which only PAX can hold.
    data = foreign_tar(FILES, mtime=1700000000.25)
    assert b"mtime=1700000000.25" in data
    assert read_all(data) == FILES


def test_reads_base_256_sizes() -> None:
    data = bytearray(tar([("a.jpg", b"A" * 600)]))
    data[124:136] = b"\x80" + (600).to_bytes(11, "big")
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    assert read_all(bytes(data)) == [("a.jpg", b"A" * 600)]


def test_pythons_tarfile_reads_what_we_write() -> None:
    files = [
        *FILES,
        ("größe.jpg", b"utf-8"),
        ("p" * 90 + "/" + "n" * 90, b"split"),
        (LONG, b"long"),
    ]
    with tarfile.open(fileobj=io.BytesIO(tar(files))) as archive:
        found = [(one.name, archive.extractfile(one).read()) for one in archive]  # type: ignore[union-attr]  # all are files
        first = archive.getmembers()[0]
    assert found == files
    assert (first.mode, first.mtime, first.uid, first.gid, first.uname) == (0o644, 0, 0, 0, "")


def test_written_bytes_never_change() -> None:
    # The checksum by hand: the sum of the header's bytes, its own field taken as spaces. Name 495,
    # mode 350, uid and gid 672, size 533, time 528, spaces 256, type 48, ustar00 655, devices 672:
    # 4,209 = 0o10161.
    header = (
        b"a.txt".ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + b"00000000005\0"
        + b"00000000000\0" + b"010161\0 " + b"0" + bytes(100) + b"ustar\00000" + bytes(64)
        + b"0000000\0" * 2 + bytes(155 + 12)
    )  # fmt: skip
    assert member_bytes("a.txt", b"alpha") == header + b"alpha".ljust(512, b"\0")
    assert member_header("a.txt", 5) == header


@pytest.mark.parametrize("name", ["", "a\0b", "\udcff.jpg"], ids=["empty", "nul", "surrogate"])
def test_a_name_that_no_tar_can_hold_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"no member can be named|surrogates not allowed"):
        member_bytes(name, b"")


def test_a_member_of_8_gib_is_refused() -> None:
    with pytest.raises(ValueError, match="8589934592 bytes do not fit"):
        member_header("a.jpg", 8 * 1024**3)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
            # "folder/" is a folder for every reader; PAX cannot hold a name without this either
            .map(lambda text: text[:150].rstrip("/") + "." + text[:200].rstrip("/")),
            st.binary(max_size=1100),
        ),
        max_size=4,
    ).filter(bool)
)
def test_what_is_written_is_read(files: list[tuple[str, bytes]]) -> None:
    assert read_all(tar(files)) == files


def test_printable_escapes_what_cannot_be_shown() -> None:
    assert printable("größe 1.jpg") == "größe 1.jpg"
    assert printable("a\nb\0\udcff\u202e") == "a\\nb\\x00\\udcff\\u202e"


# Damage. Offsets in FILES: a.jpg 0..1536, a.txt 1536..2560, b.jpg 2560..3584, b.txt 3584..4096.


def test_truncated_at_every_byte_is_reported() -> None:
    data = tar(FILES)
    for length in range(len(data)):
        found = problems(data[:length])
        assert len(found) == 1, length
        # Behind the last member only end blocks are missing; in front of it anything is.
        expected = {"tar.no_eof"} if length >= 4096 else {"tar.no_eof", "tar.truncated"}
        assert found[0].reason in expected | ({"tar.empty"} if length == 0 else set()) | (
            {"tar.not_a_tar"} if length < 262 else set()  # no "ustar" to be seen yet
        )


def test_every_flipped_bit_of_a_header_is_found_and_passed() -> None:
    data = tar(FILES)
    at = header_at(FILES, 1)
    for index in range(512):
        for bit in range(8):
            damaged = flip(data, at + index, mask=1 << bit)
            if 148 <= index < 156:
                continue  # the checksum itself; some of its bits are padding and change nothing
            assert names(damaged) == ["a.jpg", "b.jpg", "b.txt"], (index, bit)
            assert [one.reason for one in problems(damaged)] == ["tar.bad_header"]


def test_a_flipped_bit_in_the_checksum_loses_at_most_this_member() -> None:
    data = tar(FILES)
    for index in range(148, 156):
        for bit in range(8):
            damaged = flip(data, header_at(FILES, 1) + index, mask=1 << bit)
            is_lost = "a.txt" not in names(damaged)
            assert is_lost == bool(problems(damaged))


def test_the_first_header_damaged() -> None:
    damaged = flip(tar(FILES), 3)
    assert names(damaged) == ["a.txt", "b.jpg", "b.txt"]
    assert problems(damaged)[0].reason == "tar.bad_header"


def test_the_magic_of_the_first_header_damaged_is_still_a_tar() -> None:
    assert names(flip(tar(FILES), 258)) == ["a.txt", "b.jpg", "b.txt"]


def test_a_lone_header_damaged() -> None:
    data = flip(tar(FILES[:1]), 3)
    assert [one.reason for one in problems(data)] == ["tar.bad_header"]


def test_a_size_beyond_the_end_hides_no_other_member() -> None:
    # A valid checksum over a wrong size: only the end of the file can tell.
    liar = odd_member("liar.jpg", b"0", size=1_000_000)
    data = tar(FILES[:1], end=b"") + liar + tar(FILES[1:])
    assert names(data) == ["a.jpg", "a.txt", "b.jpg", "b.txt"]
    found = problems(data)
    assert [(one.reason, one.member) for one in found] == [("tar.bad_header", "liar.jpg")]


def test_a_long_run_of_zeros_at_the_end_is_suspicious() -> None:
    # b.jpg and b.txt wiped: what is left looks like an archive that ended early.
    data = zero(tar(FILES), 2560, 10_000)
    assert names(data) == ["a.jpg", "a.txt"]
    assert [one.reason for one in problems(data)] == ["tar.premature_eof"]


def test_full_records_of_zeros_are_no_problem() -> None:
    assert problems(foreign_tar(FILES)) == []


def test_a_malformed_pax_header_leaves_its_member_out() -> None:
    # Its member could carry a wrong name or size.
    pax = padded(odd_member("x", b"x", size=9) + b"99 path=a")
    data = pax + tar([("wrong.jpg", b"1"), ("b.jpg", b"2")])
    assert names(data) == ["b.jpg"]
    assert [one.reason for one in problems(data)] == ["tar.bad_header"]


@pytest.mark.parametrize("kind", [b"x", b"L"], ids=["pax", "gnu"])
def test_a_name_of_a_gigabyte_that_is_not_there(kind: bytes) -> None:
    data = odd_member("x", kind, size=2**30) + tar(FILES)
    assert names(data) == ["a.txt", "b.jpg", "b.txt"]  # a.jpg would have had the long name
    assert [one.reason for one in problems(data)] == ["tar.header_too_large"]


def test_a_name_above_the_limit_that_is_there() -> None:
    name = b"n" * 65_537
    data = padded(odd_member("x", b"L", size=len(name)) + name) + tar(FILES)
    assert names(data) == ["a.txt", "b.jpg", "b.txt"]
    assert [one.reason for one in problems(data)] == ["tar.header_too_large"]


def test_gnu_sparse_headers_are_stepped_over() -> None:
    # A sparse member with one more block of its map (flag at byte 482) and 512 bytes of data.
    header = bytearray(odd_member("s.jpg", b"S", size=512))
    header[482] = 1
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data = bytes(header) + bytes(512) + b"D" * 512 + tar(FILES)
    assert names(data) == [name for name, _ in FILES]
    assert [one.reason for one in problems(data)] == ["tar.unsupported_member"]


def test_global_pax_headers_and_folders_are_no_members() -> None:
    record = b"19 comment=deadbeef"[:18] + b"\n"
    data = padded(odd_member("g", b"g", size=19) + record)
    data += odd_member("folder/", b"5") + tar(FILES)
    assert read_all(data) == FILES


def test_the_word_ustar_everywhere_does_not_stop_the_search() -> None:
    data = flip(tar([("a.jpg", b"ustar" * 4000), ("b.jpg", b"B")]), 3)
    assert names(data) == ["b.jpg"]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000))
def test_random_bytes_never_raise(data: bytes) -> None:
    assert any(isinstance(one, Problem) for one in walk(data))


WHOLE = tar(FILES)
POSITION = st.integers(0, len(WHOLE) - 1)
BIT = st.sampled_from([1 << bit for bit in range(8)])


@settings(max_examples=200, deadline=None)
@given(at=POSITION, mask=BIT, cut=st.none() | POSITION, wiped=st.none() | POSITION)
def test_random_damage_loses_no_member_silently(
    at: int, mask: int, cut: int | None, wiped: int | None
) -> None:
    # One flip only: two can cancel out in the checksum of a header, which is a plain sum.
    damaged = flip(WHOLE, at, mask=mask)
    if wiped is not None:
        damaged = zero(WHOLE, wiped, 512 << at % 5)
    found = list(walk(damaged[:cut]))
    if not any(isinstance(one, Problem) for one in found):
        assert [one.name for one in found] == [name for name, _ in FILES]  # type: ignore[union-attr]  # no problem among them


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(POSITION, BIT), min_size=2, max_size=20))
def test_any_number_of_flips_never_raises(flips: list[tuple[int, int]]) -> None:
    damaged = WHOLE
    for at, mask in flips:
        damaged = flip(damaged, at, mask=mask)
    for one in walk(damaged):
        if isinstance(one, TarMember):
            assert one.offset + one.length <= len(damaged)


def test_end_of_archive_is_two_blocks() -> None:
    assert bytes(1024) == END_OF_ARCHIVE
