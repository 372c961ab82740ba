"""One sample, the health of a dataset, runs, lineage, word changes, thumbnails."""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image

from curator.browse import health
from curator.browse.catalog import Catalog
from curator.browse.lineage import lineage
from curator.browse.runs import runs, unfinished, without_folders
from curator.browse.sample import SampleView, WrittenText
from curator.browse.thumbnails import Thumbnails, placeholder, shrink
from curator.compare.marks import word_changes
from curator.core.errors import Unusable, UsageError
from curator.core.stopping import StopRequest
from curator.edits import log as edit_log
from curator.edits.apply import HUMAN
from curator.edits.history import Draft, SampleRef
from curator.policy.model import ALT_TEXT
from curator.steps.apply_edits import apply
from curator.store.facts import CAPTIONS, SCORES, Facts
from curator.store.runs import open_run
from tests.kit.store import (
    GENERATOR,
    GENERATOR_RECIPE,
    SCORER,
    Kit,
    Row,
    add_facts,
    image,
    maker_name,
    open_kit,
    score_fact,
    small_store,
)


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    return small_store(tmp_path_factory.mktemp("store") / "shards")


def sample(kit: Kit, shard: str, row: int, version: str = "best") -> SampleView:
    return Catalog(kit.ws.store, kit.versions[version]).sample(shard, row)


def text(view: SampleView, source: str) -> WrittenText:
    (found,) = [one for one in view.texts if one.source == source]
    return found


# -- one sample ------------------------------------------------------------------------------------


def test_a_sample_has_all_its_texts_the_chosen_one_first(kit: Kit) -> None:
    view = sample(kit, "00000", 0)
    assert (view.key, view.action, view.because) == ("a0", "captioned", "best of 2")
    assert [one.source for one in view.texts] == [GENERATOR, ALT_TEXT]
    chosen = view.texts[0]
    assert (chosen.text, chosen.chosen, chosen.weight) == ("two dogs running on a beach", True, 1.0)
    assert [(one.scorer, one.score) for one in chosen.judgements] == [(SCORER, pytest.approx(0.32))]
    assert (chosen.made["seed"], chosen.made["finish_reason"]) == (0, "stop")
    assert text(view, ALT_TEXT).judgements[0].score == pytest.approx(0.30)
    assert view.recipes[GENERATOR] == GENERATOR_RECIPE
    assert view.facts["image_format"] == "JPEG"
    assert view.edits == ()


def test_a_caption_that_failed_says_why(kit: Kit) -> None:
    failed = text(sample(kit, "00000", 4), GENERATOR)
    assert (failed.text, failed.failure, failed.detail) == (None, "vlm.refusal", "it said no")


def test_a_broken_image_still_has_a_page(kit: Kit) -> None:
    view = sample(kit, "00001", 2)
    assert (view.action, view.because) == ("quarantined", "image.truncated")
    assert all(one.text is None for one in view.texts)


def test_a_text_that_both_wrote_is_chosen_twice(kit: Kit) -> None:
    view = sample(kit, "00001", 1)
    assert {one.source: one.chosen for one in view.texts} == {ALT_TEXT: True, GENERATOR: True}


def test_sentences_and_flags_come_along(tmp_path: Path) -> None:
    kit = open_kit(tmp_path / "shards", {"s": (Row("x", "A cat. A dog.", None, 0.3),)})
    fact = score_fact(image("x"), "A cat. A dog.", 0.4)
    parts = [{"start": 0, "end": 6, "score": 0.5}, {"start": 7, "end": 13, "score": 0.1}]
    two = maker_name("clip-two", {"scorer": "clip"})
    add_facts(Facts(kit.ws.store, SCORES, two), "s", [{**fact, "sentences": parts}])
    kit.ws.store.write_recipe(SCORES, two, {"scorer": "clip"})
    kit.decide("alt")
    judged = {one.scorer: one for one in sample(kit, "s", 0, "alt").texts[0].judgements}
    assert judged[two].sentences == (
        (0, 6, pytest.approx(0.5)),
        (7, 13, pytest.approx(0.1)),
    )
    assert judged[SCORER].sentences == ()


@pytest.mark.parametrize(("shard", "row"), [("00000", 6), ("00000", -1), ("00009", 0)])
def test_an_unknown_sample(kit: Kit, shard: str, row: int) -> None:
    with pytest.raises(UsageError):
        sample(kit, shard, row)


