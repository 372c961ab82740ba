"""Two versions side by side: the numbers, the examples and the report.

Expected numbers are worked out by hand from the ten samples of `tests.kit.store`.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from curator.compare.diff import changes, diff, gate, mean_shift, to_json
from curator.compare.html import render_html
from curator.compare.text import WIDTH, render_text, verdict
from curator.compare.values import Change, ComparedText, Diff
from curator.core.errors import UsageError
from curator.core.stopping import StopRequest
from curator.shards.dataset import Dataset
from curator.shards.scan import ScanOptions
from curator.steps.index import make_index
from curator.store.facts import SCORES, Facts
from tests.kit import store as storekit
from tests.kit import tars
from tests.kit.store import Kit, Row


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    return storekit.small_store(tmp_path_factory.mktemp("compare") / "shards")


def compare(kit: Kit, old: str, new: str, **options: object) -> Diff:
    return diff(kit.ws.store, kit.versions[old], kit.versions[new], **options)  # type: ignore[arg-type]  # kwargs


def keys(examples: tuple[Change, ...]) -> list[str]:
    return [change.key for change in examples]


# -- counts ---------------------------------------------------------------------------------------


def test_counts_from_alt_texts_to_the_best(kit: Kit) -> None:
    found = compare(kit, "alt", "best")
    assert found.old.counts == {"captioned": 0, "kept": 8, "dropped": 1, "quarantined": 1}
    assert found.new.counts == {"captioned": 6, "kept": 3, "dropped": 0, "quarantined": 1}
    # b1 is "captioned" with the very words of its alt text, so it moved but did not change.
    assert found.transitions == {
        "captioned": {},
        "kept": {"captioned": 5, "kept": 3},
        "dropped": {"captioned": 1},
        "quarantined": {"quarantined": 1},
    }
    assert found.num_changed == {"reworded": 4, "gained": 1, "lost": 0}
    assert (found.num_unchanged, found.num_common) == (5, 10)
    assert found.old.sources == {"alt_text": 8}
    assert found.new.sources == {"alt_text": 3, storekit.GENERATOR: 6}
    assert (found.only_old, found.only_new) == (0, 0)


def test_scores_of_both_sides_under_one_scorer(kit: Kit) -> None:
    # "alt" never used a scorer; its texts are judged by that of "best" all the same.
    scores = compare(kit, "alt", "best").scores
    assert scores is not None
    assert scores.scorer == storekit.SCORER
    assert scores.is_chooser
    # .30 .05 .31 .26 .08 .29 .33 .20 and .32 .28 .31 .27 .26 .30 .29 .33 .24
    assert (scores.old.n, scores.new.n) == (8, 9)
    assert scores.old.mean == pytest.approx(1.82 / 8)
    assert scores.new.mean == pytest.approx(2.60 / 9)
    assert scores.old.quartiles == pytest.approx((0.08, 0.26, 0.30))
    assert scores.new.quartiles == pytest.approx((0.27, 0.29, 0.31))
    assert scores.old.histogram[105] == 1  # 0.05 to 0.06
    assert sum(scores.new.histogram) == 9
    # a0 +.02, a1 +.23, a5 +.22, b3 +.04: too few for an interval.
    assert scores.paired.n == 4
    assert scores.paired.mean == pytest.approx(0.51 / 4)
    assert (scores.paired.improved, scores.paired.worse) == (1.0, 0.0)
    assert scores.paired.low is None


def test_lengths_and_names(kit: Kit) -> None:
    found = compare(kit, "alt", "best")
    assert found.old_lengths.mean == pytest.approx(35 / 8)  # 8 1 5 5 4 6 3 3
    assert found.new_lengths.mean == pytest.approx(49 / 9)  # 6 6 5 5 5 5 6 3 8
    assert found.old_lengths.histogram == (0, 1, 0, 2, 1, 2, 1, 0, 1)
    # Brighton, Anna, Paris; two, 3 and three. "two" stays in a0's caption, Brighton does not.
    names = found.new_names
    assert (names.num_names, names.lost_names) == (3, 1)
    assert (names.num_numbers, names.lost_numbers) == (3, 0)
    assert names.share == pytest.approx(1 / 6)
    assert found.old_names.share == 0.0
    (example,) = found.lost
    assert (example.key, example.items) == ("a0", ("Brighton",))


def test_samples_with_several_texts_are_compared_as_sets(kit: Kit) -> None:
    found = compare(kit, "best", "all")
    # a3, a4 and b1 have the one text they had; b2 still has none.
    assert found.num_changed == {"reworded": 6, "gained": 0, "lost": 0}
    assert found.num_unchanged == 4
    assert found.new.num_texts == 15
    # Slot 0 of "all" is the alt text: a1 falls from .28 to .05, a2 keeps its first text.
    assert keys(found.losses) == ["a1", "a5", "b3", "a0"]
    assert keys(found.gains) == []
    one = next(c for c in found.picked if c.key == "a2")
    assert [text.text for text in one.new] == ["a man riding a bike", "a man on a bicycle"]
    assert one.gain == 0.0


def test_another_order_of_the_same_texts_is_no_change(kit: Kit) -> None:
    text = storekit.POLICIES["all"].replace('"alt_text", "generated"', '"generated", "alt_text"')
    kit.decide(text.replace('name = "all"', 'name = "reversed"'))
    found = compare(kit, "all", "reversed")
    assert found.num_unchanged == 10
    assert not found.picked


def test_changes_are_all_of_them_in_order(kit: Kit) -> None:
    store, versions = kit.ws.store, kit.versions
    found = list(changes(store, versions["alt"], versions["strict"]))
    assert [(c.shard, c.key, c.kind) for c in found] == [
        ("00000", "a1", "lost"),
        ("00000", "a4", "lost"),
        ("00000", "a5", "lost"),
        ("00001", "b3", "lost"),
    ]
    assert found[0].old == (
        ComparedText(text="IMG_2034.JPG", source="alt_text", score=pytest.approx(0.05)),
    )
    assert found[0].new == ()
    assert (found[0].new_action, found[0].because) == ("dropped", "alt_text: aligned")
    assert found[0].gain is None
    (gained,) = [c for c in changes(store, versions["alt"], versions["best"]) if not c.old]
    assert (gained.key, gained.kind, gained.old_action) == ("a3", "gained", "dropped")


def test_examples_are_bounded_best_first_and_seeded(kit: Kit) -> None:
    found = compare(kit, "alt", "best", num_examples=2)
    assert keys(found.gains) == ["a1", "a5"]
    assert keys(found.losses) == []
    again = compare(kit, "alt", "best", num_examples=2)
    assert to_json(found) == to_json(again)
    picks = {
        tuple(keys(compare(kit, "alt", "best", num_examples=2, seed=s).picked)) for s in range(9)
    }
    assert len(picks) > 1


# -- other shards and other bytes -----------------------------------------------------------------


def test_shards_in_one_version_only(tmp_path: Path) -> None:
    kit = storekit.small_store(tmp_path, ["alt"])
    whole = kit.ws.dataset
    kit.ws = dataclasses.replace(kit.ws, dataset=Dataset(whole.root, whole.shards[1:]))
    kit.decide(storekit.POLICIES["alt"].replace('"alt"', '"half"'))
    found = compare(kit, "alt", "half")
    assert (found.shards_added, found.shards_removed) == ((), ("00000",))
    assert (found.only_old, found.only_new, found.num_unchanged) == (6, 0, 4)
    assert compare(kit, "half", "alt").shards_added == ("00000",)
    assert list(changes(kit.ws.store, kit.versions["alt"], kit.versions["half"])) == []


def test_samples_are_matched_by_key_when_rows_moved(tmp_path: Path) -> None:
    kit = storekit.small_store(tmp_path, ["alt"])
    first = Row("a_", "a new one in front")
    storekit.write_shards(tmp_path, {"00000": (first, *storekit.SHARDS["00000"])})
    make_index(kit.ws, ScanOptions(), stop=StopRequest())
    kit.decide(storekit.POLICIES["alt"].replace('"alt"', '"moved"'))
    found = compare(kit, "alt", "moved")
    assert found.shards_changed == ("00000",)
    assert (found.only_new, found.num_unchanged, sum(found.num_changed.values())) == (1, 10, 0)


def test_a_key_that_repeats_matches_one_to_one(tmp_path: Path) -> None:
    # The files of "k" are not adjacent: two fragments with one key, both in quarantine.
    files = [("k.jpg", storekit.image("k")), ("m.jpg", storekit.image("m")), ("m.txt", b"text")]
    (tmp_path / "00000.tar").write_bytes(tars.tar([*files, ("k.txt", b"text of k")]))
    kit = Kit(storekit.open_workspace(str(tmp_path), None, create=True))
    make_index(kit.ws, ScanOptions(), stop=StopRequest())
    kit.decide("alt")
    found = compare(kit, "alt", "alt")
    assert (found.num_common, found.num_unchanged) == (3, 3)
    assert found.transitions["quarantined"] == {"quarantined": 2}


# -- which scores ---------------------------------------------------------------------------------


def test_an_unknown_scorer_is_named(kit: Kit) -> None:
    with pytest.raises(UsageError, match="did you mean"):
        compare(kit, "alt", "best", scorer="clip-tiny")


def test_a_text_scorer_is_never_taken_by_itself(tmp_path: Path) -> None:
    kit = storekit.small_store(tmp_path, ["alt"])
    recipe = {"scorer": "text", "rules": 1}
    kit.ws.store.write_recipe(SCORES, storekit.maker_name("text", recipe), recipe)
    scores = compare(kit, "alt", "alt").scores
    assert scores is not None
    assert scores.scorer == storekit.SCORER
    assert not scores.is_chooser


def test_without_a_scorer_there_are_no_scores(tmp_path: Path) -> None:
    storekit.write_shards(tmp_path)
    kit = Kit(storekit.open_workspace(str(tmp_path), None, create=True))
    make_index(kit.ws, ScanOptions(), stop=StopRequest())
    kit.decide("alt")
    found = compare(kit, "alt", "alt")
    assert found.scores is None
    assert "Scores: none" in render_text(found)
    assert "never scored" in render_html(found, {})
    assert gate(found, min_mean_score_shift=0.0) == [
        "the mean score cannot be compared: a version has no scores"
    ]


def test_a_text_after_surgery_has_the_score_of_the_decision(tmp_path: Path) -> None:
    alt = "A dog runs. Buy now."
    kit = storekit.open_kit(tmp_path, {"00000": (Row("a", alt),)})
    fact = storekit.score_fact(storekit.image("a"), alt, 0.20) | {
        "sentences": [
            {"start": 0, "end": 11, "score": 0.31},
            {"start": 12, "end": 20, "score": 0.09},
        ]
    }
    storekit.add_facts(Facts(kit.ws.store, SCORES, storekit.SCORER), "00000", [fact])
    kit.decide("alt")
    kit.decide(storekit.POLICIES["alt"].replace('"alt"', '"cut"') + "[surgery]\nmin_score = 0.2\n")
    (change,) = changes(kit.ws.store, kit.versions["alt"], kit.versions["cut"])
    assert change.new[0].text == "A dog runs."
    assert change.gain == pytest.approx(0.11)


# -- gate, verdict, report ------------------------------------------------------------------------


def test_gate(kit: Kit) -> None:
    better, stricter = compare(kit, "alt", "best"), compare(kit, "alt", "strict")
    assert gate(better) == []
    assert mean_shift(better) == pytest.approx(2.60 / 9 - 1.82 / 8)
    limits = {"max_dropped_share": 0.2, "min_mean_score_shift": 0.06, "max_lost_names_share": 0.2}
    assert gate(better, **limits) == []
    assert gate(better, min_mean_score_shift=0.07, max_lost_names_share=0.1) == [
        "the mean score changed by +0.0614; the minimum is +0.0700",
        "16.7% of the names and numbers are lost; the limit is 10.0%",
    ]
    assert gate(stricter, **limits) == ["50.0% of the samples are dropped; the limit is 20.0%"]


def test_verdict_says_better_only_beyond_noise(kit: Kit) -> None:
    assert verdict(compare(kit, "alt", "alt")) == "v1 and v1 hold the same captions."
    found = compare(kit, "alt", "best")
    assert verdict(found) == (
        "5 of 10 samples changed their text (1 gained one): the mean score by the scorer that "
        "chose them is 0.289 over 9 texts (was 0.228 over 8); texts have 5.4 words on average "
        "(was 4.4); 17% of the names and numbers in the alt texts are missing (was 0%)."
    )
    assert verdict(compare(kit, "alt", "strict")).startswith("4 of 10 samples lost their text: ")
    assert verdict(compare(kit, "strict", "alt")).startswith("4 of 10 samples gained a text: ")
    assert found.scores is not None
    for low, high, words in (
        (0.1, 0.2, "score 0.150 ± 0.050 higher"),
        (-0.2, -0.1, "score 0.150 ± 0.050 lower"),
        (-0.1, 0.1, "score about the same, +0.000 ± 0.100"),
    ):
        paired = dataclasses.replace(
            found.scores.paired, low=low, high=high, mean=(low + high) / 2, n=9
        )
        scores = dataclasses.replace(found.scores, paired=paired)
        assert f"{words} (95 %, n = 9)" in verdict(dataclasses.replace(found, scores=scores))


@pytest.mark.parametrize("pair", [("alt", "best"), ("best", "all"), ("alt", "strict")])
def test_the_report_fits_a_terminal(kit: Kit, pair: tuple[str, str]) -> None:
    text = render_text(compare(kit, *pair))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert text.endswith("\n")


def test_the_report_shows_what_counts(kit: Kit) -> None:
    text = render_text(compare(kit, "alt", "best"))
    for piece in (
        "in both 10: 5 unchanged, 4 reworded, 1 gained, 0 lost",
        "kept → captioned 5, kept 3",
        "+0.230  00000/a1",
        "- IMG_2034.JPG",
        "+ a man in a red hat",
        "- (dropped)",
        "Brighton: Two dogs run",
    ):
        assert piece in text


def test_captions_cannot_drive_the_terminal(tmp_path: Path) -> None:
    evil = "a \x1b[31mred\x1b[0m car\x07 \u202eevil\u202c in \u200bParis"
    kit = storekit.open_kit(tmp_path, {"00000": (Row("a", "a car", evil, 0.1, 0.2),)})
    kit.decide("alt")
    kit.decide("best")
    text = render_text(compare(kit, "alt", "best"))
    assert all(line.isprintable() for line in text.split("\n"))
    assert r"\x1b[31mred" in text


def test_json_is_the_whole_comparison(kit: Kit) -> None:
    found = compare(kit, "alt", "best")
    read = json.loads(to_json(found))
    assert read["num_changed"] == {"gained": 1, "lost": 0, "reworded": 4}
    assert read["gains"][0]["new"][0]["text"] == "a man in a red hat"
    assert set(read) == {field.name for field in dataclasses.fields(Diff)}
