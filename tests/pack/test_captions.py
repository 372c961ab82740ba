"""pack: where captions are found, what is refused before a model is paid, what is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curator.cli.app import app
from curator.cli.output import run_app
from curator.core.errors import UsageError
from curator.pack.report import PackReport
from curator.pack.shards import PackOptions, pack
from curator.pack.sources import SourceOptions
from tests.kit import tars
from tests.kit.webread import webdataset_samples
from tests.pack.test_pack import put, reasons, table, tree

PNG = tars.image_bytes(2, kind="PNG")
Rows = list[dict[str, object]]


def run(source: Path, out: Path, **options: str | Path | None) -> PackReport:
    return pack(source, out, options=PackOptions(source=SourceOptions(**options)))  # type: ignore[arg-type]  # kwargs


def texts(out: Path) -> list[bytes | str | None]:
    return [one.get("txt") for one in webdataset_samples(out)]


def write_jsonl(path: Path, rows: Rows) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def write_csv(path: Path, rows: Rows, mark: str = ",") -> Path:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, *([str(row.get(name) or "") for name in names] for row in rows)]
    path.write_text("".join(mark.join(line) + "\n" for line in lines))
    return path


def write_tsv(path: Path, rows: Rows) -> Path:
    return write_csv(path, rows, "\t")


def write_parquet(path: Path, rows: Rows) -> Path:
    names = list(dict.fromkeys(name for row in rows for name in row))
    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), path)
    return path


WRITERS: dict[str, Callable[[Path, Rows], Path]] = {
    "jsonl": write_jsonl,
    "csv": write_csv,
    "tsv": write_tsv,
    "parquet": write_parquet,
}


def fails(source: Path, out: Path, **options: str | Path | None) -> UsageError:
    with pytest.raises(UsageError) as error:
        run(source, out, **options)
    assert not [name for name in tree(out) if not name.startswith(".")] if out.exists() else True
    return error.value


# -- tables: one rule for all formats ----------------------------------------------------------


@pytest.mark.parametrize("kind", WRITERS)
def test_a_column_that_is_not_there(tmp_path: Path, kind: str) -> None:
    put(tmp_path, {"a.png": PNG})
    rows: Rows = [{"file_name": "a.png", "prompt": "a cat"}] * 2
    source = WRITERS[kind](tmp_path / f"t.{kind}", rows)
    error = fails(source, tmp_path / "out")
    assert (error.code, error.reason) == (2, "input.column")
    assert "--caption-column NAME" in str(error)
    assert "allowed: file_name, prompt" in str(error)
    error = fails(source, tmp_path / "out", caption_column="promt")
    assert (error.code, error.reason) == (2, "input.column")
    assert "did you mean 'prompt'" in str(error)
    error = fails(source, tmp_path / "out", image_column="img", caption_column="prompt")
    assert "--image-column NAME" in str(error)
    report = run(source, tmp_path / "out", caption_column="prompt")
    assert (report.num_captioned, report.warnings) == (2, ())
    assert texts(tmp_path / "out") == [b"a cat", b"a cat"]
    bare = run(source, tmp_path / "bare", caption_column="")  # said, so nothing is warned of
    assert (bare.num_without_caption, bare.warnings) == (2, ())


@pytest.mark.parametrize("kind", WRITERS)
def test_a_column_that_comes_late(tmp_path: Path, kind: str) -> None:
    put(tmp_path, {"a.png": PNG})
    rows: Rows = [{"file_name": "a.png"}] * 300 + [{"file_name": "a.png", "text": "a cat"}]
    source = WRITERS[kind](tmp_path / f"t.{kind}", rows)
    report = run(source, tmp_path / "out")
    assert report.num_captioned == 1
    assert texts(tmp_path / "out")[-1] == b"a cat"
    (warning,) = report.warnings
    assert warning.startswith("300 of 301 images have no caption")


def test_a_column_that_comes_in_a_later_file_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_parquet(tmp_path / "in/0.parquet", [{"image": PNG, "uid": 1}])
    write_parquet(tmp_path / "in/1.parquet", [{"image": PNG, "caption": "a cat"}])
    assert run(tmp_path / "in", tmp_path / "out").num_captioned == 1
    assert texts(tmp_path / "out") == [None, b"a cat"]


def test_lines_of_json_may_use_different_names(tmp_path: Path) -> None:
    put(tmp_path, {"a.png": PNG})
    rows: Rows = [
        {"image": "a.png", "caption": "one"},
        {"path": "a.png", "text": "two"},
        {"path": "a.png", "caption": None, "text": "three"},
    ]
    run(write_jsonl(tmp_path / "t.jsonl", rows), tmp_path / "out")
    assert texts(tmp_path / "out") == [b"one", b"two", b"three"]


def test_coco_without_captions(tmp_path: Path) -> None:
    put(tmp_path, {"a.png": PNG})
    notes = [{"image_id": 1, "bbox": [0, 0, 1, 1], "title": "a cat"}]
    data = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": notes}
    put(tmp_path, {"instances.json": json.dumps(data)})
    error = fails(tmp_path / "instances.json", tmp_path / "out")
    assert (error.code, error.reason) == (2, "input.column")
    assert "bbox" in str(error)
    run(tmp_path / "instances.json", tmp_path / "out", caption_column="title")
    assert texts(tmp_path / "out") == [b"a cat"]


@pytest.mark.parametrize("kind", WRITERS)
def test_nothing_to_pack_is_refused_and_can_be_tried_again(tmp_path: Path, kind: str) -> None:
    put(tmp_path / "img", {"a.png": PNG})
    rows: Rows = [{"file_name": name, "caption": "x"} for name in ("a.png", "b.png")]
    source = WRITERS[kind](tmp_path / f"t.{kind}", rows)
    error = fails(source, tmp_path / "out")
    assert (error.code, error.reason) == (2, "pack.nothing")
    assert "none of 2 rows could be packed: 2x image.missing (a.png: no such file)" in str(error)
    assert "--images FOLDER" in str(error)
    report = run(source, tmp_path / "out", images=tmp_path / "img")
    assert (report.num_packed, report.failures) == (1, {"image.missing": 1})


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_blank_captions_are_counted(tmp_path: Path, kind: str) -> None:
    put(tmp_path, {"a.png": PNG})
    words = ["nan", " ", "N/A", "a cat", "null"]
    rows: Rows = [{"path": "a.png", "caption": word} for word in words]
    report = run(WRITERS[kind](tmp_path / f"t.{kind}", rows), tmp_path / "out")
    assert (report.num_without_caption, report.num_blank_captions) == (0, 4)
    assert "4 of 5 images have no caption, 4 of them blank" in report.warnings[0]
    assert texts(tmp_path / "out") == [word.encode() for word in words]  # packed as they are
    stats = json.loads((tmp_path / "out/00000_stats.json").read_bytes())
    assert stats["blank_captions"] == 4
    again = run(tmp_path / f"t.{kind}", tmp_path / "out")
    assert (again.num_new_shards, again.num_blank_captions) == (0, 4)
    assert again.warnings == report.warnings


# -- folders: the sidecars that people have --------------------------------------------------


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "captions.tsv", "captions.csv",
                                  "metadata.parquet", "Metadata.CSV"])  # fmt: skip
def test_a_table_beside_the_images(tmp_path: Path, name: str) -> None:
    source = put(tmp_path / "in", {"train/a.png": PNG, "train/sub/b.png": PNG, "train/c.png": PNG})
    rows: Rows = [
        {"file_name": "a.png", "text": "a cat", "license": "cc0"},
        {"file_name": "./sub/b.png", "text": "a dog", "license": "by"},
        {"file_name": "gone.png", "text": "a fish", "license": "by"},
        {"file_name": "../../etc/passwd", "text": "a fish", "license": "by"},
    ]
    WRITERS[name.rpartition(".")[2].lower()](source / "train" / name, rows)
    report = run(source, tmp_path / "out")
    assert (report.num_rows, report.num_packed, report.num_without_caption) == (5, 3, 1)
    assert reasons(tmp_path / "out") == {
        "train/gone.png": "image.missing",
        "../etc/passwd": "path.traversal",
    }
    # in the order of the folder: a, c, sub/b
    assert texts(tmp_path / "out") == [b"a cat", None, b"a dog"]
    metas = [json.loads(one["json"]) for one in webdataset_samples(tmp_path / "out")]
    assert [meta.get("license") for meta in metas] == ["cc0", None, "by"]


def test_several_rows_of_one_image_are_several_captions(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {"a.png": PNG})
    rows: Rows = [{"image": "a.png", "caption": text, "by": text[-1]} for text in ("one", "two")]
    write_csv(source / "captions.csv", rows)
    run(source, tmp_path / "out")
    assert table(tmp_path / "out")[0]["captions"] == ["one", "two"]
    meta = json.loads(webdataset_samples(tmp_path / "out")[0]["json"])
    assert meta["rows"] == [{"by": "e"}, {"by": "o"}]


def test_what_lies_nearest_to_the_image_wins(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        **{f"{name}.png": PNG for name in "abcdef"},
        **{"a.txt": "txt", "a.caption": "caption"},
        **{"b.caption": "caption", "b.json": '{"caption": "json", "tag": "mine"}'},
        **{"c.json": '{"caption": "json", "tag": "mine"}', "d.png.txt": "whole name"},
        **{"e.json": '{"caption": "json"}', "f.cap": "cap"},
        "orphan.caption": "no image",
    }
    source = put(tmp_path / "in", files)
    rows: Rows = [{"file_name": f"{name}.png", "text": "table", "tag": "its"} for name in "abc"]
    write_jsonl(source / "metadata.jsonl", rows)
    run(source, tmp_path / "out")
    found = webdataset_samples(tmp_path / "out")
    assert [one["txt"] for one in found] == [
        *(b"txt", b"caption", b"table", b"whole name", b"json", b"cap"),
    ]
    meta = json.loads(found[2]["json"])
    assert (meta["tag"], meta["table_tag"]) == ("mine", "its")
    assert reasons(tmp_path / "out") == {"orphan.caption": "image.missing"}


def test_accents_that_were_taken_apart(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {"cafe\u0301.png": PNG})  # as macOS writes it
    write_jsonl(source / "metadata.jsonl", [{"file_name": "caf\u00e9.png", "text": "a bar"}])
    assert run(source, tmp_path / "out").failures == {}
    assert texts(tmp_path / "out") == [b"a bar"]


def test_an_image_without_an_ending_that_the_table_names(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {"a.png": PNG, "0001": PNG})
    write_jsonl(source / "metadata.jsonl", [{"file_name": "0001", "text": "a bar"}])
    run(source, tmp_path / "out")
    assert texts(tmp_path / "out") == [None, b"a bar"]


def test_tables_that_leave_a_doubt_are_refused(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {"a.png": PNG})
    rows: Rows = [{"file_name": "a.png", "prompt": "a cat"}]
    write_jsonl(source / "metadata.jsonl", rows)
    error = fails(source, tmp_path / "out")
    assert (error.code, error.reason) == (2, "input.column")
    assert "metadata.jsonl" in str(error)
    assert run(source, tmp_path / "named", caption_column="prompt").num_captioned == 1
    assert run(source, tmp_path / "bare", caption_column="").num_captioned == 0
    write_csv(source / "metadata.csv", rows)
    error = fails(source, tmp_path / "out")
    assert (error.code, error.reason) == (2, "input.ambiguous")


def test_a_folder_without_captions_says_what_was_looked_for(tmp_path: Path) -> None:
    source = put(
        tmp_path / "in",
        {
            "a.png": PNG,
            "a.json": '{"prompt": "a cat", "url": "https://x.org/a.png"}',
            "train.csv": "img,words\na.png,x\n",
        },
    )
    report = run(source, tmp_path / "out")
    (warning,) = report.warnings
    for part in ("1 of 1 images have no caption", "NAME.caption", "metadata.jsonl", "train.csv",
                 "other fields have texts: prompt (--caption-column NAME"):  # fmt: skip
        assert part in warning
    error = fails(source, tmp_path / "out2", caption_column="promt")
    assert (error.code, error.reason) == (2, "input.column")
    assert "prompt" in str(error)
    assert run(source, tmp_path / "out2", caption_column="prompt").num_captioned == 1


def test_the_command_warns_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = put(tmp_path / "in", {"a.png": PNG})
    assert run_app(app, ["pack", str(source), str(tmp_path / "out"), "--json"]) == 0
    shown = capsys.readouterr()
    assert "warning: 1 of 1 images have no caption" in shown.err
    assert json.loads(shown.out)["num_without_caption"] == 1