def test_edits_show_up_and_their_version_stands_on_its_base(tmp_path: Path) -> None:
    kit = small_store(tmp_path / "shards", ["best"])
    store, base = kit.ws.store, kit.versions["best"]
    row = sample(kit, "00000", 1)
    about = SampleRef(shard="00000", row=1, key="a1", image_sha256=row.facts["image_sha256"])
    draft = Draft(
        sample=about, action="edit", base_text="a man in a red hat", new_text="a man in a hat"
    )
    edit_log.add(store, draft, who="Ann")
    kit.versions["edited"] = apply(store, base, who="Ann", stop=StopRequest()).version
    view = sample(kit, "00000", 1, "edited")
    assert [(one.who, one.new_text) for one in view.edits] == [("Ann", "a man in a hat")]
    assert [(one.source, one.text) for one in view.texts if one.chosen] == [
        (HUMAN, "a man in a hat")
    ]
    nodes = lineage(store)
    assert [(node.version.name, node.base and node.base.name) for node in nodes] == [
        ("v1", None),
        ("v2", "v1"),
    ]


def test_lineage_knows_tags_and_that_decisions_stand_on_facts(kit: Kit) -> None:
    kit.ws.store.tag("good", kit.versions["best"])
    nodes = lineage(kit.ws.store)
    assert [(node.version.name, node.base, node.tags) for node in nodes] == [
        ("v1", None, ()),
        ("v2", None, ("good",)),
        ("v3", None, ()),
        ("v4", None, ()),
    ]


# -- health ----------------------------------------------------------------------------------------


def test_lengths_are_in_words_by_source(kit: Kit) -> None:
    columns = Catalog(kit.ws.store, kit.versions["best"]).columns
    generated, alt = health.lengths(columns)
    # alt: "a man riding a bike" 5, "A plate with 3 apples" 5, "Three kids with Anna in Paris" 6
    assert (alt.source, alt.num_texts, alt.quartiles) == (ALT_TEXT, 3, (5.0, 5.0, 6.0))
    assert (alt.counts[5], alt.counts[6], sum(alt.counts)) == (2, 1, 3)
    assert (generated.source, generated.num_texts) == (GENERATOR, 6)


def test_failures_are_those_that_nothing_mended(kit: Kit) -> None:
    shelf = Catalog(kit.ws.store, kit.versions["best"]).shelf
    (failed,) = health.failures(kit.ws.store, shelf)
    assert (failed.kind, failed.maker) == (CAPTIONS, GENERATOR)
    assert failed.reasons == {"vlm.refusal": 1}


def test_a_failure_that_a_later_attempt_mended_does_not_count(tmp_path: Path) -> None:
    row = Row("x", "a cat", None, failure="vlm.empty")
    kit = open_kit(tmp_path / "shards", {"s": (row,)})
    facts = Facts(kit.ws.store, CAPTIONS, GENERATOR)
    again = {
        **facts.read(_image_frame("x")).row(0, named=True),
        "text": "a cat",
        "text_sha256": "0" * 64,
        "failure": None,
        "attempt": 1,
    }
    add_facts(facts, "s", [again])
    catalog = Catalog(kit.ws.store, kit.decide("alt"))
    assert health.failures(kit.ws.store, catalog.shelf) == []


def _image_frame(key: str) -> pl.DataFrame:
    sha = hashlib.sha256(image(key)).hexdigest()
    return pl.DataFrame(
        {"image_sha256": [sha], "candidate": [0]},
        {"image_sha256": pl.String, "candidate": pl.Int16},
    )


def test_examples_of_placeholders(kit: Kit) -> None:
    prefix = hashlib.sha256(image("b1")).hexdigest()[:16]
    assert health.examples(kit.ws, [prefix, "f" * 16]) == {prefix: ("00001", 1)}


# -- runs ------------------------------------------------------------------------------------------


def test_runs_newest_first_with_their_end(kit: Kit) -> None:
    with open_run(kit.ws.store, "score", {"policy": "x"}) as run:
        run.progress("score (clip)", 3, 10)
        run.write()
        (now,) = runs(kit.ws.store, limit=1)
        assert (now.verb, now.status, now.ended) == ("score", "running", None)
        assert [(stage.name, stage.share) for stage in now.stages] == [("score (clip)", 0.3)]
    with pytest.raises(UsageError), open_run(kit.ws.store, "decide", {}):
        raise UsageError("no such thing", where="/home/ann/secret/photos")
    found = {run.verb: run for run in runs(kit.ws.store)}
    assert (found["score"].status, found["decide"].status) == ("done", "failed")
    assert found["decide"].error == "no such thing in …/photos"
    assert unfinished(kit.ws.store) == {}


def test_a_run_whose_process_is_gone_has_died(tmp_path: Path, kit: Kit) -> None:
    store = kit.ws.store
    folder = store.root / "runs" / "29990101T000000Z-score-000000"
    folder.mkdir()
    state = {"verb": "score", "status": "running", "started": 0.0, "pid": 2**22 + 1}
    path = folder / "run.json"
    path.write_text(json.dumps(state))
    assert runs(store, limit=1)[0].status == "running"  # on another machine, perhaps
    os.utime(path, (0, 0))
    assert runs(store, limit=1)[0].status == "died"
    path.write_text("{")
    assert runs(store, limit=1)[0].status == "damaged"
    path.unlink()
    assert "29990101T000000Z-score-000000" not in [run.name for run in runs(store)]


