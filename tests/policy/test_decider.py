"""Decisions, worked out by hand over the table at the top of `tests.kit.store`."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from curator.core.errors import QuarantineLimitError, UsageError
from curator.core.hashing import text_sha256
from curator.core.run_options import RunOptions
from curator.core.stopping import StopRequest
from curator.policy.decider import read_decision
from curator.policy.model import PRESETS, load_policy, parse_policy
from curator.shards.dataset import ShardRef
from curator.steps import decide as steps_decide
from curator.steps.decide import MakerChoice, decide, resolve_inputs
from curator.store.facts import CAPTIONS, SCORES, Facts
from curator.store.index import ShardFacts
from curator.store.versions import Version
from tests.kit.store import (
    GENERATOR,
    POLICIES,
    SCORER,
    Kit,
    Row,
    add_facts,
    caption_fact,
    image,
    maker_name,
    open_kit,
    score_fact,
    small_store,
)


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return small_store(tmp_path / "shards", policies=())


def rows(kit: Kit, version: Version) -> dict[str, list[tuple[str, str | None, str]]]:
    """key -> (action, text, because) of each slot."""
    found: dict[str, list[tuple[str, str | None, str]]] = {}
    for entry in version.shards:
        frame = read_decision(kit.ws.store, entry)
        for row in frame.iter_rows(named=True):
            found.setdefault(row["key"], []).append((row["action"], row["text"], row["because"]))
    return found


def test_best_takes_the_better_score_and_the_generated_one_on_a_tie(kit: Kit) -> None:
    found = rows(kit, kit.decide("best"))
    assert found["a0"] == [("captioned", "two dogs running on a beach", "best of 2")]  # .32 > .30
    assert found["a2"] == [("kept", "a man riding a bike", "best of 2")]  # .31 > .29
    assert found["a3"] == [("captioned", "a woman holding a cat", "best of 1")]  # no alt text
    assert found["a4"] == [("kept", "A plate with 3 apples", "best of 1")]  # no caption
    assert found["b1"][0][0] == "captioned"  # .33 = .33: `sources` names generated first
    assert found["b2"] == [("quarantined", None, "image.truncated")]


def test_conservation_and_totals(kit: Kit) -> None:
    version = kit.decide("best")
    assert version.counts == {"captioned": 6, "kept": 3, "dropped": 0, "quarantined": 1}
    assert version.num_samples == 10
    assert version.totals["num_texts"] == 9
    # .32 .28 .31 .27 .26 .30 + .29 .33 .24
    assert version.totals["score_sum"] == pytest.approx(2.60, abs=1e-6)


def test_strict_drops_with_the_name_of_the_rule(kit: Kit) -> None:
    found = rows(kit, kit.decide("strict"))  # alt text with a score of at least 0.27
    assert found["a1"] == [("dropped", None, "alt_text: aligned")]
    assert found["a3"] == [("dropped", None, "no_text")]
    assert found["a4"] == [("dropped", None, "alt_text: aligned")]
    assert [key for key, slots in found.items() if slots[0][0] == "kept"] == [
        "a0",
        "a2",
        "b0",
        "b1",
    ]


def test_all_keeps_every_text_with_weights_that_add_up_to_one(kit: Kit) -> None:
    policy = """
    name = "mixed"
    sources = ["alt_text", "generated"]
    pick = "all"
    [weights]
    alt_text = 0.4
    generated = 0.6
    """
    version = kit.decide(policy)
    frame = pl.concat([read_decision(kit.ws.store, entry) for entry in version.shards])
    weights = {key: part["weight"].to_list() for (key,), part in frame.group_by("key")}
    assert weights["a0"] == pytest.approx([0.4, 0.6])
    assert weights["a3"] == [1.0]  # nothing to mix with
    assert weights["b1"] == [1.0]  # both texts are the same, so there is one
    assert weights["b2"] == [None]


def test_percentiles_are_taken_within_each_source(kit: Kit) -> None:
    """Alt texts .05 .08 .20 .26 .29 .30 .31 .33, generated .24 .25 .27 .28 .29 .30 .32 .33.

    The 50th percentile (next higher value) is .29 among the alt texts and .29 among the
    generated: index ceil(0.5 * 7) = 4 in both.
    """
    policy = """
    name = "half"
    sources = ["alt_text", "generated"]
    pick = "first"
    [[rule]]
    name = "upper"
    field = "score"
    min_percentile = 50
    """
    version = kit.decide(policy)
    assert version.thresholds == pytest.approx(
        {"upper@alt_text": 0.29, f"upper@{GENERATOR}": 0.29}, abs=1e-6
    )
    found = rows(kit, version)
    assert found["a5"] == [("captioned", "a plane in the sky", "first that passes")]
    assert found["a1"] == [("dropped", None, "alt_text: upper; generated: upper")]


def test_keep_alt_keeps_what_no_rule_lets_through(kit: Kit) -> None:
    policy = """
    name = "gentle"
    sources = ["generated"]
    pick = "first"
    otherwise = "keep_alt"
    [[rule]]
    name = "aligned"
    field = "score"
    min = 0.29
    """
    found = rows(kit, kit.decide(policy))
    assert found["a1"] == [("kept", "IMG_2034.JPG", "no other: generated: aligned")]
    assert found["a3"] == [("dropped", None, "generated: aligned")]  # there is no alt text
    assert found["a4"] == [("kept", "A plate with 3 apples", "no other: vlm.refusal")]
    assert found["b2"] == [("quarantined", None, "image.truncated")]


def test_a_failed_generation_without_alternative_is_quarantined(kit: Kit) -> None:
    policy = 'name = "only"\nsources = ["generated"]\npick = "first"\n'
    found = rows(kit, kit.decide(policy))
    assert found["a4"] == [("quarantined", None, "vlm.refusal")]


def test_a_text_that_was_never_scored_fails_a_score_rule(tmp_path: Path) -> None:
    # NaN and null compare false: whether that keeps or drops must not depend on the operator.
    shards = {
        "s": (
            Row("k0", "never scored"),
            Row("k1", "scored", alt_score=0.1),
            Row("k2", "not a number", alt_score=float("nan")),
        )
    }
    kit = open_kit(tmp_path / "shards", shards)
    for limit in ("min = -1.0", "max = 1.0"):
        policy = f"""
        name = "limit {limit[:3]}"
        sources = ["alt_text"]
        pick = "first"
        [[rule]]
        name = "in_range"
        field = "score"
        {limit}
        """
        found = rows(kit, kit.decide(policy))
        assert [found[key][0][0] for key in ("k0", "k1", "k2")] == ["dropped", "kept", "dropped"]


def test_copies_of_an_image_are_numbered_in_dataset_order(tmp_path: Path) -> None:
    # `image(key)` gives one picture a key, so the same key in two shards is the same picture
    shards = {"s0": (Row("x", "first"), Row("y", "other")), "s1": (Row("x", "second"),)}
    kit = open_kit(tmp_path / "shards", shards)
    policy = """
    name = "dedupe"
    sources = ["alt_text"]
    pick = "first"
    [[rule]]
    name = "first_copy"
    field = "copy_number"
    max = 0
    """
    version = kit.decide(policy)
    assert [entry.counts["dropped"] for entry in version.shards] == [0, 1]
    policy = policy.replace("dedupe", "no copies").replace("copy_number", "copies")
    # `copies` is 2 for both rows of the picture, 1 for the other
    version = kit.decide(policy.replace("max = 0", "max = 1"))
    assert version.counts["kept"] == 1


def test_surgery_cuts_only_the_unsupported_sentences(tmp_path: Path) -> None:
    text = "A dog runs. The moon is green. It is sunny."
    kit = open_kit(tmp_path / "shards", {"s": (Row("k", text, alt_score=0.2), Row("l", "One."))})
    scores = Facts(kit.ws.store, SCORES, SCORER)
    sentences = [(0, 11, 0.3), (12, 30, 0.05), (31, 43, 0.2)]
    (known,) = scores.read(_pairs(kit)).filter(pl.col("score").is_not_null()).to_dicts()
    known["sentences"] = [{"start": s, "end": e, "score": v} for s, e, v in sentences]
    known["attempt"] = 1  # a newer fact about the same pair
    add_facts(scores, "s", [known])
    policy = """
    name = "cut"
    sources = ["alt_text"]
    pick = "first"
    [surgery]
    min_score = 0.1
    """
    version = kit.decide(policy)
    frame = read_decision(kit.ws.store, version.shards[0])
    assert frame["text"].to_list() == ["A dog runs. It is sunny.", "One."]
    assert frame["score"].to_list()[0] == pytest.approx(0.25)  # mean of .3 and .2
    assert frame["because"].to_list()[0].endswith("unsupported sentences cut")


def _pairs(kit: Kit) -> pl.DataFrame:
    from curator.store import index

    samples = index.read(kit.ws.store, "s", ["image_sha256", "alt_sha256"])
    return samples.rename({"alt_sha256": "text_sha256"})


def test_the_same_facts_and_policy_give_the_same_id_on_another_machine(tmp_path: Path) -> None:
    one = small_store(tmp_path / "here" / "shards")
    other = small_store(tmp_path / "there" / "shards", store=tmp_path / "elsewhere")
    assert {name: v.id for name, v in one.versions.items()} == {
        name: v.id for name, v in other.versions.items()
    }


def test_too_many_unusable_samples_stop_before_the_commit(kit: Kit) -> None:
    policy = parse_policy('name = "x"\nsources = ["alt_text"]\npick = "first"', where="test")
    with pytest.raises(QuarantineLimitError, match=r"1 of 10 samples \(10\.0%\)") as caught:
        decide(kit.ws, policy, MakerChoice(), RunOptions(max_quarantine=0.05), stop=StopRequest())
    assert caught.value.code == 4
    assert kit.ws.store.numbers() == []


def test_two_generators_need_an_order_when_the_first_wins(kit: Kit) -> None:
    echo = maker_name("echo", {"captioner": "echo"})
    policy = parse_policy('name = "x"\nsources = ["generated"]\npick = "first"', where="test")
    kit.ws.store.write_recipe(CAPTIONS, echo, {"captioner": "echo"})
    without_facts = resolve_inputs(kit.ws, policy, MakerChoice())
    assert without_facts.generators == (GENERATOR,)
    writer = Facts(kit.ws.store, CAPTIONS, echo).writer("00000")
    writer.add([{"image_sha256": "0" * 64, "candidate": 0, "attempt": 0, "created": 0.0}])
    writer.finish()
    with pytest.raises(UsageError, match="--generator"):
        decide(kit.ws, policy, MakerChoice(), RunOptions(max_quarantine=1.0), stop=StopRequest())
    choice = MakerChoice(generators=(GENERATOR,))
    every = RunOptions(max_quarantine=1.0)
    version, _ = decide(kit.ws, policy, choice, every, stop=StopRequest())
    assert version.policy["generators"] == [GENERATOR, echo]


def test_missing_scores_are_asked_for(kit: Kit) -> None:
    flags = 'name = "x"\nsources = ["alt_text"]\npick = "first"\n[[rule]]\nname = "h"\n'
    policy = parse_policy(flags + 'field = "flags"\nnone_of = ["spam"]', where="test")
    with pytest.raises(UsageError, match="--scorer text"):
        decide(kit.ws, policy, MakerChoice(), RunOptions(max_quarantine=1.0), stop=StopRequest())


# -- captions that the token limit cut, and alt texts that are none ------------------------------

CUT_ROWS = (
    Row("a0", "a dog runs", "a brown dog runs across the", 0.20, 0.40),
    Row("a1", None, "a white cat sits on the", None, 0.30),
    Row("a2", "nan", None, 0.50, None),
    Row("a3", "N/A", "a red car.", 0.50, 0.10),
)
ANY = 'name = "x"\nsources = ["generated", "alt_text"]\npick = "PICK"\n'


@pytest.fixture
def cut_kit(tmp_path: Path) -> Kit:
    """The first captions of a0 and a1 are cut; a0 has a whole second one, which scores lower."""
    kit = open_kit(tmp_path / "shards", {"00000": CUT_ROWS})
    first, second = (caption_fact(row) for row in CUT_ROWS[:2])
    assert first is not None
    assert second is not None
    whole = "a brown dog runs."
    other = {"candidate": 1, "text": whole, "text_sha256": text_sha256(whole)}
    cut = [row | {"finish_reason": "length", "attempt": 1} for row in (first, second)]
    facts = Facts(kit.ws.store, CAPTIONS, GENERATOR)
    add_facts(facts, "00000", [*cut, first | other])
    score = score_fact(image("a0"), whole, 0.30)
    add_facts(Facts(kit.ws.store, SCORES, SCORER), "00000", [score])
    return kit


@pytest.mark.parametrize("pick", ["best", "first"])
def test_a_whole_text_wins_over_a_cut_one(cut_kit: Kit, pick: str) -> None:
    version = cut_kit.decide(ANY.replace("PICK", pick))
    found = rows(cut_kit, version)
    assert found["a0"][0][:2] == ("captioned", "a brown dog runs.")
    alone = "best of 1" if pick == "best" else "first that passes"
    because = f"{alone}, cut at the token limit"
    assert found["a1"] == [("captioned", "a white cat sits on the", because)]
    assert version.totals["num_truncated"] == 1


def test_with_all_texts_a_cut_one_gives_way_to_a_whole_caption(cut_kit: Kit) -> None:
    found = rows(cut_kit, cut_kit.decide(ANY.replace("PICK", "all")))
    assert [text for _, text, _ in found["a0"]] == ["a brown dog runs.", "a dog runs"]


def test_a_rule_says_what_becomes_of_cut_captions(cut_kit: Kit) -> None:
    rule = '[[rule]]\nname = "whole"\nfield = "truncated"\nmax = '
    never = rows(cut_kit, cut_kit.decide(ANY.replace("PICK", "best") + rule + "0"))
    assert never["a0"] == [("captioned", "a brown dog runs.", "best of 2")]
    assert never["a1"] == [("dropped", None, "generated: whole")]
    alike = rows(cut_kit, cut_kit.decide(ANY.replace("PICK", "best") + rule + "1"))
    because = "best of 3, cut at the token limit"
    assert alike["a0"] == [("captioned", "a brown dog runs across the", because)]


def test_nan_is_no_alt_text(cut_kit: Kit) -> None:
    best = ANY.replace("PICK", "best")
    found = rows(cut_kit, cut_kit.decide(best))
    assert found["a2"] == [("dropped", None, "not_generated")]
    assert found["a3"] == [("captioned", "a red car.", "best of 1")]
    kept = rows(cut_kit, cut_kit.decide(best + 'otherwise = "keep_alt"'))
    assert kept["a2"][0][:2] == ("dropped", None)
    as_is = 'name = "y"\nsources = ["alt_text"]\npick = "first"'
    assert rows(cut_kit, cut_kit.decide(as_is))["a3"] == [("dropped", None, "no_text")]


@pytest.mark.parametrize("name", [name for name in PRESETS.names() if name != "as-is"])
def test_no_preset_lets_an_unreadable_text_win(name: str) -> None:
    policy = load_policy(name)
    for source in policy.sources:
        rules = [rule for rule in policy.rule if rule.source in ("any", source)]
        left_out = {flag for rule in rules for flag in rule.none_of}
        assert {"empty", "no_letters", "unreadable", "html"} <= left_out


def test_the_newest_rules_count_where_an_older_release_left_others(cut_kit: Kit) -> None:
    names = []
    for rules in (2, 3):
        recipe = {"scorer": "text", "language": "en", "rules": rules}
        names.append(maker_name("text-en", recipe))
        cut_kit.ws.store.write_recipe(SCORES, names[-1], recipe)
    rule = '[[rule]]\nname = "h"\nfield = "flags"\nnone_of = ["spam"]'
    policy = parse_policy(ANY.replace("PICK", "first") + rule, where="test")
    assert resolve_inputs(cut_kit.ws, policy, MakerChoice()).checker == names[-1]


# -- groups of small shards -----------------------------------------------------------------------

DEDUPE = """
name = "dedupe"
sources = ["alt_text"]
pick = "first"
[[rule]]
name = "first_copy"
field = "copy_number"
max = 0
"""


PERCENTILES = """
name = "percentiles"
sources = ["alt_text", "generated"]
pick = "all"
[[rule]]
name = "aligned"
field = "score"
min_percentile = 40
[weights]
alt_text = 0.4
generated = 0.6
"""


@pytest.mark.parametrize("policy", [*sorted(POLICIES), DEDUPE, PERCENTILES])
def test_shards_decided_together_are_decided_as_one_by_one(
    kit: Kit, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = kit.decide(policy)
    known = [read_decision(kit.ws.store, entry) for entry in together.shards]
    shutil.rmtree(kit.ws.store.root / "captions")
    monkeypatch.setattr(steps_decide, "ROWS_AT_ONCE", 1)
    again = kit.decide(policy)
    assert again == together, "the same decision is the same version"
    for entry, before in zip(again.shards, known, strict=True):
        assert_frame_equal(read_decision(kit.ws.store, entry), before)


def test_a_shard_without_samples_among_others(tmp_path: Path) -> None:
    kit = open_kit(tmp_path / "shards", {"s0": (), "s1": (Row("x", "first"),), "s2": ()})
    version = kit.decide(PRESETS.text("as-is"))
    assert [entry.num_samples for entry in version.shards] == [0, 1, 0]
    assert rows(kit, version) == {"x": [("kept", "first", "first that passes")]}


def test_groups_keep_the_order_and_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [4, 5, 2, 20, 0, 0, 0, 0, 1, 9]
    refs = [ShardRef(f"s{number}", Path()) for number in range(len(sizes))]
    facts = {
        ref.name: replace(NO_FACTS, num_samples=size) for ref, size in zip(refs, sizes, strict=True)
    }
    monkeypatch.setattr(steps_decide, "ROWS_AT_ONCE", 10)
    monkeypatch.setattr(steps_decide, "_SHARDS_IN_GROUP", 4)
    groups = list(steps_decide._groups(refs, facts))
    # 4 + 5; 2 (with 20 it would be 22); 20 with nothing; four empty ones; 1 + 9
    assert [[sizes[refs.index(ref)] for ref in group] for group in groups] == [
        [4, 5], [2], [20], [0, 0, 0, 0], [1, 9],
    ]  # fmt: skip
    assert [ref for group in groups for ref in group] == refs


NO_FACTS = ShardFacts(
    shard="", digest="", size_bytes=0, mtime_ns=0, num_samples=0, num_unusable=0, ignored_members=0,
    options={}, problems=(), rows_digest="",
)  # fmt: skip
