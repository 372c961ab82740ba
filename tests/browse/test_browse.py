"""One version to look through, over the ten samples of `tests.kit.store`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from curator.browse import columns, languages
from curator.browse.catalog import Catalog, Page
from curator.browse.filters import SORTS, Filter, Sort
from curator.core import hashing
from curator.core.errors import DamageError, UsageError
from curator.scorers import language
from curator.store.facts import SCORES, Facts
from tests.kit.store import GENERATOR, Kit, Row, add_facts, image, maker_name, open_kit, small_store

# What `best` chooses (higher score of alt text and caption, see storekit), by hand:
#   a0 generated .32 (alt .30)   a1 generated .28 (.05)   a2 alt .31   a3 generated .27 (no alt)
#   a4 alt .26 (caption failed)  a5 generated .30 (.08)   b0 alt .29   b1 the same text twice, .33
#   b2 cut off                   b3 generated .24 (.20)


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    found = small_store(tmp_path_factory.mktemp("store") / "shards")
    recipe = {"scorer": "text", "language": "en"}
    checker = maker_name("text-en", recipe)
    add_facts(
        Facts(found.ws.store, SCORES, checker),
        "00000",
        [_check("a man in a red hat", ["spam"]), _check("a man riding a bike", ["spam", "url"])],
    )
    found.ws.store.write_recipe(SCORES, checker, recipe)
    return found


def _check(text: str, flags: list[str]) -> Mapping[str, object]:
    return {
        "image_sha256": "",
        "text_sha256": hashing.text_sha256(text),
        "score": 1.0,
        "num_tokens": 0,
        "truncated": False,
        "sentences": [],
        "flags": flags,
        "measures": [],
        "failure": None,
        "detail": None,
        "attempt": 0,
        "created": 0.0,
    }


@pytest.fixture
def best(kit: Kit) -> Catalog:
    return Catalog(kit.ws.store, kit.versions["best"])


def keys(page: Page) -> list[str]:
    return page.rows["key"].to_list()


def found(catalog: Catalog, filter_: Filter) -> str:
    page = catalog.page(filter_)
    assert page.total == len(page.rows) == catalog.count(filter_)
    return " ".join(keys(page))


# -- filters ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filter_", "expected"),
    [
        (Filter(), "a0 a1 a2 a3 a4 a5 b0 b1 b2 b3"),
        (Filter(score_min=0.30), "a0 a2 a5 b1"),  # both ends are in: a5 scores .30
        (Filter(score_max=0.26), "a4 b3"),  # without a score (b2) is out as well
        (Filter(score_min=0.27, score_max=0.29), "a1 a3 b0"),
        (Filter(sources=("alt_text",)), "a2 a4 b0"),
        (Filter(sources=("nobody",)), ""),
        (Filter(actions=("quarantined",)), "b2"),
        (Filter(actions=("captioned", "kept")), "a0 a1 a2 a3 a4 a5 b0 b1 b3"),
        (Filter(because=("image.truncated",)), "b2"),
        (Filter(shards=("00001",)), "b0 b1 b2 b3"),
        (Filter(shards=("00002",)), ""),
        (Filter(text="RED"), "a1 b1"),
        (Filter(text="A & B"), "b3"),
        (Filter(text=".*"), ""),  # no pattern
        (Filter(text="cut image"), ""),  # an image that is cut off was not read any further
        (Filter(key="a"), "a0 a1 a2 a3 a4 a5"),
        (Filter(key="b3"), "b3"),
        (Filter(flags=("spam",)), "a1 a2"),
        (Filter(flags=("url", "nothing")), "a2"),
        (Filter(changed_from=1), "a0 a1 a3 a5 b3"),  # v1 has the alt texts
        (Filter(changed_from=1, unchanged=True), "a2 a4 b0 b1 b2"),
        (Filter(changed_from=2), ""),  # itself
        (Filter(text="red", score_min=0.3, shards=("00001",)), "b1"),
    ],
)
def test_filter(best: Catalog, filter_: Filter, expected: str) -> None:
    assert found(best, filter_) == expected


@pytest.mark.parametrize("are_kept", [True, False])
def test_text_of_samples_that_have_none_is_their_alt_text(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, are_kept: bool
) -> None:
    if not are_kept:  # too many texts for memory: each search reads them again
        monkeypatch.setattr(columns, "_MOST_SEARCHED_BYTES", 0)
    strict = Catalog(kit.ws.store, kit.versions["strict"])  # drops what scores below .27
    assert (strict.columns.searched is not None) == are_kept
    dropped = strict.page(Filter(actions=("dropped",), text="flights"))
    assert dropped.rows.select("key", "text", "alt_text", "because").rows() == [
        ("a5", None, "cheap flights book now", "alt_text: aligned")
    ]


def test_percentiles_are_within_a_source(best: Catalog) -> None:
    # alt_text: .26 .29 .31 have 0, 33.3 and 66.7 % below; generated: .24 .27 .28 .30 .32 .33
    assert found(best, Filter(percentile=(60, 100))) == "a0 a2 b1"
    assert found(best, Filter(percentile=(0, 10))) == "a4 b3"
    everything = Filter(percentile=(0, 100))  # also what has no score
    assert best.count(everything) == 10


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"percentile": (50, 40)}, "percentile"),
        ({"percentile": (0, 101)}, "percentile"),
        ({"score_min": 0.5, "score_max": 0.4}, "score_min"),
        ({"actions": ("captionned",)}, "captionned"),
        ({"unchanged": True}, "unchanged"),
    ],
)
def test_a_wrong_filter_names_the_field(wrong: dict[str, object], name: str) -> None:
    with pytest.raises(UsageError, match=name):
        Filter(**wrong)  # type: ignore[arg-type]  # that is what is tested


def test_parts_are_what_is_set() -> None:
    assert Filter().parts() == {}
    assert Filter().is_open
    assert Filter(seed=4).is_open  # an order lets everything through
    assert Filter(text="x", seed=4).parts() == {"text": "x", "seed": 4}


# -- orders and pages ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sort", "descending", "expected"),
    [
        ("shard", False, "a0 a1 a2 a3 a4 a5 b0 b1 b2 b3"),
        ("shard", True, "b3 b2 b1 b0 a5 a4 a3 a2 a1 a0"),
        ("score", False, "b3 a4 a3 a1 b0 a5 a2 a0 b1 b2"),  # b2 has none: last
        ("score", True, "b1 a0 a2 a5 b0 a1 a3 a4 b3 b2"),  # and last again
        # a1 +.23, a5 +.22, b3 +.04, a0 +.02, kept ones and b1 0; a3 and b2 have no alt score
        ("gain", True, "a1 a5 b3 a0 a2 a4 b0 b1 a3 b2"),
        # 9, 18, 18, 19, 20, 21, 27, 29, 30 characters, b2 none
        ("length", False, "b2 b1 a1 a5 a2 a3 a4 a0 b0 b3"),
    ],
)
def test_order(best: Catalog, sort: Sort, descending: bool, expected: str) -> None:
    assert " ".join(keys(best.page(Filter(), sort, descending=descending))) == expected


def test_pages_are_parts_of_one_order(best: Catalog) -> None:
    for sort in SORTS:
        whole = keys(best.page(Filter(), sort, count=10))  # type: ignore[arg-type]  # a Sort
        parts = [best.page(Filter(), sort, start=start, count=3) for start in (0, 3, 6, 9)]  # type: ignore[arg-type]  # a Sort
        assert [key for part in parts for key in keys(part)] == whole
        assert {part.total for part in parts} == {10}
    beyond = best.page(Filter(), start=50)
    assert (beyond.rows.shape[0], beyond.total) == (0, 10)
    assert beyond.rows.schema == best.page(Filter()).rows.schema


def test_random_is_an_order_by_seed(best: Catalog) -> None:
    first = keys(best.page(Filter(seed=1), "random"))
    assert sorted(first) == keys(best.page(Filter()))
    assert first == keys(Catalog(best.store, best.version).page(Filter(seed=1), "random"))
    others = {" ".join(keys(best.page(Filter(seed=seed), "random"))) for seed in range(8)}
    assert len(others) == 8


def test_an_unknown_order_names_the_known_ones(best: Catalog) -> None:
    with pytest.raises(UsageError, match="scor"):
        best.page(Filter(), "scor")  # type: ignore[arg-type]  # that is what is tested


def test_gains_stand_beside_the_rows_once_they_are_known(kit: Kit) -> None:
    fresh = Catalog(kit.ws.store, kit.versions["best"])
    assert fresh.page(Filter(key="a1")).rows["gain"].to_list() == [None]
    fresh.warm()
    assert fresh.page(Filter(key="a1")).rows["gain"].to_list() == [pytest.approx(0.23)]
    assert fresh.page(Filter(key="a2")).rows["gain"].to_list() == [0.0]
    assert fresh.page(Filter(key="a3")).rows["gain"].to_list() == [None]


def test_a_sample_with_two_texts_has_two_rows(kit: Kit) -> None:
    both = Catalog(kit.ws.store, kit.versions["all"])
    page = both.page(Filter(key="a0"))
    assert page.rows.select("slot", "source", "text").rows() == [
        (0, "alt_text", "Two dogs run on the beach near Brighton"),
        (1, GENERATOR, "two dogs running on a beach"),
    ]
    # Against v1, where the alt text is alone, both rows belong to a sample that changed; b1 has the
    # same text twice in one version and once in the other, which is the same set.
    assert "a0" in found(both, Filter(changed_from=1))


# -- histogram, facets -----------------------------------------------------------------------------


def test_histogram_leaves_the_limits_of_the_score_aside(best: Catalog) -> None:
    whole = best.histogram(Filter(), 9, limits=(0.24, 0.33))
    assert whole is not None
    assert sum(whole.counts) == 9  # b2 has no score
    assert whole == best.histogram(Filter(score_min=0.3), 9, limits=(0.24, 0.33))
    alt = best.histogram(Filter(sources=("alt_text",)), 9)
    assert alt is not None
    assert sum(alt.counts) == 3
    assert (alt.edges[0], alt.edges[-1]) == (pytest.approx(0.24), pytest.approx(0.33))


def test_facets(best: Catalog) -> None:
    facets = best.facets()
    assert facets.actions == {"captioned": 6, "kept": 3, "quarantined": 1}
    assert facets.sources == {GENERATOR: 6, "alt_text": 3}
    assert facets.shards == {"00000": 6, "00001": 4}
    assert facets.because["image.truncated"] == 1
    assert facets.scores == (pytest.approx(0.24), pytest.approx(0.33))


def test_a_version_without_scores(tmp_path: Path) -> None:
    kit = open_kit(tmp_path / "shards", {"s": (Row("x", "a cat"), Row("y", "a dog"))})
    catalog = Catalog(kit.ws.store, kit.decide("alt"))
    assert catalog.facets().scores is None
    assert catalog.histogram(Filter()) is None
    assert catalog.count(Filter(score_min=0.0)) == 0
    assert keys(catalog.page(Filter(), "score")) == ["x", "y"]
    assert keys(catalog.page(Filter(), "gain")) == ["x", "y"]
    assert catalog.support(0.5) == "middle"


def test_support_is_a_matter_of_quarters(best: Catalog) -> None:
    # of .24 .26 .27 .28 .29 .30 .31 .32 .33, a quarter lies below .27 and a quarter above .31
    supports = [best.support(score) for score in (0.265, 0.275, 0.305, 0.315)]
    assert supports == ["low", "middle", "middle", "high"]


# -- languages -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A close-up of a bowl of noodle soup with egg", "English"),
        ("a man riding a bike", "English"),
        ("The black and white dog is running on the grass .", None),  # Swedish, says the detector
        ("Ein Hund läuft über die Wiese", "German"),
        ("Deux enfants jouent sur la plage", "French"),
        ("Мальчик едет на красном велосипеде", "Russian"),
        ("Собака бежит по траве", None),  # Russian, or Bulgarian
        ("红色的汽车", "Chinese"),  # few letters, but a script of its own
        ("Strand und Meer", None),  # three words
        ("Um cachorro corre na grama", None),  # Portuguese, or Spanish
        ("IMG_2034.JPG", None),
        ("", None),
    ],
)
def test_language(text: str, expected: str | None) -> None:
    assert languages.language(text) == expected


def test_languages_are_those_that_the_text_scorer_knows() -> None:
    latin = {str(one.iso_code_639_1.name).lower() for one in language._LATIN}
    assert set(languages._CODES.split()) == latin | language.SCRIPTS.keys()


def test_languages_of_alt_texts_and_of_a_version(tmp_path: Path) -> None:
    german = ("Ein Hund läuft über die Wiese", "Zwei Kinder spielen am Strand")
    english = "two dogs are running on a beach"
    rows = (Row("x", german[0], english), Row("y", german[1], english), Row("z", None, "a b"))
    kit = open_kit(tmp_path / "shards", {"s": rows})
    kit.decide('name = "made"\nsources = ["generated"]\npick = "first"\n')
    alt = languages.of_alt_texts(kit.ws)
    assert (alt.counts, alt.num_read, alt.num_untold) == ({"German": 2}, 2, 0)
    made = languages.of_version(Catalog(kit.ws.store, kit.versions["made"]).columns)
    assert (made.counts, made.num_read, made.num_untold) == ({"English": 2}, 3, 1)


def test_texts_are_drawn_from_all_shards_and_always_the_same() -> None:
    shards = [
        pl.Series([None, *(f"{shard}{number:02}" for number in range(50))]) for shard in "abcd"
    ]
    drawn = languages.draw(shards, 40)
    assert len(set(drawn)) == 40
    assert drawn == languages.draw(iter(shards), 40)
    # The lots that all of the 200 texts draw, side by side: the 40 least have it.
    lots = np.concatenate([np.random.default_rng([0, number]).random(50) for number in range(4)])
    texts = np.concatenate([shard.drop_nulls().to_numpy() for shard in shards])
    assert drawn == texts[np.argsort(lots)[:40]].tolist()
    assert {text[0] for text in drawn} == set("abcd")
    assert sorted(languages.draw(shards[:1], 999)) == shards[0].drop_nulls().to_list()
    assert languages.draw([], 5) == []


# -- robustness ------------------------------------------------------------------------------------


def test_damage_is_named(kit: Kit, tmp_path: Path) -> None:
    own = small_store(tmp_path / "shards", ["alt"])
    path = own.ws.store.root / own.versions["alt"].shards[0].file
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DamageError):
        Catalog(own.ws.store, own.versions["alt"]).count(Filter(text="a"))


def test_first_calls_of_many_threads_at_once(kit: Kit) -> None:
    """Columns ask for each other from worker threads: no two of them may wait in a circle."""
    for _ in range(20):
        fresh = Catalog(kit.ws.store, kit.versions["best"])
        with ThreadPoolExecutor(4) as pool:
            jobs = [
                pool.submit(fresh.warm),
                pool.submit(fresh.page, Filter(), "gain"),
                pool.submit(fresh.count, Filter(flags=("spam",))),
                pool.submit(fresh.count, Filter(percentile=(10, 90), changed_from=1)),
            ]
            for job in jobs:
                job.result()


_words = some.sampled_from(["a red cat", "A RED dog", "blue", "", "cat", "ÄRGER", "straße", "a.b"])


# Each with a picture of its own: samples of one picture share the score of a text.
_keys = sorted({image(key): key for key in (f"k{number:02}" for number in range(99))}.values())[:12]
assert len(_keys) == 12


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=some.lists(
        some.tuples(_words, some.one_of(some.none(), some.integers(-100, 100))),
        min_size=1,
        max_size=12,
    ),
    wanted=_words,
    low=some.integers(-100, 100),
)
def test_any_filter_is_what_plain_python_finds(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, int | None]],
    wanted: str,
    low: int,
) -> None:
    shard = tuple(
        Row(key, text or None, None, None if score is None or not text else score / 100)
        for key, (text, score) in zip(_keys, rows, strict=False)
    )
    kit = open_kit(tmp_path_factory.mktemp("any") / "shards", {"s": shard})
    policy = 'name = "alt"\nsources = ["alt_text"]\npick = "first"\notherwise = "drop"\n'
    catalog = Catalog(kit.ws.store, kit.decide(policy))
    filter_ = Filter(text=wanted, score_min=low / 100)
    assert keys(catalog.page(filter_)) == [
        row.key
        for row in shard
        if row.alt is not None
        and wanted.lower() in row.alt.lower()
        and row.alt_score is not None
        and np.float32(row.alt_score) >= np.float32(low / 100)
    ]
    page = catalog.page(filter_, "score", descending=True)
    assert page.rows["score"].is_sorted(descending=True)


def test_rows_hold_the_picture_that_they_are_about(best: Catalog) -> None:
    row = best.page(Filter(key="b0")).rows.row(0, named=True)
    assert row["image_sha256"] == hashlib.sha256(image("b0")).hexdigest()
    assert (row["shard"], row["row"]) == ("00001", 0)
    assert isinstance(best.page(Filter()).rows, pl.DataFrame)