def test_unfinished_journals_are_counted_by_maker(tmp_path: Path) -> None:
    kit = open_kit(tmp_path / "shards")
    path = kit.ws.store.journal_path(SCORES, SCORER, "deep/00000")
    path.parent.mkdir(parents=True)
    path.touch()
    assert unfinished(kit.ws.store) == {SCORER: 1}


def test_folders_are_taken_out_of_messages() -> None:
    told = "cannot read /a/b c/d.tar in '/home/x/y.parquet', see and/or http://host/p/q and 3/4"
    shown = without_folders(told)
    assert "/home/x" not in shown
    assert "y.parquet" in shown
    assert "and/or" in shown
    assert "3/4" in shown


# -- words -----------------------------------------------------------------------------------------


def test_word_changes_by_hand() -> None:
    assert word_changes("a red car on a street", "A red car, near a house") == [
        ("same", "A red car,"),
        ("removed", "on"),
        ("added", "near"),
        ("same", "a"),
        ("removed", "street"),
        ("added", "house"),
    ]
    assert word_changes("one two", "three four") == [
        ("removed", "one two"),
        ("added", "three four"),
    ]
    assert word_changes("", "new") == [("added", "new")]
    assert word_changes("", "") == []


_TEXT = some.lists(some.sampled_from(["a", "b", "C", "d.", "(e)", "f"]), max_size=12).map(" ".join)


@given(old=_TEXT, new=_TEXT)
def test_word_changes_lose_no_word(old: str, new: str) -> None:
    changes = word_changes(old, new)
    kept = [words for kind, words in changes if kind != "removed"]
    before = [words for kind, words in changes if kind != "added"]
    assert " ".join(kept).split() == new.split()
    bare = [word.casefold().strip(".()") for word in " ".join(before).split()]
    assert bare == [word.casefold().strip(".()") for word in old.split()]
    assert all(words for _, words in changes)


# -- thumbnails ------------------------------------------------------------------------------------


def _size(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "JPEG"
        return picture.size


def _picture(width: int, height: int) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(sink, "JPEG")
    return sink.getvalue()


@pytest.mark.parametrize(
    ("size", "shown"), [((1000, 500), (256, 128)), ((100, 50), (100, 50)), ((300, 3000), (26, 256))]
)
def test_shrink(size: tuple[int, int], shown: tuple[int, int]) -> None:
    assert _size(shrink(_picture(*size), 256)) == shown


def test_shrink_refuses_what_is_no_picture() -> None:
    with pytest.raises(Unusable):
        shrink(b"<svg onload=alert(1)>", 256)


def test_thumbnails_come_in_the_order_they_were_asked_for(kit: Kit) -> None:
    pictures = Thumbnails(kit.ws)
    places = [("00001", 3), ("00000", 0), ("00001", 3), ("00001", 2)]
    found = pictures.many(places, side_px=64)
    assert found[0] == found[2] == pictures.get("00001", 3, side_px=64)
    assert found[1] != found[0]
    with Image.open(io.BytesIO(found[1])) as shown, Image.open(io.BytesIO(image("a0"))) as whole:
        close = zip(shown.getpixel((5, 5)), whole.convert("RGB").getpixel((5, 5)), strict=True)
        assert all(abs(a - b) <= 8 for a, b in close)
    assert _size(found[3]) == (64, 48)  # b2 is cut off: the grey one


def test_thumbnails_keep_no_more_than_they_may(kit: Kit) -> None:
    pictures = Thumbnails(kit.ws, max_bytes=1500)
    for _ in range(2):
        for row in range(6):
            pictures.get("00000", row, side_px=64)
    kept = pictures._kept.values()
    assert 0 < sum(map(len, kept)) == pictures._num_bytes <= 1500


def test_a_shard_that_is_gone_is_a_grey_picture(tmp_path: Path) -> None:
    kit = open_kit(tmp_path / "shards")
    kit.ws.ref("00000").path.unlink()
    assert _size(Thumbnails(kit.ws).get("00000", 0)) == (256, 192)
    with pytest.raises(UsageError):
        Thumbnails(kit.ws).get("00000", 6)


@pytest.mark.long
def test_another_picture_at_the_same_place_is_not_shown(tmp_path: Path) -> None:
    kit = open_kit(tmp_path / "shards")
    before = Thumbnails(kit.ws).get("00000", 0, side_px=64)
    path = kit.ws.ref("00000").path
    path.touch()  # another time, the same bytes
    assert Thumbnails(kit.ws).get("00000", 0, side_px=64) == before
    path.write_bytes(path.read_bytes().replace(image("a0"), image("a1")[: len(image("a0"))]))
    assert Thumbnails(kit.ws).get("00000", 0, side_px=64) == placeholder("source.changed", 64)
