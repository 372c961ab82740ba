"""What a policy would do, worked out by hand over the table at the top of `tests.kit.store`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from curator.policy.model import Policy, load_policy, parse_policy
from curator.policy.preview.preview import Makers, Previewer, choose_shards, makers
from curator.policy.preview.values import Extent, Line, Preview
from curator.steps.decide import MakerChoice, resolve_inputs
from curator.store.facts import SCORES, Facts
from curator.store.versions import Version
from tests.kit import store as storekit
from tests.kit.store import GENERATOR, POLICIES, SCORER, Kit, Row

ALIGNED = """
name = "aligned"
sources = ["alt_text"]
pick = "first"
[[rule]]
name = "fits"
field = "score"
min = {least}
"""


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    return storekit.small_store(tmp_path_factory.mktemp("preview") / "shards")


def preview(
    kit: Kit, policy: str | Policy, against: Version | str = "alt", **extent: int
) -> Preview:
    if isinstance(policy, str):
        policy = parse_policy(POLICIES.get(policy, policy), where="test")
    version = kit.versions[against] if isinstance(against, str) else against
    inputs = resolve_inputs(kit.ws, policy, MakerChoice())
    return Previewer(kit.ws.store).preview(policy, inputs, version, Extent(**extent))


def ways(found: Preview) -> dict[tuple[str | None, str, bool], int]:
    return {(move.before, move.after, move.is_changed): move.num_samples for move in found.moves}


# -- the same as a decision -----------------------------------------------------------------------


@pytest.mark.parametrize("policy", [*POLICIES, "filter", "raw-if-good", "mix"])
@pytest.mark.long
def test_counts_are_those_of_the_version_that_decide_commits(tmp_path: Path, policy: str) -> None:
    mine = storekit.small_store(tmp_path, policies=("alt",))
    add_checks(mine)
    text = POLICIES.get(policy)
    wanted = parse_policy(text, where="test") if text else load_policy(policy)
    told = preview(mine, wanted)
    version = mine.decide(wanted)
    assert told.counts == version.counts
    assert told.thresholds == version.thresholds
    assert told.num_unscored == version.totals["num_unscored"]
    assert told.totals.num_texts == version.totals["num_texts"]
    assert told.is_whole
    after = preview(mine, wanted, version)
    assert after.num_changed == 0
    assert after.totals == after.totals_before


CHECKER = storekit.maker_name("text-en", {"scorer": "text"})


def add_checks(kit: Kit) -> None:
    """Every text is evaluated healthy but one, which is spam (a5, storekit)."""
    store = kit.ws.store
    store.write_recipe(SCORES, CHECKER, {"scorer": "text"})
    rows = [row for rows in storekit.SHARDS.values() for row in rows]
    texts = dict.fromkeys(text for row in rows for text in (row.alt, row.generated) if text)
    facts = [
        {
            **storekit.score_fact(b"", text, 0.0),
            "image_sha256": "",
            "score": None,
            "failure": None,
            "flags": ["spam"] if "flights" in text else [],
        }
        for text in texts
    ]
    storekit.add_facts(Facts(store, SCORES, CHECKER), "00000", facts)


def test_nothing_is_written(kit: Kit) -> None:
    before = sorted(path.name for path in kit.ws.store.root.rglob("*"))
    preview(kit, "best")
    assert sorted(path.name for path in kit.ws.store.root.rglob("*")) == before


# -- moves ----------------------------------------------------------------------------------------


def test_moves_tell_which_way_the_samples_go(kit: Kit) -> None:
    found = preview(kit, "best")
    # From the alt texts to the best: a0, a1, a5, b3 get a generated text, a3 had none at all.
    # b1 says the same in both, but is generated now: its action changes. a2, a4, b0 stay.
    assert ways(found) == {
        ("kept", "captioned", True): 5,
        ("dropped", "captioned", True): 1,
        ("kept", "kept", False): 3,
        ("quarantined", "quarantined", False): 1,
    }
    assert found.num_changed == 6
    assert found.counts == {"captioned": 6, "kept": 3, "dropped": 0, "quarantined": 1}
    assert found.counts_before == {"captioned": 0, "kept": 8, "dropped": 1, "quarantined": 1}
    first = found.moves[0]
    assert {moved.key for moved in first.examples} == {"a0", "a1", "a5", "b1", "b3"}
    one = next(moved for moved in first.examples if moved.key == "a1")
    assert (one.text_before, one.text_after) == ("IMG_2034.JPG", "a man in a red hat")
    assert (one.score_before, one.score_after) == (pytest.approx(0.05), pytest.approx(0.28))
    assert one.because == "best of 2"
    assert found.moves[-1].examples == ()  # nothing to see where nothing changed


def test_totals_are_of_the_same_samples_before_and_after(kit: Kit) -> None:
    found = preview(kit, "best")
    assert found.totals.num_texts == 9
    assert found.totals.mean_score == pytest.approx(2.60 / 9)  # test_decide adds them up
    # .30 .05 .31 .26 .08 .29 .33 .20: all alt texts
    assert found.totals_before.mean_score == pytest.approx(1.82 / 8)
    # 8 1 5 5 4 6 3 3 words
    assert found.totals_before.mean_words == pytest.approx(35 / 8)


def test_scores_of_another_scorer_are_not_compared(kit: Kit) -> None:
    version = kit.versions["alt"]
    other = replace(version, policy={**version.policy, "scores_by": "clip-other"})
    assert preview(kit, "best", other).totals_before.mean_score is None


def test_a_version_without_the_shard_or_with_other_bytes_has_no_samples_before(kit: Kit) -> None:
    version = kit.versions["alt"]
    kept, other = version.shards
    without = replace(version, shards=(kept, replace(other, digest="0" * 64)))
    found = preview(kit, "alt", without)
    assert ways(found) == {
        (None, "kept", True): 3,
        (None, "quarantined", True): 1,
        ("kept", "kept", False): 5,
        ("dropped", "dropped", False): 1,
    }
    assert sum(found.counts_before.values()) == 6
    assert preview(kit, "alt", replace(version, shards=(kept,))).num_changed == 4


# -- lines ----------------------------------------------------------------------------------------


def sides(line: Line) -> tuple[list[str], list[str]]:
    return [one.key for one in line.inside], [one.key for one in line.outside]


def test_examples_are_the_nearest_on_each_side_of_a_limit(kit: Kit) -> None:
    found = preview(kit, ALIGNED.format(least=0.27), num_examples=2)
    (line,) = found.lines
    # Alt texts: .30 .05 .31 - .26 .08 | .29 .33 .20; nearest to .27 above are .29 and .30.
    assert sides(line) == (["b0", "a0"], ["a4", "b3"])
    assert (line.num_inside, line.num_outside, line.num_missing) == (4, 4, 0)
    assert (line.rule, line.bound, line.limit, line.source) == ("fits", "min", 0.27, "any")
    assert line.outside[0].value == pytest.approx(0.26)
    assert line.outside[0].text == "A plate with 3 apples"


def test_a_higher_limit_moves_samples_over_the_line(kit: Kit) -> None:
    counts = [preview(kit, ALIGNED.format(least=least)).counts["kept"] for least in (0, 0.27, 0.3)]
    assert counts == [8, 4, 3]


def test_an_upper_limit_and_words(kit: Kit) -> None:
    policy = ALIGNED.format(least=0) + '[[rule]]\nname = "short"\nfield = "num_words"\nmax = 4\n'
    low, high = preview(kit, policy).lines
    assert low.num_outside == 0
    # Words: a0 8, a1 1, a2 5, a4 5, a5 4, b0 6, b1 3, b3 4.
    assert (high.bound, high.limit, high.num_inside, high.num_outside) == ("max", 4, 4, 4)
    assert sides(high)[1] == ["a2", "a4", "b0", "a0"]


def test_percentiles_are_lines_of_each_source(kit: Kit) -> None:
    policy = POLICIES["best"] + '[[rule]]\nname = "top"\nfield = "score"\nmin_percentile = 50\n'
    lines = {line.source: line for line in preview(kit, policy).lines}
    assert set(lines) == {"alt_text", GENERATOR}
    # Alt: .05 .08 .20 .26 | .29 .30 .31 .33 -> .29 is the smallest with half below.
    assert lines["alt_text"].limit == pytest.approx(0.29)
    assert lines["alt_text"].percentile == 50
    assert sides(lines["alt_text"])[0] == ["b0", "a0", "a2", "b1"]
    # Generated: .24 .25 .27 .28 | .29 .30 .32 .33
    assert lines[GENERATOR].limit == pytest.approx(0.29)


def test_a_text_that_was_never_scored_is_outside_for_want_of_a_value(tmp_path: Path) -> None:
    rows = (Row("k0", "one"), Row("k1", "two", alt_score=0.3), Row("k2", "three", alt_score=0.1))
    mine = storekit.open_kit(tmp_path, {"00000": rows})
    (line,) = preview(mine, ALIGNED.format(least=0.2), mine.decide("alt")).lines
    assert (line.num_inside, line.num_outside, line.num_missing) == (1, 2, 1)
    assert sides(line) == (["k1"], ["k2"])


def test_the_first_rule_that_refuses_a_text_has_it(kit: Kit) -> None:
    policy = ALIGNED.format(least=0.27) + '[[rule]]\nname = "two"\nfield = "score"\nmin = 0.3\n'
    one, two = preview(kit, policy).lines
    assert (one.num_outside, two.num_outside) == (4, 1)  # .29 falls to the second
    assert one.num_inside == two.num_inside == 3  # inside passes every rule


@pytest.mark.long
def test_flags_have_examples_and_no_limit(tmp_path: Path) -> None:
    mine = storekit.small_store(tmp_path, policies=("alt",))
    add_checks(mine)
    (line,) = preview(mine, load_policy("best")).lines
    assert (line.bound, line.limit, line.num_outside, line.num_missing) == ("flags", None, 1, 0)
    assert [(one.key, one.flags) for one in line.outside] == [("a5", ("spam",))]
    assert len(line.inside) == 6


def test_reasons_are_counted_for_what_no_text_passed_for(kit: Kit) -> None:
    policy = ALIGNED.format(least=0.27).replace("pick", 'otherwise = "keep_alt"\npick')
    assert preview(kit, policy).because == (
        ("kept", "no other: alt_text: fits", 4),
        ("dropped", "no_text", 1),
        ("quarantined", "image.truncated", 1),
    )


# -- how much is looked at ------------------------------------------------------------------------


def test_a_large_store_is_previewed_on_shards_drawn_with_the_seed(kit: Kit) -> None:
    found = preview(kit, "alt", max_samples=7)
    assert not found.is_whole
    assert (found.num_shards, found.num_all_samples) == (2, 10)
    assert len(found.shards) == 1
    assert found.num_samples == {"00000": 6, "00001": 4}[found.shards[0]]
    assert sum(found.counts.values()) == found.num_samples
    assert found.estimate(found.num_samples) == 10
    assert preview(kit, "alt", max_samples=7).shards == found.shards
    drawn = {preview(kit, "alt", max_samples=7, seed=seed).shards for seed in range(8)}
    assert drawn == {("00000",), ("00001",)}


@given(
    some.dictionaries(some.text("abc", min_size=1), some.integers(0, 50), min_size=1),
    some.integers(1, 100),
    some.integers(0, 5),
)
def test_shards_drawn_are_some_in_their_order_and_no_more_than_asked_for(
    sizes: dict[str, int], max_samples: int, seed: int
) -> None:
    found = choose_shards(sizes, Extent(max_samples=max_samples, seed=seed))
    assert list(found) == [name for name in sizes if name in found]
    assert len(found) >= 1
    taken = sum(sizes[name] for name in found)
    assert taken <= max_samples or len(found) == 1
    assert sum(sizes.values()) > max_samples or found == tuple(sizes)


@pytest.mark.parametrize("name", ["max_samples", "num_examples"])
def test_an_extent_is_checked(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1"):
        Extent(**{name: 0})


@settings(max_examples=20, deadline=None)
@given(least=some.floats(0, 0.4), seed=some.integers(0, 3), count=some.integers(1, 4))
def test_every_sample_goes_one_way(kit: Kit, least: float, seed: int, count: int) -> None:
    found = preview(kit, ALIGNED.format(least=least), seed=seed, num_examples=count)
    assert sum(move.num_samples for move in found.moves) == 10
    assert sum(found.counts.values()) == sum(found.counts_before.values()) == 10
    assert all(len(move.examples) <= count for move in found.moves)
    (line,) = found.lines
    assert line.num_inside + line.num_outside == 8
    assert all(one.value >= least for one in line.inside if one.value is not None)
    assert all(one.value < least for one in line.outside if one.value is not None)


# -- makers and facts -----------------------------------------------------------------------------


def test_makers_are_those_that_the_policy_needs(kit: Kit) -> None:
    assert makers(kit.ws.store, load_policy("best")) == Makers([GENERATOR], [SCORER], [])
    assert makers(kit.ws.store, load_policy("as-is")) == Makers([], [SCORER], [])


def test_new_facts_are_seen_by_a_previewer_that_is_kept(tmp_path: Path) -> None:
    rows = (Row("k0", "one", alt_score=0.3), Row("k1", "two"))
    mine = storekit.open_kit(tmp_path, {"00000": rows})
    version = mine.decide("alt")
    policy = parse_policy(ALIGNED.format(least=0.2), where="test")
    inputs = resolve_inputs(mine.ws, policy, MakerChoice())
    kept = Previewer(mine.ws.store)
    assert kept.preview(policy, inputs, version).counts["kept"] == 1
    assert kept._facts(SCORES, SCORER) is kept._facts(SCORES, SCORER)
    scores = Facts(mine.ws.store, SCORES, SCORER)
    writer = scores.writer("00000")
    writer.add([storekit.score_fact(storekit.image("k1"), "two", 0.25)])
    assert kept.preview(policy, inputs, version).counts["kept"] == 2  # in a journal
    writer.finish()
    assert kept.preview(policy, inputs, version).counts["kept"] == 2  # in a file
