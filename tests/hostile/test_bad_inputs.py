"""Bad datasets, paths and tars through the real command: what is said, and what is used.

Each case is a shard of which something is wrong, with whole samples beside. What must hold for
every one of them: the run goes on and exits 0, 3 with --strict; each loss is a quarantine row with
the right reason; the whole samples are captioned; every sample has exactly one action (fsck).
The units behind the rows have tests of their own (test_shards, test_shard_samples, ...). Images and
texts are in test_bad_samples, models in test_bad_engines, the store in test_bad_stores.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curator.store import fsops
from tests.kit import tars
from tests.kit.cli import check_whole, curator, quarantine, recaption
from tests.kit.tars import flip, header_at, odd_member, padded, sample, samples, tar, zero

FOUR = samples(4)  # jpg, txt, json of 000000000 to 000000003: members 0 to 11
WHOLE = tar(FOUR)
ONE_MORE = sample("z", 9)


@dataclass(frozen=True, slots=True)
class Case:
    """`lost` is what `quarantine list` must say, reason -> rows; `captioned` counts samples."""

    data: bytes
    lost: Mapping[str, int]
    captioned: int
    options: tuple[str, ...] = ()


def parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"url": ["http://host/a.jpg"] * 400}), out)
    return out.getvalue()


def nul_key() -> bytes:
    record = b"16 path=a\0b.jpg\n"
    return padded(odd_member("x", b"x", size=len(record)) + record)


def gnu_name(raw: bytes) -> bytes:
    return padded(odd_member("x", b"L", size=len(raw)) + raw)


def ten_terabytes() -> bytes:
    header = bytearray(odd_member("a.jpg", b"0"))
    header[124:136] = b"\x80" + (10 * 10**12).to_bytes(11, "big")  # base 256
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def odd(kind: bytes) -> bytes:
    return odd_member("a.jpg", kind, linkname="/etc/passwd") + tar([("a.txt", b"x"), *ONE_MORE])


def named(name: str) -> bytes:
    return tar([(name, tars.image_bytes()), *ONE_MORE])


# Damage of the archive appears twice: once for the file, and once for each sample it cost.
CASES: dict[str, Case] = {
    # in the image of sample 2: its header is there, 100 of its bytes are
    "1-cut-in-data": Case(WHOLE[: header_at(FOUR, 6) + 612], {"tar.truncated": 2}, 2),
    "2-cut-at-a-member": Case(WHOLE[: header_at(FOUR, 6)], {"tar.no_eof": 1}, 2),
    # the text of sample 1 may have been there: half a sample is not taken for the whole
    "2-cut-before-the-text": Case(WHOLE[: header_at(FOUR, 4)], {"tar.no_eof": 2}, 1),
    "3-cut-in-a-header": Case(WHOLE[: header_at(FOUR, 6) + 100], {"tar.truncated": 1}, 2),
    "4-flipped-header-of-an-image": Case(
        flip(WHOLE, header_at(FOUR, 3) + 3), {"tar.bad_header": 2}, 3
    ),
    "4-flipped-header-of-a-json": Case(
        flip(WHOLE, header_at(FOUR, 5) + 3), {"tar.bad_header": 1}, 4
    ),
    # all of sample 1 is wiped: nobody can tell that it was one sample, only where
    "5-zeros-in-the-middle": Case(
        zero(WHOLE, header_at(FOUR, 3), header_at(FOUR, 6) - header_at(FOUR, 3)),
        {"tar.premature_eof": 1},
        3,
    ),
    "6-no-byte": Case(b"", {"tar.empty": 1}, 0),
    "6-zeros-only": Case(bytes(10_240), {"tar.empty": 1}, 0),
    "7-html": Case(b"<!DOCTYPE html><title>404</title>" * 40, {"tar.not_a_tar": 1}, 0),
    "8-gzip": Case(gzip.compress(WHOLE), {"tar.compressed": 1}, 0),
    "8-zstd": Case(b"\x28\xb5\x2f\xfd" + WHOLE, {"tar.compressed": 1}, 0),
    "9-parquet": Case(parquet(), {"tar.not_a_tar": 1}, 0),
    "10-concatenated": Case(WHOLE + tar(ONE_MORE), {"tar.data_after_eof": 1}, 5),
    "11-a-name-twice": Case(
        tar([*sample("a"), ("a.jpg", tars.image_bytes(5))]), {"key.duplicate_member": 1}, 1
    ),
    "12-files-apart": Case(
        tar([("a.jpg", tars.image_bytes()), *ONE_MORE, ("a.txt", b"x")]),
        {"key.not_adjacent": 2},
        1,
    ),
    "14-dots": Case(tar([("i_0.25.jpg", tars.image_bytes()), ("i_0.25.txt", b"x")]), {}, 1),
    "14-space": Case(named("my photo.jpg"), {}, 2),
    "14-300-characters": Case(named("k" * 300 + ".jpg"), {"key.invalid": 1}, 1),
    "14-newline": Case(named("a\nb.jpg"), {"key.invalid": 1}, 1),
    "14-nul": Case(nul_key() + tar([("s", b"x"), *ONE_MORE]), {"key.invalid": 1}, 1),
    "14-not-utf8": Case(
        gnu_name(b"\xff\xfe.jpg") + tar([("s", b"x"), *ONE_MORE]), {"key.invalid": 1}, 1
    ),
    **{
        f"15-{name}": Case(named(name), {"path.traversal": 1}, 1)
        for name in ("../../x.jpg", "/etc/x.jpg", "C:\\x.jpg", "a\\b.jpg", "a/../../x.jpg")
    },
    **{
        f"16-type-{kind.decode()}": Case(odd(kind), {"tar.unsupported_member": 1}, 1)
        for kind in (
            tarfile.SYMTYPE,
            tarfile.LNKTYPE,
            tarfile.CHRTYPE,
            tarfile.BLKTYPE,
            tarfile.FIFOTYPE,
            tarfile.GNUTYPE_SPARSE,
        )
    },
    # the member behind it has lost its name, and with it sample 0 its image
    **{
        f"17-name-of-a-gigabyte-{kind.decode()}": Case(
            odd_member("x", kind, size=2**30) + WHOLE, {"tar.header_too_large": 2}, 3
        )
        for kind in (b"x", b"L")
    },
    "18-ten-terabytes": Case(
        ten_terabytes() + tar([("a.txt", b"x"), *ONE_MORE]), {"tar.size_limit": 1}, 1
    ),
    # the sample itself is fine: what could hold code is counted and never opened
    **{
        f"19-{ext}": Case(tar([*sample("a"), (f"a.{ext}", b"cos\nsystem\n(S'false'\ntR.")]), {}, 1)
        for ext in ("pkl", "pyd", "pth")
    },
    "20-no-caption": Case(tar(sample("a", caption=None)), {}, 1),
    "20-no-image": Case(tar([("a.txt", b"a dog"), *ONE_MORE]), {"sample.no_image": 1}, 1),
    "21-two-images": Case(
        tar([("a.jpg", tars.image_bytes()), ("a.png", tars.image_bytes(kind="PNG")), *ONE_MORE]),
        {"sample.ambiguous_image": 1},
        1,
    ),
    "21-image-ext-says-which": Case(
        tar([("a.jpg", tars.image_bytes()), ("a.png", tars.image_bytes(kind="PNG"))]),
        {},
        1,
        ("--image-ext", "jpg"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_row(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    (tmp_path / "00000.tar").write_bytes(case.data)
    (tmp_path / "00001.tar").write_bytes(tar(samples(2, first=20)))  # the run goes on
    before = sorted(path.name for path in tmp_path.rglob("*"))
    said = recaption(tmp_path, *case.options)
    assert said.code == 0, said.err
    assert quarantine(tmp_path) == case.lost
    version = check_whole(tmp_path)
    counts = said.json["version"]["counts"]
    assert counts["captioned"] == case.captioned + 2
    assert counts["kept"] == counts["dropped"] == 0
    assert (
        sum(counts.values())
        == said.json["index"]["num_samples"]
        == sum(shard["num_samples"] for shard in version["shards"])
    )
    assert all(reason in said.err for reason in case.lost)  # said to people as well
    strict = recaption(tmp_path, *case.options, "--strict")
    assert strict.code == (3 if case.lost else 0)
    if case.lost:
        assert strict.exit_line["error"] == "quarantine.strict"
        assert f"`curator quarantine list {tmp_path}`" in strict.err
    # nothing but the store was written
    after = sorted(p.name for p in tmp_path.rglob("*") if ".curator" not in p.parts)
    assert after == before


def test_a_quarantine_row_says_where_the_bytes_are(tmp_path: Path) -> None:
    (tmp_path / "00000.tar").write_bytes(flip(WHOLE, header_at(FOUR, 3) + 3))
    recaption(tmp_path)
    said = curator("quarantine", "show", tmp_path, "--reason", "tar.bad_header", "--json")
    of_tar, of_sample = (json.loads(line) for line in said.out.splitlines())
    assert (of_tar["stage"], of_tar["shard"], of_tar["retryable"]) == ("read", "00000", False)
    assert of_tar["offset"] == header_at(FOUR, 3)
    assert "3 members read before it, 8 after it" in of_tar["detail"]
    assert (of_sample["key"], of_sample["shard"]) == ("000000001", "00000")


def test_the_same_key_in_two_shards(tmp_path: Path) -> None:
    for shard in ("00000", "00001"):
        (tmp_path / f"{shard}.tar").write_bytes(tar(sample("a", int(shard))))
    said = recaption(tmp_path)
    assert (said.code, quarantine(tmp_path)) == (0, {})
    assert said.json["index"]["num_cross_shard_keys"] == 1
    assert check_whole(tmp_path)["totals"]["num_texts"] == 2


def test_is_counted(tmp_path: Path) -> None:
    (tmp_path / "00000.tar").write_bytes(CASES["19-pkl"].data)
    said = recaption(tmp_path)
    assert said.json["index"]["num_ignored_members"] == 1
    assert "ignored: 1 members that could hold code" in said.err


OTHER_TEXT = tar([(n, b"another 0123456" if n.endswith("1.txt") else d) for n, d in FOUR])
OTHER_IMAGE = tar([(n, tars.image_bytes(77) if n.endswith("1.jpg") else d) for n, d in FOUR])


@pytest.mark.parametrize(
    ("step", "change"),
    [
        # before anything is captioned: other pixels where the index found an image
        ("captions/echo", "image"),
        ("captions/echo", "shorter"),
        ("captions/echo", "gone"),
        # after the captions, before the commit: also what no image shows
        ("facts/scores/text", "text"),
        ("facts/scores/text", "image"),
        ("facts/scores/text", "gone"),
    ],
)
def test_the_shard_changes_during_the_run(tmp_path: Path, step: str, change: str) -> None:
    shard = tmp_path / "00000.tar"
    shard.write_bytes(WHOLE)
    (tmp_path / "00001.tar").write_bytes(tar(ONE_MORE))
    assert curator("index", tmp_path).code == 0
    act: dict[str, Callable[[], object]] = {
        "image": lambda: shard.write_bytes(OTHER_IMAGE),
        "text": lambda: shard.write_bytes(OTHER_TEXT),
        "shorter": lambda: shard.write_bytes(WHOLE[: header_at(FOUR, 3)]),
        "gone": lambda: shard.unlink(missing_ok=True),
    }

    def hook(_operation: str, path: Path) -> None:
        if step in path.as_posix():
            act[change]()

    fsops.set_step_hook(hook)
    try:
        said = recaption(tmp_path)
    finally:
        fsops.set_step_hook(None)
    assert (said.code, said.exit_line["error"]) == (12, "source.changed"), said.err
    assert said.exit_line["path"] == str(shard)
    assert "again" in said.exit_line["hint"]
    assert curator("show", tmp_path).code == 10, "no partial result is visible"
    assert recaption(tmp_path).code == 0
    check_whole(tmp_path)


def test_a_new_time_alone_is_no_change(tmp_path: Path) -> None:
    shard = tmp_path / "00000.tar"
    shard.write_bytes(WHOLE)
    fsops.set_step_hook(lambda _operation, _path: shard.touch())
    try:
        said = recaption(tmp_path)
    finally:
        fsops.set_step_hook(None)
    assert said.code == 0, said.err


@pytest.mark.parametrize("spec", ["", "nothing-here", "*.tar", "{00000..00003}.tar"])
def test_no_shards(tmp_path: Path, spec: str) -> None:
    said = recaption(tmp_path / spec)
    code = 10 if spec == "nothing-here" else 2
    assert (said.code, said.exit_line["error"]) == (code, "input.none_found")
    assert str(tmp_path) in said.exit_line["path"]
    assert "name a folder, a file, or a quoted pattern" in said.err
    assert list(tmp_path.iterdir()) == [], "nothing was written"


@pytest.mark.parametrize(
    "spec",
    ["pipe:cat x.tar", "http://host/{0..3}.tar", "ftp://host/x.tar", "s3:b/x", "file:///x.tar"],
)
def test_schemes(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = recaption(spec)
    assert (said.code, said.exit_line["error"]) == (2, "input.scheme_refused")
    assert spec in said.err
    assert "shards are local files, or objects of s3://" in said.err
    assert list(tmp_path.iterdir()) == []


def test_above_the_limit_nothing_is_committed_and_everything_is_kept(tmp_path: Path) -> None:
    # 1 of 4 samples is unusable; the default limit is 5 %
    (tmp_path / "00000.tar").write_bytes(CASES["4-flipped-header-of-an-image"].data)
    command = ("recaption", tmp_path, "--captioner", "echo", "--policy", "replace", "--json")
    said = curator(*command)
    assert (said.code, said.exit_line["error"]) == (4, "quarantine.limit")
    assert "1 of 4 samples (25.0%) are unusable, the limit is 5.0%" in said.err
    assert "--max-quarantine" in said.err
    again = curator(*command, "--max-quarantine", 0.25)
    assert (again.code, again.json["model_calls"]) == (0, 0), "the facts were kept"
