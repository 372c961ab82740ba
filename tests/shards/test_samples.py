"""What becomes of the members of a whole archive: keys, images, alt texts.

The same key in two shards needs no test: two calls of scan_shard share nothing.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from tests.kit.tars import (
    Files,
    image_bytes,
    odd_member,
    only,
    padded,
    reasons,
    sample,
    samples,
    scan,
    shard_reasons,
    tar,
)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("k" * 300 + ".jpg", "k" * 300),
        ("a\nb.jpg", "a\\nb"),
        ("a\0b.jpg", "a\\x00b"),
        (b"\xff\xfe.jpg", "\\udcff\\udcfe"),
        ("\u202egpj.jpg", "\\u202egpj"),
        ("__meta__/a.jpg", "__meta__/a"),  # webdataset passes over such folders
    ],
    ids=["300", "newline", "nul", "not_utf8", "bidi", "skipped"],
)
def test_invalid_keys(tmp_path: Path, name: str | bytes, shown: str) -> None:
    raw = name if isinstance(name, bytes) else name.encode()
    # GNU's long name: the way to bring any bytes into a tar, NUL too but for PAX.
    if b"\0" in raw:
        record = b"16 path=" + raw + b"\n"
        data = padded(odd_member("x", b"x", size=len(record)) + record)
    else:
        data = padded(odd_member("x", b"L", size=len(raw)) + raw)
    result = scan(tmp_path, data + tar([("short.jpg", image_bytes()), *sample("z")]))
    assert [(one.key, one.reason) for one in result.samples] == [
        (shown, "key.invalid"),
        ("z", None),
    ]


SPELLINGS = {
    "dot slash": ("./a", "a"),
    "dot slash inside": ("x/./a", "x/a"),
    "two slashes": ("x//a", "x/a"),
    "accents": ("caf\u00e9", "cafe\u0301"),
}


@pytest.mark.parametrize("kind", SPELLINGS)
def test_two_keys_that_are_one_file_once_unpacked(tmp_path: Path, kind: str) -> None:
    one, other = SPELLINGS[kind]
    files = [*sample(one, 1), *sample("between", 2), *sample(other, 3)]
    result = scan(tmp_path, tar(files))
    assert [(found.key, found.reason) for found in result.samples] == [
        (one, "key.ambiguous"),
        ("between", None),
        (other, "key.ambiguous"),
    ]
    assert ascii(other) in result.samples[0].detail
    for alone in (one, other):
        found = only(scan(tmp_path, tar(sample(alone))))
        assert (found.key, found.reason) == (alone, None)


def test_an_extension_that_is_not_utf8(tmp_path: Path) -> None:
    # The key is fine, the name as a whole could not be stored.
    raw = b"a.j\xff"
    data = padded(odd_member("x", b"L", size=len(raw)) + raw)
    found = only(scan(tmp_path, data + tar([("short", image_bytes()), ("a.txt", b"x")])))
    assert (found.key, found.reason, found.members[0].ext) == ("a", "key.invalid", "j\\udcff")


def test_dots_split_at_the_first(tmp_path: Path) -> None:
    files = [("img_0.25.JPG", image_bytes()), ("img_0.25.txt", b"x")]
    result = scan(tmp_path, tar(files))
    assert (only(result).key, only(result).reason) == ("img_0", None)
    assert (only(result).alt_text, only(result).flags) == ("x", ("key.dotted",))


def test_dots_that_throw_two_samples_together(tmp_path: Path) -> None:
    result = scan(tmp_path, tar([("i.1.jpg", image_bytes()), ("i.2.jpg", image_bytes())]))
    assert only(result).reason == "sample.ambiguous_image"


@pytest.mark.parametrize("name", ["README", ".hidden.jpg", "folder/._a.jpg"])
def test_files_of_no_sample_are_reported(tmp_path: Path, name: str) -> None:
    result = scan(tmp_path, tar([(name, b"x"), *sample("z")]))
    assert [(one.reason, one.member) for one in result.problems] == [("key.invalid", name)]
    assert only(result).reason is None


@pytest.mark.parametrize(
    "name", ["../../x.jpg", "a/../x.jpg", "/etc/x.jpg", "C:\\x.jpg", "C:x.jpg", "a\\b.jpg"]
)
def test_names_that_point_outside(tmp_path: Path, name: str) -> None:
    result = scan(tmp_path, tar([(name, image_bytes())]))
    assert only(result).reason == "path.traversal"
    assert [path.name for path in tmp_path.iterdir()] == ["00000.tar"]


def test_dots_inside_a_name_point_nowhere(tmp_path: Path) -> None:
    assert only(scan(tmp_path, tar([("a..b.jpg", image_bytes())]))).reason is None


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.GNUTYPE_SPARSE,
    ],
    ids=["symlink", "hardlink", "char", "block", "fifo", "sparse"],
)
def test_links_and_devices(tmp_path: Path, kind: bytes) -> None:
    data = odd_member("a.jpg", kind, linkname="/etc/passwd") + tar([("a.txt", b"x"), *sample("z")])
    result = scan(tmp_path, data)
    assert reasons(result) == {"a": "tar.unsupported_member", "z": None}
    assert result.samples[0].detail.startswith("a.jpg: ")


def test_a_name_of_a_gigabyte(tmp_path: Path) -> None:
    # The member behind it has lost its name; sample 0 is left without an image.
    result = scan(tmp_path, odd_member("x", b"x", size=2**30) + tar(samples(4)))
    assert shard_reasons(result) == ["tar.header_too_large"]
    assert reasons(result) == {"0": "tar.header_too_large", "1": None, "2": None, "3": None}


def test_ten_terabytes_declared(tmp_path: Path) -> None:
    header = bytearray(odd_member("a.jpg", b"0"))
    header[124:136] = b"\x80" + (10 * 10**12).to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    result = scan(tmp_path, bytes(header) + tar([("a.txt", b"x"), *sample("z")]))
    assert reasons(result) == {"a": "tar.size_limit", "z": None}


def test_above_the_limit_and_there(tmp_path: Path) -> None:
    files = [("a.jpg", bytes(70_000)), ("a.txt", b"x"), *sample("z")]
    result = scan(tmp_path, tar(files), max_member_bytes=65_536)
    assert reasons(result) == {"a": "tar.size_limit", "z": None}


@pytest.mark.parametrize("ext", ["pkl", "pyd", "pth", "PKL", "meta.pickle"])
def test_unsafe_members_are_counted_only(tmp_path: Path, ext: str) -> None:
    # What webdataset would unpickle; bytes that would raise if anybody did.
    files = [("a.jpg", image_bytes()), (f"a.{ext}", b"cos\nsystem\n"), ("a.txt", b"x")]
    result = scan(tmp_path, tar([*files, (f"b.{ext}", b"x")]))
    assert (only(result).reason, result.num_unsafe) == (None, 2)
    assert [member.ext for member in only(result).members] == ["jpg", "txt"]


def test_image_without_caption(tmp_path: Path) -> None:
    found = only(scan(tmp_path, tar(sample("a", caption=None))))
    assert (found.reason, found.alt_text, found.flags) == (None, None, ("caption.missing",))


def test_caption_without_image(tmp_path: Path) -> None:
    assert only(scan(tmp_path, tar([("a.txt", b"x")]))).reason == "sample.no_image"


TWO: Files = [("a.jpg", image_bytes(1)), ("a.png", image_bytes(2, kind="PNG")), ("a.txt", b"x")]


def test_two_images(tmp_path: Path) -> None:
    assert only(scan(tmp_path, tar(TWO))).reason == "sample.ambiguous_image"


def test_image_ext_says_which(tmp_path: Path) -> None:
    found = only(scan(tmp_path, tar(TWO), image_ext=("png",)))
    assert (found.reason, found.image_format) == (None, "PNG")


def test_a_mask_beside_the_image_is_no_rival(tmp_path: Path) -> None:
    files = [("a.jpg", image_bytes()), ("a.seg.png", image_bytes(kind="PNG"))]
    found = only(scan(tmp_path, tar(files)))
    assert (found.reason, found.image_format) == (None, "JPEG")


# Rows 26 to 38 are in test_images; here: that a scan carries the reason, and goes on.


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "image.empty"),
        (b"<html>", "image.not_an_image"),
        (image_bytes(side_px=27), "image.too_small"),
        (b"%PDF-1.7", "image.format_not_allowed"),
    ],
)
def test_32_38_in_a_shard(tmp_path: Path, data: bytes, reason: str) -> None:
    result = scan(tmp_path, tar([("a.jpg", data), ("a.txt", b"x"), *sample("z")]))
    assert reasons(result) == {"a": reason, "z": None}


def test_a_png_named_jpg(tmp_path: Path) -> None:
    found = only(scan(tmp_path, tar([("a.jpg", image_bytes(kind="PNG")), ("a.txt", b"x")])))
    assert (found.reason, found.image_format, found.flags) == (None, "PNG", ("image.ext_mismatch",))


def test_an_svg_member_is_an_image_that_is_refused(tmp_path: Path) -> None:
    found = only(scan(tmp_path, tar([("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>")])))
    assert found.reason == "image.format_not_allowed"


# Alt texts


@pytest.mark.parametrize(
    ("raw", "text", "flag"),
    [
        (b" \n", None, "caption.empty"),
        (b"caf\xe9", "caf\ufffd", "caption.invalid_utf8"),
        (b"a\0b", "ab", "caption.control"),
        ("\u202ea\u200bb".encode(), "ab", "caption.bidi"),
    ],
)
def test_alt_texts(tmp_path: Path, raw: bytes, text: str | None, flag: str) -> None:
    found = only(scan(tmp_path, tar(sample("a", caption=raw))))
    assert (found.reason, found.alt_text, found.alt_raw) == (None, text, raw)
    assert flag in found.flags


def test_half_a_surrogate_pair_in_json(tmp_path: Path) -> None:
    files = [("a.jpg", image_bytes()), ("a.json", b'{"caption": "x \\ud83d y"}')]
    found = only(scan(tmp_path, tar(files), caption_field="caption"))
    assert (found.alt_text, found.flags) == ("x \ufffd y", ("caption.surrogate",))
    assert found.alt_raw == b"x \xed\xa0\xbd y"


def test_a_caption_of_a_megabyte(tmp_path: Path) -> None:
    assert only(scan(tmp_path, tar(sample("a", caption=b"x" * 10**6)))).reason == "caption.too_long"


HOSTILE_JSON = {
    "json.too_large": b'{"caption": "' + b"x" * 10_000_001 + b'"}',
    "json.too_deep": b"[" * 10_000 + b"]" * 10_000,
    "json.invalid": b'{"caption": ',
}


@pytest.mark.parametrize("reason", HOSTILE_JSON)
def test_hostile_json_when_the_caption_comes_from_it(tmp_path: Path, reason: str) -> None:
    files = [("a.jpg", image_bytes()), ("a.txt", b"x"), ("a.json", HOSTILE_JSON[reason])]
    assert only(scan(tmp_path, tar(files), caption_field="caption")).reason == reason


@pytest.mark.parametrize("reason", HOSTILE_JSON)
def test_hostile_json_that_nobody_needs(tmp_path: Path, reason: str) -> None:
    files = [("a.jpg", image_bytes()), ("a.txt", b"x"), ("a.json", HOSTILE_JSON[reason])]
    found = only(scan(tmp_path, tar(files)))
    assert (found.reason, found.alt_text) == (None, "x")


@pytest.mark.parametrize(
    "raw",
    [
        ("[" * 2000 + "]" * 2000).encode("utf-16"),  # the depth is not seen in UTF-16
        b"9" * 5000,  # more digits than Python turns into an integer
        b"\xff\xfe\xfd",
        b"[" * 200,
        b'"' + b'\\"[' * 200,  # brackets inside a string that never ends
    ],
    ids=["utf16", "digits", "bytes", "open", "string"],
)
def test_json_never_raises(tmp_path: Path, raw: bytes) -> None:
    files = [("a.jpg", image_bytes()), ("a.json", raw)]
    reason = only(scan(tmp_path, tar(files), caption_field="caption")).reason
    assert reason in {"json.invalid", "json.too_deep"}


@pytest.mark.parametrize(
    ("field", "text", "flags"),
    [
        ("caption", "plain", ()),
        ("meta.alt", "nested", ()),
        ("syn_text.1", "second", ()),
        ("syn_text.9", None, ("caption.missing",)),
        ("nothing", None, ("caption.missing",)),
        ("caption.x", None, ("caption.missing",)),
        ("null", None, ("caption.missing",)),
        ("width", None, ("caption.not_text",)),
    ],
)
def test_alt_text_from_a_json_field(
    tmp_path: Path, field: str, text: str | None, flags: tuple[str, ...]
) -> None:
    # brackets in a string are no depth: 200 of them here
    meta = {
        "caption": "plain",
        "meta": {"alt": "nested"},
        "syn_text": ["first", "second"],
        "null": None,
        "width": 32,
        "junk": "[" * 200,
    }
    files = [("a.jpg", image_bytes()), ("a.txt", b"x"), ("a.json", json.dumps(meta).encode())]
    found = only(scan(tmp_path, tar(files), caption_field=field))
    assert (found.reason, found.alt_text, found.flags) == (None, text, flags)


def test_several_texts_and_none_named_txt(tmp_path: Path) -> None:
    files = [("a.jpg", image_bytes()), ("a.en.txt", b"x"), ("a.de.txt", b"y")]
    assert "caption.ambiguous" in only(scan(tmp_path, tar(files))).flags
