"""Concepts: their words, the probability by hand, and from the command line to a decision."""

from __future__ import annotations

import math
from pathlib import Path

import polars as pl
import pytest
import torch

from curator.core.errors import UsageError
from curator.demo.bundled import bundled_model
from curator.policy.decider import read_decision
from curator.policy.model import parse_policy
from curator.policy.text_edit import to_toml
from curator.scorers import Score
from curator.scorers.clip import ClipScorer
from curator.scorers.concept import ConceptScorer, _among
from curator.scorers.concepts import NEUTRAL, PRESETS, parse_concept, parse_concepts
from curator.steps.decide import MakerChoice, resolve_inputs
from curator.store.facts import SCORES, Facts
from tests.kit import store
from tests.kit.cli import curator
from tests.kit.store import Kit, add_facts, maker_name, open_kit, score_fact
from tests.kit.tinyclip import photo, save_tiny_clip

RECIPE = {"scorer": "concept", "model": "tiny-clip", "version": 1}
MAKER = maker_name("concept-tiny", RECIPE)
NO_MAPS = """
name = "no-maps"
sources = ["alt_text"]
pick = "first"

[[rule]]
name = "no map"
field = "concept.maps"
max = 0.5

[[concept]]
name = "maps"
words = ["a map", "a satellite photo"]
"""


# -- words ---------------------------------------------------------------------------------------


