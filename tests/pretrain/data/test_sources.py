"""Where samples come from: a version, an export of it, shards without a store, a user's table."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from curator.core.errors import CuratorError, DamageError, NotFoundError, UsageError
from curator.core.stopping import StopRequest
from curator.export.version import ExportOptions, Target, export
from curator.shards.places import read_bytes
from curator.shards.scan import ScanOptions
from curator.steps.index import make_index
from pretrain.data.captions_table import split_table
from pretrain.data.loader import Pipeline, open_source
from pretrain.data.options import DataOptions
from pretrain.data.source import Source, image_hashes
from tests.kit import tars
from tests.kit.data import half_jpeg, lengths, texts_of
from tests.kit.paths import SHARED
from tests.kit.store import GENERATOR, Kit, image, open_kit, small_store


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    return small_store(tmp_path_factory.mktemp("store") / "shards")


def samples(source: Source) -> Iterator[tuple[bytes, tuple[tuple[str, float, str], ...]]]:
    """(encoded image, its texts with weight and writer) of every sample."""
    for shard in range(len(source.tables.shards)):
        table = source.read(shard)
        for row in table.rows.iter_rows(named=True):
            captions = zip(row["texts"], row["weights"], row["written_by"], strict=True)
            told = tuple((text, round(weight, 6), by) for text, weight, by in captions)
            yield read_bytes(table.path, row["offset"], row["length"]), told


def fails(spec: str, **arguments: object) -> str:
    with pytest.raises(CuratorError) as error:
        open_source(spec, **arguments)  # type: ignore[arg-type]  # keywords of any kind
    return str(error.value)


# -- a version ------------------------------------------------------------------------------------


def test_a_version_gives_its_texts_with_the_images_they_belong_to(kit: Kit) -> None:
    source = open_source(f"{kit.ws.spec}@v2")
    found = dict(samples(source))
    generator = GENERATOR
    assert found[image("a0")] == (("two dogs running on a beach", 1.0, generator),)
    assert found[image("a2")] == (("a man riding a bike", 1.0, "alt_text"),)
    assert image("b2")[:12] not in found  # the broken one
    assert len(found) == source.num_samples == 9
    assert source.describe()["counts"]["captioned"] == 6
    assert source.name == f"{kit.ws.spec}@v2"


def test_the_newest_version_is_meant_when_none_is_named(kit: Kit) -> None:
    assert open_source(kit.ws.spec).id == kit.versions["strict"].id


def test_images_without_texts_are_taken_when_nothing_reads_texts(kit: Kit) -> None:
    """All but the broken one, whatever the version keeps."""
    source = open_source(f"{kit.ws.spec}@v4", need_text=False)
    assert sorted(texts_of(source)) == ["a0", "a1", "a2", "a3", "a4", "a5", "b0", "b1", "b3"]


def test_weights_of_a_mix_are_kept_and_zeros_count_as_equal(tmp_path: Path) -> None:
    policy = (
        'name = "mix"\nsources = ["alt_text", "generated"]\npick = "all"\n'
        "[weights]\nalt_text = 0\ngenerated = 1\n"
    )
    kit = open_kit(tmp_path / "shards")
    kit.decide(policy)
    rows = open_source(kit.ws.spec).read(0).rows
    weights = dict(rows.select("key", "weights").rows())
    assert weights["a0"] == [0.0, 1.0]
    assert weights["a4"] == [1.0]  # an alt text of weight 0, and nothing else


def test_a_version_is_opened_by_its_manifest_alone(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pretrain.data.version.read_decision", None)
    assert open_source(f"{kit.ws.spec}@v2").num_samples == 9
    assert open_source(f"{kit.ws.spec}@v2", control="captions-only").num_samples == 6
    reference = f"{kit.ws.spec}@v4"
    matched = open_source(f"{kit.ws.spec}@v2", control="count-matched", reference=reference)
    assert matched.num_samples == 4


def test_nothing_to_train_on_is_said(kit: Kit) -> None:
    kit.decide('name = "none"\nsources = ["alt_text"]\npick = "first"\n[[rule]]\n'
               'name = "no"\nfield = "num_words"\nmin = 99\n')  # fmt: skip
    assert "has no sample to train on" in fails(f"{kit.ws.spec}@v5")


def test_unknown_versions_and_shards_are_named(kit: Kit, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no version 'v77'"):
        open_source(f"{kit.ws.spec}@v77")
    with pytest.raises(
        UsageError, match="1 of 2 shards of v2 are not in the dataset, first '00001'"
    ):
        open_source(f"{kit.ws.spec}/00000.tar@v2")
    with pytest.raises(UsageError, match="pipe: is not supported"):
        open_source("pipe:touch x.tar")


# -- changed shards -------------------------------------------------------------------------------


def first_batch(spec: str) -> object:
    options = DataOptions(image_px=8, batch_size=9)
    return next(Pipeline(open_source(spec), options, tokenize=lengths).batches())


def test_a_shard_that_was_cut_is_noticed(tmp_path: Path) -> None:
    kit = small_store(tmp_path / "shards", ["best"])
    path = kit.ws.shards[1].path
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DamageError, match=r"not the one that was indexed: .* bytes instead of"):
        first_batch(kit.ws.spec)
    path.unlink()
    with pytest.raises(UsageError, match="1 of 2 shards of v1 are not in the dataset"):
        first_batch(kit.ws.spec)


def test_images_of_a_shard_that_was_touched_are_hashed(tmp_path: Path) -> None:
    kit = small_store(tmp_path / "shards", ["best"])
    path = kit.ws.shards[1].path
    os.utime(path, (1, 1))
    assert open_source(kit.ws.spec).read(1).verify
    assert not open_source(kit.ws.spec).read(0).verify
    first_batch(kit.ws.spec)
    # Another image of the same length in the place of the indexed one: a valid JPEG all the same.
    data, old = path.read_bytes(), image("b1")
    others = (one for one in map(tars.image_bytes, range(99)) if one != old)
    new = next(one for one in others if len(one) == len(old))
    path.write_bytes(data.replace(old, new))
    assert len(path.read_bytes()) == len(data)
    with pytest.raises(DamageError, match=r"image of 'b1' is not the one .* sha256 differs"):
        first_batch(kit.ws.spec)


def test_an_index_that_was_made_again_does_not_fit(tmp_path: Path) -> None:
    kit = small_store(tmp_path / "shards", ["best"])
    path = kit.ws.shards[0].path
    path.write_bytes(path.read_bytes().replace(b"IMG_2034", b"IMG_2035"))
    make_index(kit.ws, ScanOptions(), stop=StopRequest())
    with pytest.raises(DamageError, match=r"digest was .*, but the index is of"):
        first_batch(kit.ws.spec)


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    """Its header is good, so the index takes it."""
    tars.write(tmp_path, tars.tar([("x.jpg", half_jpeg()), ("x.txt", b"noise")]))
    with pytest.raises(DamageError) as error:
        Pipeline(
            open_source(str(tmp_path)), DataOptions(image_px=8, batch_size=1), tokenize=lengths
        ).batches().__next__()
    assert "the image of 'x' cannot be used (image.truncated" in str(error.value)
    assert str(error.value.where).endswith("00000.tar")


# -- shards without a store -----------------------------------------------------------------------


@pytest.mark.parametrize("target", ["wds", "hf"])
@pytest.mark.parametrize("policy", ["all", "best", "strict"])
def test_an_export_gives_what_the_version_gives(
    kit: Kit, policy: str, target: Target, tmp_path: Path
) -> None:
    version = kit.versions[policy]
    options = ExportOptions(license="other") if target == "hf" else ExportOptions()
    export(kit.ws.store, kit.ws.shards, version, tmp_path, to=target, options=options)
    exported = open_source(str(tmp_path / "data" if target == "hf" else tmp_path))
    original = open_source(f"{kit.ws.spec}@{version.name}")
    assert Counter(samples(exported)) == Counter(samples(original))
    assert exported.id == original.id == version.id


def test_shards_of_anybody_have_the_alt_text_of_txt(tmp_path: Path) -> None:
    files = [*tars.sample("a", 1, caption="one"), *tars.sample("b", 2, caption=None)]
    files += tars.sample("c", 3, caption="three")
    tars.write(tmp_path, tars.tar(files))
    source = open_source(str(tmp_path))
    assert texts_of(source) == {"a": ["one"], "c": ["three"]}
    assert sorted(texts_of(open_source(str(tmp_path), need_text=False))) == ["a", "b", "c"]
    before = source.id
    tars.write(tmp_path, tars.tar(tars.samples(2)))
    assert open_source(str(tmp_path)).id != before
    tars.write(tmp_path, tars.tar(tars.sample("a", 1, caption="one")))
    with pytest.raises(DamageError, match=r"1 usable samples, 2 were counted"):
        source.read(0)


def test_an_export_that_was_changed_is_counted_again(kit: Kit, tmp_path: Path) -> None:
    export(kit.ws.store, kit.ws.shards, kit.versions["best"], tmp_path, to="wds")
    tars.write(tmp_path, tars.tar(tars.samples(2)))
    source = open_source(str(tmp_path))
    assert source.num_samples == 2 + 3
    assert source.id != kit.versions["best"].id


@pytest.mark.parametrize(
    "field",
    [{"captions": [{"text": 5}]}, {"captions": ["text"]}],
)
def test_a_curator_field_of_another_form_is_damage(field: object, tmp_path: Path) -> None:
    body = json.dumps({"curator": field}).encode()
    tars.write(tmp_path, tars.tar([("a.jpg", tars.image_bytes()), ("a.json", body)]))
    assert "not in the form of `curator export`" in fails(str(tmp_path))


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"curator": 1}', b'{"curator": {}}'])
def test_any_other_json_costs_a_sample_nothing(body: bytes, tmp_path: Path) -> None:
    files = [("a.jpg", tars.image_bytes()), ("a.json", body), ("a.txt", b"a text")]
    tars.write(tmp_path, tars.tar(files))
    assert texts_of(open_source(str(tmp_path))) == {"a": ["a text"]}


# -- captions of the user's own -------------------------------------------------------------------


def test_captions_from_a_table_by_sha256(kit: Kit, tmp_path: Path) -> None:
    """Several rows of an image are captions of equal weight; empty ones and strangers are none."""
    rows_of_v2 = open_source(f"{kit.ws.spec}@v2").read(0).rows
    key_of = dict(rows_of_v2.select("key", "image_sha256").rows())
    rows = [("a0", "first"), ("a0", "second"), ("a1", "other"), ("a2", None), ("a3", " ")]
    table = pl.DataFrame(
        {
            "image_sha256": [*(key_of[key] for key, _ in rows), "0" * 64],
            "key": [*("wrong" for _ in rows), "wrong"],
            "truth": [*(text for _, text in rows), "nobody's"],
        }
    )
    table[:2].write_parquet(tmp_path / "0.parquet")
    table[2:].write_parquet(tmp_path / "1.parquet")
    source = open_source(f"{kit.ws.spec}@{tmp_path}/*.parquet:truth")
    assert texts_of(source) == {"a0": ["first", "second"], "a1": ["other"]}
    assert source.read(0).rows["weights"].to_list() == [[0.5, 0.5], [1.0]]
    assert source.read(0).rows["written_by"].to_list() == [["truth", "truth"], ["truth"]]
    assert source.num_samples == 2
    other = open_source(f"{kit.ws.spec}@{tmp_path}/0.parquet:truth")
    assert other.id != source.id
    shuffled = open_source(f"{kit.ws.spec}@{tmp_path}/*.parquet:truth", control="shuffled")
    assert texts_of(shuffled) == {"a1": ["first", "second"], "a0": ["other"]}


def test_without_texts_a_table_leaves_no_image_out(tmp_path: Path) -> None:
    """The baseline without text sees the images of all arms, whoever captioned which."""
    tars.write(tmp_path, tars.tar(tars.samples(3)))
    table = tmp_path / "captions.jsonl"
    table.write_text('{"key": "000000001", "text": "a"}')
    assert open_source(f"{tmp_path}@{table}").num_samples == 1
    images = open_source(f"{tmp_path}@{table}", need_text=False)
    assert images.num_samples == 3
    assert images.id == open_source(str(tmp_path), need_text=False).id


def test_captions_from_a_table_by_key_need_no_store(tmp_path: Path) -> None:
    tars.write(tmp_path, tars.tar(tars.samples(3)))
    lines = [{"key": "000000000", "text": ["a", "b"]}, {"key": "000000002", "text": ["c"]}]
    table = tmp_path / "captions.jsonl"
    table.write_text("\n".join(map(json.dumps, lines)))
    source = open_source(f"{tmp_path}@{table}")
    assert texts_of(source) == {"000000000": ["a", "b"], "000000002": ["c"]}
    assert "there is no column 'texts'" in fails(f"{tmp_path}@{table}:texts")
    assert "'filter-only' chooses from a version" in fails(
        f"{tmp_path}@{table}", control="filter-only"
    )
    table.write_text("\n".join(json.dumps({"text": one["text"]}) for one in lines))
    assert "no column names the images" in fails(f"{tmp_path}@{table}")
    table.write_text('{"key": "000000000", "text": 5}')
    assert "'text' holds Int64, not texts" in fails(f"{tmp_path}@{table}")
    (tmp_path / "other.jsonl").write_text('{"key": "000000001", "text": "b"}')
    table.write_text('{"key": "000000000", "text": ["b"]}')
    assert "the tables name images differently" in fails(f"{tmp_path}@{tmp_path}/*.jsonl")
    table.write_text('{"key": "0", "text": "of a picture that is called otherwise"}')
    assert "key of the first row is 0, of the first image 000000000" in fails(f"{tmp_path}@{table}")
    table.write_text('{"key": "000000000", "text": " "}')
    assert "key of the first row is none, of the first image" in fails(f"{tmp_path}@{table}")
    table.write_text("{")
    assert "the table cannot be read" in fails(f"{tmp_path}@{table}")


def test_a_table_is_read_whole_before_a_column_is_missing(tmp_path: Path) -> None:
    keys = [f"{number:09d}" for number in range(150)]
    tars.write(tmp_path, tars.tar(tars.samples(150)))
    late = [*({"key": key, "uid": "x"} for key in keys[:149]), {"key": keys[149], "long": "late"}]
    lines = tmp_path / "late.jsonl"
    lines.write_text("\n".join(map(json.dumps, late)))
    assert texts_of(open_source(f"{tmp_path}@{lines}:long")) == {keys[149]: ["late"]}
    # in several files: one without the column, one where it is null throughout
    folder = tmp_path / "t"
    folder.mkdir()
    for number, rows in enumerate((late[:2], [{"key": keys[2], "long": None}], late[149:])):
        (folder / f"{number}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        pl.DataFrame(rows).write_parquet(folder / f"{number}.parquet", row_group_size=1)
    for ending in ("jsonl", "parquet"):
        source = open_source(f"{tmp_path}@{folder}/*.{ending}:long")
        assert texts_of(source) == {keys[149]: ["late"]}
        message = fails(f"{tmp_path}@{folder}/*.{ending}:short")
        assert "there is no column 'short'" in message
        assert "columns: key, uid, long" in message  # of all files


def test_the_word_for_a_missing_value_is_no_caption_of_a_table(tmp_path: Path) -> None:
    tars.write(tmp_path, tars.tar(tars.samples(3)))
    words = ["nan", "N/A ", "a nan bread"]
    lines = [{"key": f"{n:09d}", "text": word} for n, word in enumerate(words)]
    table = tmp_path / "captions.jsonl"
    table.write_text("\n".join(map(json.dumps, lines)))
    assert texts_of(open_source(f"{tmp_path}@{table}")) == {"000000002": ["a nan bread"]}


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("shards@t/*.parquet:long", ("shards", "t/*.parquet", "long")),
        ("a@b/shards@t.jsonl", ("a@b/shards", "t.jsonl", "text")),
        ("shards@v2", None),
        ("shards/", None),
        ("shards@tables/x.csv:long", None),
    ],
)
def test_which_specs_name_a_table(spec: str, parts: tuple[str, str, str] | None) -> None:
    assert split_table(spec) == parts


# -- held-out pairs -------------------------------------------------------------------------------


def test_held_out_pairs_are_the_same_images_in_every_version(kit: Kit) -> None:
    usable = open_source(f"{kit.ws.spec}@v1", need_text=False)
    rows = pl.concat([usable.read(0).rows, usable.read(1).rows])
    order = np.argsort(image_hashes(rows["image_sha256"], 7))
    expected = {rows["key"][place] for place in order[:4].tolist()}
    for policy in ("alt", "best", "all", "strict"):
        whole = open_source(f"{kit.ws.spec}@{kit.versions[policy].name}")
        train, held = whole.split(4, seed=7)
        texts = texts_of(whole)
        assert texts_of(held).keys() == expected & texts.keys()
        assert texts_of(train) | texts_of(held) == texts
        assert train.num_samples == len(texts_of(train)) == len(texts) - held.num_samples
        assert train.describe()["held_out"] == held.num_samples
    assert texts_of(open_source(f"{kit.ws.spec}@v2").split(4, seed=8)[1]).keys() != expected


def test_held_out_pairs_keep_their_texts_under_a_control(kit: Kit) -> None:
    plain = open_source(f"{kit.ws.spec}@v3")
    shuffled = open_source(f"{kit.ws.spec}@v3", control="shuffled")
    train, held = shuffled.split(4, seed=7)
    assert texts_of(held) == texts_of(plain.split(4, seed=7)[1])
    assert texts_of(train).items() <= texts_of(shuffled).items()
    reference = f"{kit.ws.spec}@v4"
    fewer = open_source(f"{kit.ws.spec}@v3", control="count-matched", reference=reference)
    assert texts_of(fewer.split(4, seed=7)[1]) == texts_of(held)


def test_copies_of_an_image_are_held_out_together(tmp_path: Path) -> None:
    files = [file for key in "abcdef" for file in tars.sample(key, ord(key))]
    tars.write(tmp_path, tars.tar(files), name="00000")
    tars.write(tmp_path, tars.tar(files), name="00001")
    train, held = open_source(str(tmp_path)).split(2)
    assert held.num_samples == 4
    assert train.num_samples == 8
    assert held.read(0).rows["key"].to_list() == held.read(1).rows["key"].to_list()


def test_a_split_leaves_something_on_both_sides(kit: Kit) -> None:
    source = open_source(f"{kit.ws.spec}@v2")
    with pytest.raises(UsageError, match="held_out is 0; allowed: 1 or more"):
        source.split(0)
    with pytest.raises(UsageError, match="no sample to train on"):
        source.split(100)


PHOTOS = SHARED / "data" / "photos"


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.skipif(not PHOTOS.exists(), reason="the research photos are not here")
def test_real_photos_with_the_captions_of_a_table() -> None:
    """Five human captions or one of a model for 2,000 photos; the same ones are held out."""
    human, blip2 = (
        open_source(f"{PHOTOS}@{PHOTOS}/captions.parquet:{column}")
        for column in ("human_captions", "blip2")
    )
    assert human.num_samples == blip2.num_samples == 2000
    assert {len(texts) for texts in texts_of(human).values()} == {5}
    held = [texts_of(source.split(200)[1]) for source in (human, blip2)]
    assert len(held[0]) == 200
    assert held[0].keys() == held[1].keys()
    options = DataOptions(image_px=64, batch_size=64, captions="all", max_captions=5)
    batch = next(Pipeline(human, options, tokenize=lengths).batches())
    assert len(batch.tokens) == 5 * 64
