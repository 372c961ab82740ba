"""pack: every source format, what cannot be packed, and taking up again after a crash."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from curator.core.errors import ConflictError, DamageError, NotFoundError, StorageError, UsageError
from curator.pack.report import PackReport
from curator.pack.shards import MANIFEST, PackOptions, pack
from curator.pack.sources import PackItem, SourceOptions, detect, plain
from curator.shards.dataset import discover
from curator.shards.scan import ScanOptions, scan_shard
from curator.store import fsops, outputs
from tests.kit import tars
from tests.kit.webread import webdataset_samples

JPEG = tars.image_bytes(1)
PNG = tars.image_bytes(2, kind="PNG")


def put(folder: Path, files: dict[str, bytes | str]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return folder


def photos(folder: Path, count: int) -> Path:
    files: dict[str, bytes | str] = {}
    for number in range(count):
        files[f"{number:04d}.jpg"] = tars.image_bytes(number)
        files[f"{number:04d}.txt"] = f"photo number {number}"
    return put(folder, files)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def table(out: Path, shard: int = 0) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = pq.read_table(out / f"{shard:05d}.parquet").to_pylist()
    return rows


def reasons(out: Path) -> dict[object, str]:
    """path -> reason of the rows that were not packed."""
    return {
        row["path"]: str(row["error_message"]).partition(":")[0]
        for row in table(out)
        if row["status"] != "success"
    }


@contextmanager
def fault(at: int, error: BaseException) -> Iterator[None]:
    """Raise before write step number `at`."""
    steps = 0

    def hook(_operation: str, _path: Path) -> None:
        nonlocal steps
        steps += 1
        if steps == at:
            raise error

    fsops.set_step_hook(hook)
    try:
        yield
    finally:
        fsops.set_step_hook(None)


def num_steps(source: Path, out: Path, options: PackOptions) -> int:
    seen: list[str] = []
    fsops.set_step_hook(lambda operation, _: seen.append(operation))
    pack(source, out, options=options)
    fsops.set_step_hook(None)
    return len(seen)


# -- folders -------------------------------------------------------------------------------------


def test_folder_gives_what_img2dataset_users_know(tmp_path: Path) -> None:
    source = put(
        tmp_path / "photos",
        {
            "b.jpg": JPEG,
            "b.txt": "  two dogs \xa0",  # spaces stay: cleaning is the engine's
            "a/c.png": PNG,
            "a/c.json": json.dumps({"caption": "from json", "license": "cc0", "key": 7}),
            "z.jpg": tars.image_bytes(3),
        },
    )
    report = pack(source, tmp_path / "out")
    assert report == PackReport(
        format="folder",
        num_shards=1,
        num_new_shards=1,
        num_rows=3,
        num_packed=3,
        num_without_caption=1,
        failures={},
    )
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"00000.tar", "00000.parquet", "00000_stats.json", MANIFEST}
    # sorted: a/c before b before z
    found = webdataset_samples(tmp_path / "out")
    assert [sorted(one) for one in found] == [
        ["__key__", "json", "png", "txt"],
        ["__key__", "jpg", "json", "txt"],
        ["__key__", "jpg", "json"],
    ]
    assert [one["__key__"] for one in found] == ["000000000", "000000001", "000000002"]
    assert found[0]["png"] == PNG
    assert found[0]["txt"] == b"from json"
    assert found[1]["jpg"] == JPEG
    assert found[1]["txt"] == "  two dogs \xa0".encode()
    meta = json.loads(found[0]["json"])
    assert meta["key"] == "000000000"
    assert meta["source_key"] == 7  # a name that img2dataset uses itself is moved, not lost
    assert meta["license"] == "cc0"
    assert meta["path"] == "a/c.png"
    assert meta["sha256"] == hashlib.sha256(PNG).hexdigest()
    assert (meta["width"], meta["height"]) == (32, 32)
    stats = json.loads((tmp_path / "out/00000_stats.json").read_bytes())
    assert stats["count"] == stats["successes"] == 3
    assert stats["status_dict"] == {"success": 3}
    assert [row["key"] for row in table(tmp_path / "out")] == [one["__key__"] for one in found]


def test_the_engine_reads_back_the_same_images_and_captions(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", 25)
    pack(source, tmp_path / "out", options=PackOptions(samples_per_shard=10))
    refs = discover(str(tmp_path / "out")).shards
    assert [ref.name for ref in refs] == ["00000", "00001", "00002"]
    scans = [scan_shard(ref, options=ScanOptions()) for ref in refs]
    assert [len(scan.samples) for scan in scans] == [10, 10, 5]
    assert [scan.problems for scan in scans] == [[], [], []]
    found = [(one.key, one.image_sha256, one.alt_text) for scan in scans for one in scan.samples]
    assert found == [
        (
            f"{number // 10:05d}{number % 10:04d}",
            hashlib.sha256(tars.image_bytes(number)).hexdigest(),
            f"photo number {number}",
        )
        for number in range(25)
    ]


def test_folder_loses_nothing_silently(tmp_path: Path) -> None:
    outside = put(tmp_path / "private", {"secret.jpg": JPEG, "secret.txt": "password"})
    source = put(
        tmp_path / "photos",
        {
            "good.jpg": JPEG,
            "page.jpg": "<html>",  # an error page saved as an image
            "empty.png": b"",
            "scan.tiff": tars.image_bytes(4, kind="TIFF"),  # no reader of shards takes TIFF
            "orphan.txt": "a caption without its image",
            "bad_meta.jpg": JPEG,
            "bad_meta.json": "{",
            "list_meta.jpg": JPEG,
            "list_meta.json": "[1]",
            "deep_meta.jpg": JPEG,
            "deep_meta.json": "[" * 5000 + "]" * 5000,
            "half.jpg": JPEG,
            "half.txt": b"caf\xe9",  # Latin-1 goes through unchanged
            "notes.md": "not an image, not a caption",
            ".hidden.jpg": JPEG,
            "leak.jpg": JPEG,
        },
    )
    (source / "link.jpg").symlink_to(outside / "secret.jpg")
    (source / "loop.jpg").symlink_to(source / "loop.jpg")
    (source / "dangling.jpg").symlink_to(source / "nothing.jpg")
    (source / "leak.txt").symlink_to(outside / "secret.txt")
    (source / "folder").symlink_to(outside, target_is_directory=True)
    os.mkfifo(source / "pipe.jpg")  # opening it would wait for ever
    report = pack(source, tmp_path / "out")
    assert reasons(tmp_path / "out") == {
        "page.jpg": "image.not_an_image",
        "empty.png": "image.empty",
        "scan.tiff": "image.format_not_allowed",
        "orphan.txt": "image.missing",
        "bad_meta.jpg": "json.invalid",
        "list_meta.jpg": "json.invalid",
        "deep_meta.jpg": "json.too_deep",
        "link.jpg": "path.traversal",
        "leak.jpg": "path.traversal",
        "dangling.jpg": "image.missing",
        "loop.jpg": "image.missing",
        "folder": "path.traversal",
        "pipe.jpg": "image.missing",
    }
    assert report.num_rows == 15 == report.num_packed + sum(report.failures.values())
    assert report.num_packed == 2
    texts = [sample.get("txt") for sample in webdataset_samples(tmp_path / "out")]
    assert texts == [None, b"caf\xe9"]
    stats = json.loads((tmp_path / "out/00000_stats.json").read_bytes())
    # the header of three files says that they are no image; the rest never got that far
    assert (stats["successes"], stats["failed_to_resize"]) == (2, 3)
    assert stats["failed_to_download"] == 10
    assert stats["status_dict"] == {"success": 2, **report.failures}


def test_images_root_widens_what_a_folder_may_link_to(tmp_path: Path) -> None:
    put(tmp_path / "pool", {"x.jpg": JPEG})
    source = put(tmp_path / "photos", {"a.txt": "a"})
    (source / "a.jpg").symlink_to(tmp_path / "pool/x.jpg")
    options = PackOptions(source=SourceOptions(images=tmp_path))
    assert pack(source, tmp_path / "out", options=options).num_packed == 1


def test_an_image_gets_the_extension_of_its_content(tmp_path: Path) -> None:
    source = put(tmp_path / "photos", {"a.jpg": PNG, "b.jpeg": JPEG, "c.JPG": JPEG})
    source = put(source, {"d.webp": tars.image_bytes(5, kind="WEBP")})
    pack(source, tmp_path / "out")
    exts = [
        set(one) & {"jpg", "jpeg", "png", "webp"} for one in webdataset_samples(tmp_path / "out")
    ]
    # upper case sorts before lower case: c.JPG stays third
    assert exts == [{"png"}, {"jpg"}, {"jpg"}, {"webp"}]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    source = tmp_path / "photos"
    source.mkdir()
    with open(os.fsencode(source) + b"/caf\xe9.jpg", "wb") as file:
        file.write(JPEG)
    assert pack(source, tmp_path / "out").num_packed == 1
    assert table(tmp_path / "out")[0]["path"] == "caf\\udce9.jpg"


# -- tables --------------------------------------------------------------------------------------


def test_jsonl(tmp_path: Path) -> None:
    put(tmp_path / "img", {"a.jpg": JPEG, "b.jpg": JPEG, "c.jpg": JPEG})
    put(tmp_path.parent, {})
    lines = [
        '\ufeff{"file_name": "img/a.jpg", "text": "one", "tags": [1, NaN]}',
        "",
        '{"image": "img/b.jpg", "caption": ["first", "second"]}',
        '{"path": "img/c.jpg"}',  # no caption is allowed
        '{"path": "img/missing.jpg", "caption": "x"}',
        '{"path": "../../etc/hostname", "caption": "x"}',
        '{"path": "/etc/hostname", "caption": "x"}',
        '{"path": "https://example.org/x.jpg", "caption": "x"}',
        '{"caption": "no image"}',
        '{"path": 5}',
        '{"path": "img/a.jpg", "caption": {"en": "x"}}',
        "not json",
        "[1, 2]",
        '{"path": "img/a\\u0000.jpg"}',
        '{"path": "img/a.jpg", "caption": "half \\ud83d pair"}',
        f'{{"path": "{"x" * 5000}"}}',
    ]
    source = tmp_path / "rows.jsonl"
    source.write_text("\n".join(lines))
    report = pack(source, tmp_path / "out")
    assert report.format == "jsonl"
    assert report.num_rows == 15  # the empty line is none
    assert report.failures == {"image.missing": 5, "path.traversal": 2, "row.invalid": 4}
    found = webdataset_samples(tmp_path / "out")
    assert [one.get("txt") for one in found] == [
        b"one",
        b"first",
        None,
        b"half \xed\xa0\xbd pair",  # the half pair as its three bytes; the engine repairs it
    ]
    assert json.loads(found[0]["json"])["tags"] == [1, None]
    assert json.loads(found[1]["json"])["captions"] == ["first", "second"]
    assert table(tmp_path / "out")[1]["captions"] == ["first", "second"]
    # the engine reads all of it
    scan = scan_shard(discover(str(tmp_path / "out")).shards[0], options=ScanOptions())
    assert [one.reason for one in scan.samples] == [None] * 4


def test_jsonl_line_above_the_limit_is_one_bad_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("curator.pack.tables.MAX_JSON_BYTES", 100)
    monkeypatch.setattr("curator.core.strictjson.MAX_JSON_BYTES", 100)
    put(tmp_path, {"a.jpg": JPEG})
    good = '{"path": "a.jpg", "caption": "ok"}'
    # 100 characters are allowed; 101 and any multiple of the read size are not
    padded = f'{{"path": "a.jpg", "caption": "{"x" * 69}"}}'
    assert len(padded) == 101
    lines = [good, padded, "y" * 102, "z" * 203, "w" * 1000, good]
    source = put(tmp_path, {"rows.jsonl": "\n".join(lines)}) / "rows.jsonl"
    report = pack(source, tmp_path / "out")
    assert report.num_rows == 6
    assert report.failures == {"row.invalid": 4}


def test_csv(tmp_path: Path) -> None:
    put(tmp_path / "img", {"a.jpg": JPEG, "b c.jpg": PNG})
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["filepath", "title", "uid"])
    writer.writerow(["img/a.jpg", 'he said "hi",\nthen left', "u1"])
    writer.writerow(["img/b c.jpg", "", "u2"])
    text = buffer.getvalue() + "img/a.jpg,an unquoted, comma,u3\r\n" + 'img/a.jpg,"a"b,u4\r\n'
    raw = b"\xef\xbb\xbf" + text.encode() + b"img/a.jpg,caf\xe9,u5\r\n"
    source = put(tmp_path, {"rows.csv": raw}) / "rows.csv"
    report = pack(source, tmp_path / "out")
    # an unquoted comma would otherwise shorten the caption without a word
    assert report.failures == {"row.invalid": 2}
    found = webdataset_samples(tmp_path / "out")
    assert [one.get("txt") for one in found] == [b'he said "hi",\nthen left', b"", b"caf\xe9"]
    assert [json.loads(one["json"])["uid"] for one in found] == ["u1", "u2", "u5"]


def test_tsv_and_columns_by_name(tmp_path: Path) -> None:
    put(tmp_path / "pool", {"a.jpg": JPEG})
    source = put(tmp_path, {"t.tsv": "img\tde\ten\na.jpg\tHund\tdog\n"}) / "t.tsv"
    with pytest.raises(UsageError, match="no column among") as error:
        pack(source, tmp_path / "out")
    assert "--image-column" in str(error.value)
    assert not (tmp_path / "out").exists()  # nothing was written
    columns = SourceOptions(images=tmp_path / "pool", image_column="img", caption_column="de")
    pack(source, tmp_path / "out", options=PackOptions(source=columns))
    assert webdataset_samples(tmp_path / "out")[0]["txt"] == b"Hund"
    none = SourceOptions(images=tmp_path / "pool", image_column="img", caption_column="")
    report = pack(source, tmp_path / "bare", options=PackOptions(source=none))
    assert report.num_without_caption == 1
    wrong = SourceOptions(image_column="imag")
    with pytest.raises(UsageError, match="did you mean 'img'"):
        pack(source, tmp_path / "wrong", options=PackOptions(source=wrong))
    put(tmp_path, {"twice.csv": "path,path,caption\n"})
    with pytest.raises(UsageError, match="two columns"):
        pack(tmp_path / "twice.csv", tmp_path / "wrong")


def test_coco(tmp_path: Path) -> None:
    put(tmp_path / "train2017", {"1.jpg": JPEG, "2.jpg": PNG})
    data = {
        "info": {},
        "images": [
            {"id": 2, "file_name": "2.jpg", "width": 640, "height": 480},
            {"id": 1, "file_name": "1.jpg"},
            {"id": 3, "file_name": "gone.jpg"},
            "junk",
        ],
        "annotations": [
            {"id": 10, "image_id": 1, "caption": "a dog"},
            {"id": 11, "image_id": 2, "caption": "a cat"},
            {"id": 12, "image_id": 1, "caption": "a brown dog"},
            {"id": 13, "image_id": 99, "caption": "of no image"},
            {"id": 14, "caption": "of nothing"},
        ],
    }
    source = put(tmp_path / "annotations", {"captions.json": json.dumps(data)}) / "captions.json"
    options = PackOptions(source=SourceOptions(images=tmp_path / "train2017"))
    report = pack(source, tmp_path / "out", options=options)
    assert report.format == "coco"
    assert report.num_rows == 6
    assert report.failures == {"image.missing": 2, "row.invalid": 2}
    cat, dog = webdataset_samples(tmp_path / "out")
    assert (cat["txt"], dog["txt"]) == (b"a cat", b"a dog")
    assert json.loads(dog["json"])["captions"] == ["a dog", "a brown dog"]
    # COCO's own size stays visible beside the size that was found
    assert json.loads(cat["json"])["source_width"] == 640
    for text in ('{"images": []}', "[]", "{", '{"images": 5, "annotations": 5}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(UsageError, match="not a COCO captions file"):
            pack(tmp_path / "bad.json", tmp_path / "bad", options=PackOptions(format="coco"))


def parquet(path: Path, columns: dict[str, object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def test_parquet_with_bytes(tmp_path: Path) -> None:
    source = parquet(
        tmp_path / "t.parquet",
        {"image": [JPEG, None, b"junk"], "caption": ["a", "b", "c"], "score": [0.5, 1.0, None]},
    )
    report = pack(source, tmp_path / "out")
    assert report.failures == {"image.missing": 1, "image.not_an_image": 1}
    (sample,) = webdataset_samples(tmp_path / "out")
    assert (sample["jpg"], sample["txt"]) == (JPEG, b"a")
    assert json.loads(sample["json"])["score"] == 0.5
    assert [row["path"] for row in table(tmp_path / "out")] == [
        "t.parquet#0",
        "t.parquet#1",
        "t.parquet#2",
    ]


def test_parquet_as_hugging_face_writes_it(tmp_path: Path) -> None:
    put(tmp_path / "data", {"b.jpg": PNG})
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    first = pa.array([{"bytes": JPEG, "path": "a.jpg"}], kind)
    second = pa.array([{"bytes": None, "path": "b.jpg"}], kind)
    parquet(tmp_path / "data/train-00000.parquet", {"image": first, "text": ["one"]})
    parquet(tmp_path / "data/train-00001.parquet", {"image": second, "text": ["two"]})
    # a folder of Parquet files and images would be a folder of images
    (tmp_path / "data/b.jpg").rename(tmp_path / "data/b.jpg.off")
    assert detect(tmp_path / "data") == "parquet"
    (tmp_path / "data/b.jpg.off").rename(tmp_path / "data/b.jpg")
    assert detect(tmp_path / "data") == "folder"
    report = pack(tmp_path / "data", tmp_path / "out", options=PackOptions(format="parquet"))
    assert (report.num_rows, report.num_packed) == (2, 2)
    assert [row["path"] for row in table(tmp_path / "out")] == ["a.jpg", "b.jpg"]
    assert [one["txt"] for one in webdataset_samples(tmp_path / "out")] == [b"one", b"two"]


def test_parquet_text_that_is_not_utf8(tmp_path: Path) -> None:
    """pyarrow reads such a column and fails when a value is taken out of it."""
    put(tmp_path, {"a.jpg": JPEG})
    text = pa.array([b"caf\xe9", b"\xff", None]).cast(pa.binary()).view(pa.string())
    inner = pa.array([b"\xff"] * 3).view(pa.string())
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), inner)
    source = parquet(tmp_path / "t.parquet", {"path": ["a.jpg"] * 3, "caption": text})
    pack(source, tmp_path / "out")
    assert [one.get("txt") for one in webdataset_samples(tmp_path / "out")] == [
        b"caf\xe9",
        b"\xff",
        None,
    ]
    source = parquet(tmp_path / "u.parquet", {"path": ["a.jpg"] * 3, "caption": text, "l": lists})
    with pytest.raises(UsageError, match=r"none of 3 rows could be packed: 3x row\.invalid"):
        pack(source, tmp_path / "out2")


def test_damaged_parquet_keeps_what_was_finished(tmp_path: Path) -> None:
    images = [tars.image_bytes(number) for number in range(4)]
    pq.write_table(
        pa.table({"image": images, "caption": list("abcd")}),
        tmp_path / "t.parquet",
        row_group_size=1,
        write_page_checksum=True,
        compression="none",
    )
    good = (tmp_path / "t.parquet").read_bytes()
    at = good.index(images[3]) + 20
    (tmp_path / "t.parquet").write_bytes(tars.flip(good, at))
    options = PackOptions(samples_per_shard=2)
    with pytest.raises(DamageError, match=r"t\.parquet") as error:
        pack(tmp_path / "t.parquet", tmp_path / "out", options=options)
    assert error.value.code == 12
    assert (tmp_path / "out/00000_stats.json").exists()
    assert not (tmp_path / "out/00001.tar").exists()
    (tmp_path / "t.parquet").write_bytes(good)
    report = pack(tmp_path / "t.parquet", tmp_path / "out", options=options)
    assert (report.num_shards, report.num_new_shards, report.num_packed) == (2, 1, 4)


def test_detection(tmp_path: Path) -> None:
    put(tmp_path, {"a.json": '{"path": "x"}\n{"path": "y"}\n', "b.json": '{\n "images": []}'})
    put(tmp_path, {"c.dat": b"PAR1 and so on", "d.xyz": "?", "shards/00000.tar": b""})
    put(tmp_path, {"empty/notes.md": ""})
    assert detect(tmp_path / "a.json") == "jsonl"
    assert detect(tmp_path / "b.json") == "coco"
    assert detect(tmp_path / "c.dat") == "parquet"
    for name, message in (
        ("d.xyz", "--format"),
        ("shards", "shards already"),
        ("empty", "no image"),
    ):
        with pytest.raises(UsageError, match=message) as error:
            detect(tmp_path / name)
        assert error.value.code == 2
    with pytest.raises(NotFoundError, match="there is no file or folder 'missing'"):
        detect(tmp_path / "missing")
    with pytest.raises(UsageError, match="unknown format 'jsnl'"):
        PackOptions(format="jsnl")
    with pytest.raises(UsageError, match="samples_per_shard"):
        PackOptions(samples_per_shard=0)
    with pytest.raises(UsageError, match="max_shard_bytes"):
        PackOptions(max_shard_bytes=0)


def test_source_without_rows(tmp_path: Path) -> None:
    put(tmp_path, {"e.csv": "path,caption\n", "none.csv": "", "nul.csv": '"a'})
    with pytest.raises(UsageError, match="no rows"):
        pack(tmp_path / "e.csv", tmp_path / "out")
    with pytest.raises(UsageError, match="no column"):
        pack(tmp_path / "none.csv", tmp_path / "out")
    with pytest.raises(UsageError, match="header"):
        pack(tmp_path / "nul.csv", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- shards --------------------------------------------------------------------------------------


def test_shards_are_closed_by_size(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", 6)
    pack(source, tmp_path / "each", options=PackOptions(samples_per_shard=1))
    sizes = [path.stat().st_size for path in sorted((tmp_path / "each").glob("*.tar"))]
    assert len(set(sizes)) == 1
    # exactly two samples and one end of archive; with a byte less, one
    limit = 2 * (sizes[0] - 1024) + 1024
    one = pack(source, tmp_path / "one", options=PackOptions(max_shard_bytes=limit - 1))
    assert one.num_shards == 6
    options = PackOptions(max_shard_bytes=limit)
    report = pack(source, tmp_path / "out", options=options)
    assert report.num_shards == 3
    assert all(path.stat().st_size == limit for path in (tmp_path / "out").glob("*.tar"))
    assert [one["__key__"] for one in webdataset_samples(tmp_path / "out")] == [
        *("000000000", "000000001", "000010000", "000010001", "000020000", "000020001")
    ]
    # one sample above the limit still gets a shard of its own
    tiny = pack(source, tmp_path / "tiny", options=PackOptions(max_shard_bytes=1))
    assert (tiny.num_shards, tiny.num_packed) == (6, 6)


def test_shards_beyond_ten_thousand_samples_get_longer_keys(tmp_path: Path) -> None:
    pack(photos(tmp_path / "p", 1), tmp_path / "out", options=PackOptions(samples_per_shard=10_001))
    assert webdataset_samples(tmp_path / "out")[0]["__key__"] == "0000000000"


def test_same_source_gives_same_bytes(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", 7)
    for name in ("one", "two"):
        pack(source, tmp_path / name, options=PackOptions(samples_per_shard=3))
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


@pytest.mark.long
def test_memory_is_flat(tmp_path: Path) -> None:
    """2,000 images of 64 KiB are 128 MiB; one shard's rows and two write buffers are held."""
    blob = JPEG + bytes(64 << 10)
    columns = {"image": [blob] * 2000, "caption": ["x"] * 2000}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=100)
    tracemalloc.start()
    report = pack(tmp_path / "t.parquet", tmp_path / "out", options=PackOptions())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report.num_packed == 2000
    assert peak < 40 << 20


