"""Thresholds from labels: hand-worked, from a table and from blind ratings, and bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from curator.core.errors import NotFoundError, UsageError
from curator.core.hashing import text_sha256
from curator.ratings import log as rating_log
from curator.steps.calibrate import Labels, calibrate, labels_of_ratings, labels_of_table
from curator.store.facts import SCORES, Facts
from tests.kit.cli import curator
from tests.kit.store import (
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
    return small_store(tmp_path_factory.mktemp("calibrate") / "shards", policies=())


def named(label: str) -> str:
    return maker_name("clip", {"scorer": "clip", "model": label})


def labelled(kit: Kit, label: str, rows: list[tuple[str, float | None, bool]]) -> Labels:
    """Give each text its score, for an image of its own."""
    facts = Facts(kit.ws.store, SCORES, named(label))
    kit.ws.store.write_recipe(SCORES, named(label), {"scorer": "clip", "model": label})
    add_facts(facts, "00000", [score_fact(t.encode(), t, s) for t, s, _ in rows if s is not None])
    texts = pl.DataFrame(
        [
            {
                "image_sha256": str(score_fact(t.encode(), t, 0.0)["image_sha256"]),
                "text_sha256": text_sha256(t),
                "right": right,
            }
            for t, _, right in rows
        ]
    )
    return Labels(texts=texts, source="a test", skipped={})


def test_a_clean_cut_is_found(kit: Kit) -> None:
    """Right texts score 0.6 or 0.8, wrong ones 0.2 or 0.4: the threshold is 0.6, nothing wrong."""
    rows: list[tuple[str, float | None, bool]] = [
        (f"text {i}", (0.6, 0.8, 0.2, 0.4)[i % 4], i % 4 < 2) for i in range(160)
    ]
    labels = labelled(kit, "clean", [*rows, ("unscored", None, True)])
    found = calibrate(kit.ws, labels, named("clean"))
    assert found.threshold == pytest.approx(0.6)
    assert (found.num_right, found.num_wrong, found.skipped) == (80, 80, {"no score": 1})
    assert (found.auroc.value, found.precision.value, found.recall.value) == (1.0, 1.0, 1.0)
    assert found.precision.high == 1.0
    assert found.precision.low is not None
    assert found.precision.low < 1.0
    assert found.recall.of + found.num_chosen_on < 160


def test_precision_asks_for_the_lowest_threshold(kit: Kit) -> None:
    """At 0.9 all are right, at 0.5 one in two: 0.95 needs 0.9, and 0.4 is content with 0.5."""
    rows: list[tuple[str, float | None, bool]] = [
        (f"sure {i}", (0.9, 0.5, 0.5, 0.1)[i % 4], i % 4 < 2) for i in range(400)
    ]
    labels = labelled(kit, "half", rows)
    strict = calibrate(kit.ws, labels, named("half"), min_precision=0.95)
    loose = calibrate(kit.ws, labels, named("half"), min_precision=0.6)
    assert (strict.threshold, loose.threshold) == (pytest.approx(0.9), pytest.approx(0.5))
    assert strict.precision.value == 1.0
    assert strict.recall.value == pytest.approx(0.5, abs=0.1)
    few = Labels(texts=labels.texts.head(6), source="a test", skipped={})
    with pytest.raises(UsageError, match="needs"):
        calibrate(kit.ws, few, named("half"))
    flipped = labels.texts.with_columns(~pl.col("right"))
    wrong = Labels(texts=flipped, source="a test", skipped={})
    with pytest.raises(UsageError, match="no threshold") as caught:
        calibrate(kit.ws, wrong, named("half"), min_precision=0.99)
    assert caught.value.reason == "labels.precision"


def test_the_interval_covers_a_known_auroc(kit: Kit) -> None:
    """Scores of two normals one deviation apart: the AUROC is 0.760 (Phi of 1 / sqrt 2)."""
    rng = np.random.default_rng(1)
    rows: list[tuple[str, float | None, bool]] = [
        (f"normal {i}", float(rng.normal(i % 2)), bool(i % 2)) for i in range(600)
    ]
    found = calibrate(kit.ws, labelled(kit, "norm", rows), named("norm"))
    assert found.auroc.low is not None
    assert found.auroc.high is not None
    assert found.auroc.low < 0.760 < found.auroc.high
    assert found.auroc.high - found.auroc.low < 0.1


def test_labels_of_a_table(kit: Kit, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("key,label\na0,match\na1,0\na3,1\nzz,1\na2,\n", "utf-8")
    found = labels_of_table(kit.ws, table)
    assert found.texts["text_sha256"].to_list() == [
        text_sha256("Two dogs run on the beach near Brighton"),
        text_sha256("IMG_2034.JPG"),
    ]
    assert found.texts["right"].to_list() == [True, False]
    assert found.skipped == {"no label": 1, "no such key": 1, "no text": 1}
    pl.DataFrame({"key": ["a3"], "text": ["a cat"], "label": [True]}).write_parquet(
        tmp_path / "labels.parquet"
    )
    of_texts = labels_of_table(kit.ws, tmp_path / "labels.parquet").texts
    assert of_texts.row(0)[1:] == (text_sha256("a cat"), True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("key,text\na0,x\n", "no column 'label'"),
        ("key,label\na0,perhaps\n", "'perhaps' is neither right nor wrong"),
        ("key,label\nb99,1\n", "none of the 1 keys"),
    ],
)
def test_bad_tables(kit: Kit, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "labels.csv").write_text(text, "utf-8")
    with pytest.raises(UsageError, match=said):
        labels_of_table(kit.ws, tmp_path / "labels.csv")
    with pytest.raises(NotFoundError):
        labels_of_table(kit.ws, tmp_path / "none.csv")


def test_a_labelled_key_in_two_shards_is_refused(tmp_path: Path) -> None:
    """Also where it is not the first such key of the dataset."""
    rows = (Row("x", "one"), Row("y", "two"))
    kit = open_kit(tmp_path / "shards", {"00000": (*rows, Row("z", "three")), "00001": rows})
    table = tmp_path / "labels.csv"
    table.write_text("key,label\ny,1\nz,0\n", "utf-8")
    with pytest.raises(UsageError, match="the key 'y' is in the dataset twice"):
        labels_of_table(kit.ws, table)
    table.write_text("key,label\nz,0\n", "utf-8")
    assert labels_of_table(kit.ws, table).texts["right"].to_list() == [False]


def test_labels_of_ratings(tmp_path: Path) -> None:
    kit = small_store(tmp_path / "shards", policies=())
    with pytest.raises(UsageError, match="no blind ratings"):
        labels_of_ratings(kit.ws)
    digest = score_fact(image("a0"), "x", 0.0)["image_sha256"]

    def rate(left: str, right: str, answer: rating_log.Answer, who: str) -> None:
        shown = rating_log.ShownPair(
            image_sha256=str(digest), left=left, right=right, shard="00000", key="a0"
        )
        rating_log.add(kit.ws.store, shown, answer, who)

    rate("good", "poor", "left", "Ann")
    rate("good", "poor", "left", "Bob")
    rate("good", "other", "right", "Ann")
    rate("one", "two", "equal", "Ann")
    rate("bad", "worse", "both_bad", "Ann")
    rate("split", "poor", "left", "Ann")
    rate("split", "halved", "right", "Ann")
    found = labels_of_ratings(kit.ws)
    said = dict(found.texts.select("text_sha256", "right").iter_rows())
    texts = {text_sha256(t): t for t in ("good", "poor", "other", "bad", "worse", "halved")}
    assert {texts[key]: right for key, right in said.items()} == {
        "good": True,  # twice for, once against
        "poor": False,
        "other": True,
        "bad": False,
        "worse": False,
        "halved": True,
    }
    assert found.skipped == {"rated equal": 1, "raters disagree": 1}


def test_the_command_says_how_to_go_on(kit: Kit, tmp_path: Path) -> None:
    said = curator("calibrate", kit.ws.spec, "--use-scorer", "vqa")
    assert said.code != 0
    assert "scorer.none" in said.err
    (tmp_path / "labels.csv").write_text("key,label\na0,1\n", "utf-8")
    options = ("--labels", tmp_path / "labels.csv", "--use-scorer", SCORER)
    said = curator("calibrate", kit.ws.spec, *options)
    assert "labels.few" in said.err
