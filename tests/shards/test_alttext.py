"""Where alt texts are looked for, what counts as none, and what the index says of it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest

from curator.core.errors import UsageError
from curator.core.stopping import StopRequest
from curator.shards.samples import ScannedSample
from curator.shards.scan import ScanOptions
from curator.steps.index import IndexReport, make_index, say_index
from curator.steps.workspace import Workspace, open_workspace
from curator.store import index, parquet
from curator.store.runs import open_run
from curator.store.schemas import INDEX_SCHEMA
from tests.kit.tars import Files, image_bytes, only, scan, tar


def datacompdr(number: int, *, with_text: bool = False) -> Files:
    """The files of one sample of apple/DataCompDR-12M, joined with its image as its users do."""
    uid = f"{number:032x}"
    files = [
        (f"{uid}.jpg", image_bytes(number)),
        (f"{uid}.url.txt", b"https://i.example.com/ori/8bf86a1fb963.jpg"),
        (f"{uid}.syn.json", json.dumps({"syn_text": ["a red ball", "a ball"]}).encode()),
        (f"{uid}.paug.json", json.dumps({"param_aug": "[[[14, 347, 370], [[0, 0.0]]]]"}).encode()),
        (f"{uid}.npz", b"PK"),
        (f"{uid}.json", json.dumps({"uid": uid, "sha256": "0" * 64}).encode()),
    ]
    return [*files, (f"{uid}.txt", b"Buy a ball now")] if with_text else files


def found_in(tmp_path: Path, members: dict[str, bytes], field: str | None = None) -> ScannedSample:
    files = [(f"a.{ext}", data) for ext, data in members.items()]
    return only(scan(tmp_path, tar([("a.jpg", image_bytes()), *files]), caption_field=field))


def test_datacompdr(tmp_path: Path) -> None:
    bare = only(scan(tmp_path, tar(datacompdr(0))))
    assert (bare.alt_text, bare.alt_source, bare.flags) == (
        *(None, None, ("key.dotted", "caption.missing")),
    )
    for field in ("syn_text.0", ".syn.json:syn_text.0"):
        found = only(scan(tmp_path, tar(datacompdr(0)), caption_field=field))
        assert (found.alt_text, found.alt_source) == ("a red ball", ".syn.json:syn_text.0")
    found = only(scan(tmp_path, tar(datacompdr(0, with_text=True))))
    assert (found.alt_text, found.alt_source) == ("Buy a ball now", ".txt")


@pytest.mark.parametrize(
    ("members", "text", "source"),
    [
        ({"txt": b"one", "caption": b"two"}, "one", ".txt"),
        ({"caption": b"two", "cap": b"three"}, "two", ".caption"),
        ({"cap": b"three"}, "three", ".cap"),
        ({"TEXT": b"four"}, "four", ".text"),
        ({"alt.txt": b"five", "license.txt": b"CC BY"}, "five", ".alt.txt"),
        ({"url.txt": b"https://x.org"}, None, None),
        ({"license.txt": b"CC BY"}, None, None),
        ({"url.txt": b"https://x.org", "en.txt": b"a dog"}, None, None),
        ({"json": b'{"caption": "not asked for"}'}, None, None),
    ],
)
def test_text_files(
    tmp_path: Path, members: dict[str, bytes], text: str | None, source: str | None
) -> None:
    found = found_in(tmp_path, members)
    assert (found.reason, found.alt_text, found.alt_source) == (None, text, source)
    assert ("caption.missing" in found.flags) == (text is None)


def test_in_a_sample_of_dotted_names_the_text_like_the_image_counts(tmp_path: Path) -> None:
    files = [("i_0.25.jpg", image_bytes()), ("i_0.50.txt", b"other"), ("i_0.25.txt", b"mine")]
    assert only(scan(tmp_path, tar(files))).alt_text == "mine"


@pytest.mark.parametrize(
    ("members", "field", "text", "flag"),
    [
        ({"json": b'{"a": "x"}', "syn.json": b'{"a": "y"}'}, "a", "x", None),
        ({"json": b'{"b": "x"}', "syn.json": b'{"a": "y"}'}, "a", "y", None),
        ({"json": b'{"a": null}', "syn.json": b'{"a": "y"}'}, "a", "y", None),
        ({"one.json": b'{"a": "x"}', "two.json": b'{"a": "y"}'}, "a", None, "caption.ambiguous"),
        ({"one.json": b'{"a": "x"}', "two.json": b'{"a": "y"}'}, ".two.json:a", "y", None),
        ({"json": b'{"TEXT": "x", "text": "y"}'}, "TEXT", "x", None),
        ({"syn.json": b'{"TEXT": "x"}'}, ".SYN.json:TEXT", "x", None),
        ({"json": b'{"a": "x"}'}, ".syn.json:a", None, "caption.missing"),
        ({"txt": b"x", "caption": b"y"}, ".caption", "y", None),
        ({"caption": b"y"}, ".txt", None, "caption.missing"),
        ({"en.txt": b"y"}, ".en.txt", "y", None),
    ],
)
def test_places(
    tmp_path: Path, members: dict[str, bytes], field: str, text: str | None, flag: str | None
) -> None:
    found = found_in(tmp_path, members, field)
    assert found.alt_text == text
    assert [one for one in found.flags if one.startswith("caption")] == [flag] * (flag is not None)


@pytest.mark.parametrize(
    "spec", ["", ".", ".json", ".txt:a", ".syn.json:", "a..b", ".a..b", "..txt"]
)
def test_a_place_that_is_none(spec: str) -> None:
    with pytest.raises(UsageError) as error:
        ScanOptions(caption_field=spec)
    assert error.value.code == 2
    assert ".syn.json:syn_text.0" in str(error.value)


@pytest.mark.parametrize("word", ["nan", "NaN", "None", " null\n", "N/A", "<NA>", "undefined", " "])
@pytest.mark.parametrize("field", [None, "caption"])
def test_the_word_for_a_missing_value_is_no_caption(
    tmp_path: Path, word: str, field: str | None
) -> None:
    members = {"txt": word.encode(), "json": json.dumps({"caption": word}).encode()}
    found = found_in(tmp_path, members, field)
    assert (found.reason, found.alt_text, found.flags) == (None, None, ("caption.empty",))
    assert found.alt_raw == word.encode()  # what was dropped is kept
    assert found_in(tmp_path, {"txt": b"Nan's garden"}).alt_text == "Nan's garden"


# -- what the index says -------------------------------------------------------------------------


def dataset(folder: Path, shards: dict[str, Files]) -> Workspace:
    folder.mkdir(exist_ok=True)
    for name, files in shards.items():
        (folder / f"{name}.tar").write_bytes(tar(files))
    return open_workspace(str(folder), None, create=True)


def indexed(ws: Workspace, **options: object) -> IndexReport:
    return make_index(ws, ScanOptions(**options), stop=StopRequest())  # type: ignore[arg-type]  # kwargs


def said(ws: Workspace, report: IndexReport, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with open_run(ws.store, "index", {}) as run:
        say_index(report, run)
    return capsys.readouterr().err


def joined(samples: Iterable[Files]) -> Files:
    return list(chain.from_iterable(samples))


def one(number: int, **members: bytes) -> Files:
    key = f"{number:03d}"
    return [(f"{key}.jpg", image_bytes(number)), *((f"{key}.{e}", d) for e, d in members.items())]


def test_the_index_counts_alt_texts_by_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = [one(0, txt=b"a"), one(1, txt=b"b"), one(2, txt=b"c"), one(3, caption=b"d"), one(4)]
    second = [one(5, txt=b" "), one(6, txt=b"nan"), one(7, txt=b"x" * 70_000), one(8, txt=b"e")]
    broken = [("009.jpg", b"no image"), ("009.txt", b"counts nowhere")]
    shards = {"a": joined(first), "b": [*joined(second), *broken]}
    ws = dataset(tmp_path, shards)
    report = indexed(ws)
    line = "alt text: 4 from .txt, 1 from .caption, 1 missing, 2 empty, 1 unreadable\n"
    assert line in said(ws, report, capsys)
    assert "have no alt text" not in said(ws, report, capsys)  # 4 of 9 are not most
    again = indexed(ws)
    assert (again.num_scanned, again.alt_texts) == (0, report.alt_texts)
    assert line in said(ws, again, capsys)
    counts = json.loads(json.dumps(again.to_json()))["alt_texts"]
    assert counts["found"] == {".txt": 4, ".caption": 1}
    assert [counts[f"num_{name}"] for name in ("missing", "empty", "unreadable")] == [1, 2, 1]


@pytest.mark.parametrize(
    ("members", "advice"),
    [
        ({"json": b'{"caption": "a cat", "url": "https://x"}'}, "--caption-field caption (3 of 3"),
        ({"json": b'{"meta": {"TEXT": "cat"}}'}, "--caption-field meta.TEXT (3 of 3"),
        ({"json": b'{"who": "Ann Lee", "alt": "a cat"}'}, "--caption-field alt (3 of 3"),
        ({"json": '{"x": "\u732b\u304c\u5bdd\u3066"}'.encode()}, "--caption-field x (3 of 3"),
        ({"en.txt": b"a cat"}, "--caption-field .en.txt (3 of 3"),
        ({"txt": b"null", "json": b'{"title": "Cats"}'}, "--caption-field title (3 of 3"),
        ({"json": b'{"my text": "a cat"}'}, "--caption-field 'my text' (3 of 3"),
        ({"json": b'{"uid": "0a1b", "url": "https://x y"}'}, "no other text was found"),
        ({"json": b"{broken"}, "no other text was found"),
        ({"url.txt": b"https://x.org/a.jpg"}, "no other text was found"),
        ({}, "no other text was found"),
    ],
)
def test_when_most_are_missing_the_index_says_what_to_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], members: dict[str, bytes], advice: str
) -> None:
    files = joined([*(one(number, **members) for number in range(3)), one(3, txt=b"a dog")])
    ws = dataset(tmp_path, {"a": files})
    text = said(ws, indexed(ws), capsys)
    assert "3 of 4 samples have no alt text" in text
    assert advice in text
    if "--caption-field" in advice and "'" not in advice:
        field = advice.split()[1]
        assert indexed(ws, caption_field=field).alt_texts.found


def test_a_command_that_is_not_told_again_keeps_what_the_last_one_was_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = joined(one(n, txt=b"short", json=b'{"caption": "long"}', png=b"x") for n in range(2))
    ws = dataset(tmp_path, {"a": files})
    assert indexed(ws).num_unusable == 2  # two images each
    told = indexed(ws, caption_field="caption", image_ext=("jpg",))
    assert (told.num_unusable, told.alt_texts.found) == (0, {".json:caption": 2})
    capsys.readouterr()
    again = indexed(ws)
    assert (again.num_scanned, again.alt_texts.found) == (0, {".json:caption": 2})
    text = capsys.readouterr().err
    assert "using --caption-field caption, as indexed before" in text
    assert "using --image-ext jpg, as indexed before" in text
    # a shard that is new is read in the same way
    ws = dataset(tmp_path, {"b": one(7, json=b'{"caption": "long"}')})
    assert indexed(ws).alt_texts.found == {".json:caption": 3}
    back = indexed(ws, caption_field=".txt", image_ext=("any",))
    assert (back.num_unusable, back.alt_texts.found) == (2, {})
    assert (back.num_scanned, back.alt_texts.num_missing) == (2, 1)


def test_shards_indexed_in_two_ways_are_asked_about(tmp_path: Path) -> None:
    ws = dataset(tmp_path, {"a": one(0, caption=b"x")})
    indexed(ws)
    both = dataset(tmp_path, {"b": one(1, caption=b"x")})
    make_index(replace(both, dataset=replace(both.dataset, shards=both.shards[1:])),
               ScanOptions(caption_field="caption"), stop=StopRequest())  # fmt: skip
    with pytest.raises(UsageError) as error:
        indexed(both)
    assert "--caption-field (.txt, caption)" in str(error.value)
    assert indexed(both, caption_field=".caption").alt_texts.found == {".caption": 2}


def test_an_index_of_older_rules_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ws = dataset(tmp_path, {"a": one(0, txt=b"x")})
    with monkeypatch.context() as older:
        older.setattr(index, "RULES", 1)
        indexed(ws)
    path = ws.store.index_path("a")
    rows, facts = index.read(ws.store, "a"), index.shard_facts(ws.store, "a")
    # as a store of before has it: without the two fields
    header = json.loads(parquet.read_metadata(path))
    del header["rules"], header["alt_texts"]
    table = parquet.to_table(rows, INDEX_SCHEMA)
    parquet.write(path, table, json.dumps(header).encode())
    assert index.shard_facts(ws.store, "a").digest == facts.digest  # still opens
    assert indexed(ws).num_scanned == 1
    assert indexed(ws).num_scanned == 0