# -- resume --------------------------------------------------------------------------------------

THREE = PackOptions(samples_per_shard=2)


@pytest.mark.long
def test_every_write_step_can_fail_and_the_next_run_finishes(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", 5)
    put(source, {"broken.jpg": "no image"})
    steps = num_steps(source, tmp_path / "whole", THREE)
    expected = tree(tmp_path / "whole")
    assert steps > 40
    for at in range(1, steps + 1):
        out = tmp_path / f"out{at}"
        with fault(at, OSError(errno.ENOSPC, "no space")), pytest.raises(StorageError) as error:
            pack(source, out, options=THREE)
        assert error.value.code == 20
        # what has its final name is whole
        found = {name: data for name, data in tree(out).items() if name in expected}
        assert all(expected[name] == data for name, data in found.items())
        pack(source, out, options=THREE)
        assert tree(out) == expected, at


@pytest.mark.long
def test_kill_in_the_middle(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", 5)
    pack(source, tmp_path / "whole", options=THREE)
    script = (
        "import sys; from pathlib import Path; from curator.pack.shards import pack, PackOptions\n"
        "pack(Path(sys.argv[1]), Path(sys.argv[2]), options=PackOptions(samples_per_shard=2))\n"
    )
    command = [sys.executable, "-c", script, str(source), str(tmp_path / "out")]
    for at in (4, 12, 25, 40):  # before the claim, in the first shard, in the second, in the third
        env = {**os.environ, "CURATOR_FAILPOINT": str(at)}
        assert subprocess.run(command, env=env, check=False).returncode == -9
    pack(source, tmp_path / "out", options=THREE)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_a_finished_shard_is_not_made_again(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", 5)
    pack(source, tmp_path / "out", options=THREE)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("0*")}
    seen: list[int] = []
    report = pack(source, tmp_path / "out", options=THREE, on_progress=seen.append)
    assert (report.num_shards, report.num_new_shards, report.num_packed) == (3, 0, 5)
    assert sum(seen) == 5
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("0*")}
    (tmp_path / "out/00001.tar").unlink()
    assert pack(source, tmp_path / "out", options=THREE).num_new_shards == 1


@pytest.mark.parametrize("change", ["caption", "added", "added at the end", "removed"])
def test_a_source_that_changed_is_refused(tmp_path: Path, change: str) -> None:
    source = photos(tmp_path / "photos", 5)
    pack(source, tmp_path / "out", options=THREE)
    if change == "caption":
        (source / "0001.txt").write_text("another")
    elif change == "added":
        put(source, {"0000b.jpg": JPEG})
    elif change == "added at the end":
        put(source, {"9.jpg": JPEG})
    else:
        (source / "0004.jpg").unlink()
        (source / "0004.txt").unlink()
    before = {k: v for k, v in tree(tmp_path / "out").items() if not k.startswith(".")}
    with pytest.raises(DamageError) as error:
        pack(source, tmp_path / "out", options=THREE)
    assert (error.value.code, error.value.reason) == (12, "source.changed")
    assert {k: v for k, v in tree(tmp_path / "out").items() if not k.startswith(".")} == before


def test_a_stop_keeps_what_is_finished(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", 250)

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    options = PackOptions(samples_per_shard=60)
    with pytest.raises(KeyboardInterrupt):
        pack(source, tmp_path / "out", options=options, on_progress=stop)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    # the hundredth row is in the second shard, whose temporary file is gone
    assert names == {"00000.tar", "00000.parquet", "00000_stats.json", outputs.CLAIM}
    report = pack(source, tmp_path / "out", options=options)
    assert (report.num_shards, report.num_new_shards, report.num_packed) == (5, 4, 250)


def test_foreign_folders_are_refused(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", 3)
    foreign = put(tmp_path / "foreign", {"00000.tar": "mine"})
    with pytest.raises(UsageError, match=r"00000\.tar") as error:
        pack(source, foreign)
    assert (error.value.code, error.value.reason) == (2, "output.foreign")
    assert tree(foreign) == {"00000.tar": b"mine"}
    put(tmp_path, {"file": ""})
    with pytest.raises(UsageError, match="is a file"):
        pack(source, tmp_path / "file")
    pack(source, tmp_path / "out")
    with pytest.raises(UsageError, match="samples_per_shard 10000, not 2") as error:
        pack(source, tmp_path / "out", options=THREE)
    assert error.value.reason == "output.other"
    with pytest.raises(UsageError, match="inside the source"):
        pack(source, source / "shards")
    put(tmp_path / "odd", {MANIFEST: "[]"})
    with pytest.raises(DamageError):
        pack(source, tmp_path / "odd")
    put(tmp_path / "odd2", {MANIFEST: "{}"})
    with pytest.raises(UsageError, match="holds other files"):
        pack(source, tmp_path / "odd2")


def test_two_writers(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", 3)
    lock = fsops.Appender(tmp_path / "out" / outputs.LOCK)
    with pytest.raises(ConflictError):
        pack(source, tmp_path / "out")
    lock.close()
    assert pack(source, tmp_path / "out").num_packed == 3


# -- small parts ---------------------------------------------------------------------------------

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.binary(max_size=8)
    | st.text(st.characters(codec=None, exclude_categories=()), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(json_values)
@settings(max_examples=200)
def test_any_metadata_becomes_strict_json(value: object) -> None:
    text = json.dumps(plain(value), allow_nan=False, ensure_ascii=False)
    assert json.loads(text.encode("utf-8")) == plain(value)
    PackItem(origin="x", meta={"value": value}).digest()


def test_a_huge_image_is_refused_unread(tmp_path: Path) -> None:
    source = tmp_path / "photos"
    source.mkdir()
    with (source / "big.jpg").open("wb") as file:
        file.truncate((256 << 20) + 1)  # sparse: takes no space
    buffer = io.BytesIO()
    Image.new("L", (13_400, 13_400)).save(buffer, "PNG")  # 180 million pixels in a few KB
    put(source, {"bomb.png": buffer.getvalue(), "fine.png": PNG})
    pack(source, tmp_path / "out")
    assert reasons(tmp_path / "out") == {
        "big.jpg": "tar.size_limit",
        "bomb.png": "image.too_many_pixels",
    }
