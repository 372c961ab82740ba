"""Rules that ask several scorers, worked out by hand over the table of `tests.kit.store`."""

from __future__ import annotations

from pathlib import Path

import pytest

from curator.core.errors import UsageError
from curator.core.run_options import RunOptions
from curator.core.stopping import StopRequest
from curator.policy.decider import read_decision
from curator.policy.model import Policy, Rule, parse_policy
from curator.policy.preview.preview import Previewer
from curator.policy.text_edit import to_toml
from curator.steps.decide import MakerChoice, check_scorer, chosen_scorers, decide, resolve_inputs
from curator.store.facts import SCORES, Facts
from curator.store.versions import Version
from tests.kit.store import Kit, add_facts, image, maker_name, score_fact, small_store

BOTH = """
name = "both"
sources = ["alt_text"]
pick = "first"
[[rule]]
name = "aligned"
field = "score"
min = 0.25
[[rule]]
name = "shown"
field = "score"
scorer = "vqa"
min = 0.5
"""
RECIPE = {"scorer": "vqa", "model": "m", "served": True, "version": 1}
ALT = {
    "a0": "Two dogs run on the beach near Brighton",
    "a2": "a man riding a bike",
    "a4": "A plate with 3 apples",
}


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    kit = small_store(tmp_path / "shards", policies=())
    judged(kit, RECIPE, {"a0": 0.9, "a2": 0.2, "a4": None})
    return kit


def judged(kit: Kit, recipe: dict[str, object], scores: dict[str, float | None]) -> str:
    name = maker_name("vqa", recipe)
    kit.ws.store.write_recipe(SCORES, name, recipe)
    records = [score_fact(image(key), ALT[key], score) for key, score in scores.items()]
    add_facts(Facts(kit.ws.store, SCORES, name), "00000", records)
    return name


def run(kit: Kit, policy: Policy, choice: MakerChoice | None = None) -> Version:
    limit = RunOptions(max_quarantine=1.0)
    return decide(kit.ws, policy, choice or MakerChoice(), limit, stop=StopRequest())[0]


def because(kit: Kit, version: Version) -> dict[str, str]:
    frames = [read_decision(kit.ws.store, entry) for entry in version.shards]
    return {row["key"]: row["because"] for frame in frames for row in frame.iter_rows(named=True)}


def test_a_text_must_pass_the_rules_of_both(kit: Kit) -> None:
    version = run(kit, parse_policy(BOTH, where="test"))
    found = because(kit, version)
    assert found["a0"] == "first that passes"  # 0.30 and 0.9
    assert found["a2"] == "alt_text: shown"  # 0.31, but 0.2
    assert found["a4"] == "alt_text: shown"  # 0.26, and the judge gave nothing
    assert found["a1"] == "alt_text: aligned"  # 0.05
    name = maker_name("vqa", RECIPE)
    assert version.policy["other_scores_by"] == {"vqa": name}
    assert version.makers[name] == RECIPE


def test_percentiles_are_those_of_the_rules_own_scorer(kit: Kit) -> None:
    text = BOTH.replace("min = 0.5", "min_percentile = 60").replace("min = 0.25", "min = 0")
    version = run(kit, parse_policy(text, where="test"))
    assert version.thresholds == {"shown@alt_text": pytest.approx(0.9)}  # of 0.2 and 0.9
    assert because(kit, version)["a2"] == "alt_text: shown"


def test_two_judges_of_one_scorer_must_be_named(kit: Kit) -> None:
    other = judged(kit, {**RECIPE, "model": "n"}, {"a2": 0.8})
    policy = parse_policy(BOTH, where="test")
    with pytest.raises(UsageError, match="2 'vqa' scorers"):
        run(kit, policy)
    choice = MakerChoice(**chosen_scorers(kit.ws, policy, [other]))
    found = because(kit, run(kit, policy, choice))
    assert (found["a0"], found["a2"]) == ("alt_text: shown", "first that passes")
    with pytest.raises(UsageError, match="two for one scorer"):
        chosen_scorers(kit.ws, policy, [other, maker_name("vqa", RECIPE)])


def test_without_scores_the_next_command_is_named(tmp_path: Path) -> None:
    kit = small_store(tmp_path / "shards", policies=())
    with pytest.raises(UsageError, match="'vqa', and there are none") as caught:
        run(kit, parse_policy(BOTH, where="test"))
    assert "score" in (caught.value.hint or "")


def test_the_preview_decides_the_same(kit: Kit) -> None:
    policy = parse_policy(BOTH, where="test")
    version = run(kit, policy)
    inputs = resolve_inputs(kit.ws, policy, MakerChoice())
    seen = Previewer(kit.ws.store).preview(policy, inputs, version)
    assert seen.counts == dict(version.counts)
    assert not any(move.is_changed for move in seen.moves)
    shown = next(line for line in seen.lines if line.rule == "shown")
    assert shown.num_inside == 1


def test_a_policy_is_written_and_read_again(kit: Kit) -> None:
    policy = parse_policy(BOTH, where="test")
    assert parse_policy(to_toml(policy), where="test") == policy
    assert policy.other_scorers == ("vqa",)
    assert policy.needs_score
    own = policy.model_copy(update={"scorer": "vqa"})
    assert own.other_scorers == ()
    # A rule without a scorer is stored as before: the ids of its versions stay.
    rule = Rule(name="aligned", field="score", min=0.25)
    assert "scorer" not in rule.model_dump(mode="json")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('scorer = "vqa"', 'scorer = "vqaa"', "did you mean 'vqa'"),
        ('scorer = "vqa"', 'scorer = "text"', "allowed"),
        (
            'name = "aligned"\nfield = "score"',
            'name = "l"\nscorer = "vqa"\nfield = "width"',
            "only",
        ),
    ],
)
def test_bad_rules(old: str, new: str, said: str) -> None:
    assert old in BOTH
    with pytest.raises(UsageError, match=said):
        parse_policy(BOTH.replace(old, new), where="test")


def test_surgery_needs_scores_of_sentences() -> None:
    text = BOTH.replace('pick = "first"', 'pick = "first"\nscorer = "vqa"')
    with pytest.raises(UsageError, match="scores only whole texts"):
        check_scorer(parse_policy(text + "[surgery]\nmin_score = 0.5\n", where="test"))