def test_names_and_wordings() -> None:
    assert parse_concept("watermark") == ("watermark", PRESETS["watermark"])
    assert parse_concept("maps=a map | a satellite photo|a map|") == (
        "maps",
        ("a map", "a satellite photo"),
    )
    assert parse_concept("sum=1 = 2") == ("sum", ("1 = 2",))
    assert parse_concept("watermark=mine") == ("watermark", ("mine",))  # not the preset's


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["watermrk"], "did you mean 'watermark'"),
        ([""], "unknown concept ''"),
        (["a map=x"], "cannot be the name"),
        (["Maps=x"], "small letters"),
        (["maps="], "has no words"),
        (["maps= | "], "has no words"),
        (["maps=a", "maps=b"], "given twice"),
    ],
)
def test_words_that_are_refused(texts: list[str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_concepts(texts)
    assert message in f"{error.value} {error.value.hint}"
    assert error.value.reason == "option.value"


# -- the scorer ----------------------------------------------------------------------------------


def test_a_probability_by_hand() -> None:
    # e^3 / (e^3 + 2 e^2) = 1 / (1 + 2 / e)
    found = _among(Score(0.3, num_tokens=4), [0.2, 0.2], 10.0)
    assert found.score == pytest.approx(1 / (1 + 2 / math.e))
    assert found.num_tokens == 4
    assert _among(Score(0.1), [0.1] * 3, 100.0).score == pytest.approx(0.25)
    # neither a failed image nor one of which a neutral word gave NaN has a value
    assert _among(Score(None, failure="image.truncated"), [], 1).failure == "image.truncated"
    assert _among(Score(0.3), [0.1, None], 1).failure == "score.not_finite"


def test_it_is_the_softmax_of_cosines(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    folder = str(save_tiny_clip(tmp_path / "clip"))
    options = {"device": "cpu", "decode_workers": 1}
    scorer = ConceptScorer(folder, **options)  # type: ignore[arg-type]  # both kinds of values
    cosines = ClipScorer(folder, **options).score(  # type: ignore[arg-type]  # as above
        [(photo(1), text) for text in ("a red beach", *NEUTRAL)]
    )
    values = torch.tensor([one.score for one in cosines], dtype=torch.float64)
    temperature = float(scorer._clip.net.logit_scale.detach().exp())
    expected = torch.softmax(values * temperature, 0)[0]
    (found,) = scorer.score([(photo(1), "a red beach")])
    assert found.score == pytest.approx(float(expected), abs=1e-5)
    # a neutral word itself is one of twelve, not more likely than they are
    (itself,) = scorer.score([(photo(1), NEUTRAL[0])])
    assert itself.score is not None
    assert itself.score <= 0.5


# -- policies ------------------------------------------------------------------------------------


def scored_kit(folder: Path) -> Kit:
    """The store of storekit, with two wordings scored by hand: a0 is a map, a1 seen from above."""
    kit = open_kit(folder)
    kit.ws.store.write_recipe(SCORES, MAKER, RECIPE)
    facts = Facts(kit.ws.store, SCORES, MAKER)
    for shard, rows in store.SHARDS.items():
        values = {"a0": (0.9, 0.1), "a1": (0.1, 0.8)}
        add_facts(
            facts,
            shard,
            [
                score_fact(store.image(row.key), words, value)
                for row in rows
                if not row.broken
                for words, value in zip(
                    ("a map", "a satellite photo"), values.get(row.key, (0.2, 0.3)), strict=True
                )
            ],
        )
    return kit


def test_a_policy_leaves_out_what_looks_like_one_of_the_wordings(tmp_path: Path) -> None:
    kit = scored_kit(tmp_path / "shards")
    version = kit.decide(NO_MAPS)
    # ten samples: b2 is unreadable, a3 has no alt text, a0 and a1 are maps
    assert version.counts == {"captioned": 0, "kept": 6, "dropped": 3, "quarantined": 1}
    assert version.policy["concepts"] == {"maps": ["a map", "a satellite photo"]}
    assert version.policy["concept_facts"] == MAKER
    assert version.makers[MAKER] == RECIPE
    decided = pl.concat([read_decision(kit.ws.store, entry) for entry in version.shards])
    maps = decided.filter(pl.col("because") == "alt_text: no map")
    assert maps["key"].to_list() == ["a0", "a1"]
    # without concepts nothing of them is in a version: its id is as before
    assert not {"concept", "concepts", "concept_facts"} & kit.decide("alt").policy.keys()


def test_a_policy_with_concepts_is_written_and_read_again() -> None:
    policy = parse_policy(NO_MAPS, where="test")
    assert parse_policy(to_toml(policy), where="test") == policy
    assert policy.concepts == {"maps": ("a map", "a satellite photo")}
    preset = NO_MAPS.partition("[[concept]]")[0].replace("maps", "watermark")
    assert parse_policy(preset, where="test").concepts == {"watermark": PRESETS["watermark"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("concept.maps", "concept.map"), "no concept is called 'map'"),
        (('name = "maps"', 'name = "my maps"'), "cannot be the name"),
        (('["a map", "a satellite photo"]', "[]"), "has no words"),
        (("max = 0.5", "max = 1.5"), "from 0 to 1"),
        (("max = 0.5", "min_percentile = 5"), "only for field = 'score'"),
    ],
)
def test_policies_that_are_refused(change: tuple[str, str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_policy(NO_MAPS.replace(*change), where="test")
    assert message in str(error.value)
    assert error.value.reason == "policy.invalid"


def test_words_that_were_never_scored_are_refused_with_the_command(tmp_path: Path) -> None:
    kit = scored_kit(tmp_path / "shards")
    policy = parse_policy(NO_MAPS.replace('"a map"', '"a city map"'), where="test")
    with pytest.raises(UsageError) as error:
        resolve_inputs(kit.ws, policy, MakerChoice())
    assert error.value.reason == "scorer.none"
    assert "'--concept=maps=a city map|a satellite photo'" in str(error.value.hint)


def test_two_models_of_concepts_need_a_choice(tmp_path: Path) -> None:
    kit = scored_kit(tmp_path / "shards")
    other = {**RECIPE, "model": "other"}
    name = maker_name("concept-other", other)
    kit.ws.store.write_recipe(SCORES, name, other)
    add_facts(
        Facts(kit.ws.store, SCORES, name), "00000", [score_fact(store.image("a0"), "a map", 0.1)]
    )
    policy = parse_policy(NO_MAPS, where="test")
    with pytest.raises(UsageError) as error:
        resolve_inputs(kit.ws, policy, MakerChoice())
    assert error.value.reason == "scorer.ambiguous"
    assert resolve_inputs(kit.ws, policy, MakerChoice(scorer=MAKER)).concepts == MAKER


# -- the commands --------------------------------------------------------------------------------


def test_from_words_to_a_version(tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    store.write_shards(shards)
    policy = tmp_path / "no-maps.toml"
    policy.write_text(NO_MAPS)
    where = (shards, "--max-quarantine", "1")
    assert curator("index", shards).code == 0
    refused = curator("decide", *where, "--policy", policy)
    assert refused.code == 2
    assert f"curator score {shards} '--concept=maps=a map|a satellite photo'" in refused.err
    asked = ("--concept", "maps=a map|a satellite photo", "--scorer", bundled_model("scorer"))
    said = curator("score", *where, *asked, "--json")
    assert said.code == 0, said.err
    (summary,) = said.json["concepts"]
    assert (summary["name"], summary["num_images"], len(summary["highest"])) == ("maps", 9, 3)
    assert said.json["made"]["made"] == 18  # nine images, two wordings
    again = curator("score", *where, *asked)
    assert "all scores existed already" in again.out
    assert "at least 0.5" in again.out
    decided = curator("decide", *where, "--policy", policy, "--json")
    assert decided.code == 0, decided.err
    assert curator("show", shards).out.startswith("v1")


def test_recaption_asks_for_concepts_before_it_makes_a_caption(tmp_path: Path) -> None:
    store.write_shards(tmp_path / "shards")
    (tmp_path / "no-maps.toml").write_text(NO_MAPS.replace('["alt_text"]', '["generated"]'))
    said = curator(
        *("recaption", tmp_path / "shards", "--policy", tmp_path / "no-maps.toml"),
        *("--captioner", "echo", "--max-quarantine", "1"),
    )
    assert said.code == 2
    assert "concepts without scores: maps" in said.err
    assert not list((tmp_path / "shards/.curator").rglob("captions/**/*.parquet"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--concept", "watermrk"), "did you mean 'watermark'"),
        (("--concept", "watermark", "--scorer", "text"), "needs a CLIP model"),
        (("--concept", "watermark", "--generated"), "one after the other"),
    ],
)
def test_options_that_are_refused(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    store.write_shards(tmp_path / "shards")
    said = curator("score", tmp_path / "shards", *options)
    assert said.code == 2
    assert message in said.err
    assert not (tmp_path / "shards/.curator").exists()
