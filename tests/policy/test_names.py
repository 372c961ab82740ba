"""What is not a preset is never committed under the name of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.core.run_options import RunOptions
from curator.core.stopping import StopRequest
from curator.policy.model import PRESETS, Policy, load_policy, parse_policy, under_its_own_name
from curator.policy.text_edit import policy_of, to_toml
from curator.steps.decide import MakerChoice, decide
from tests.kit.cli import curator
from tests.kit.store import small_store

BEST = load_policy("best")


def changed(**values: Any) -> str:
    return under_its_own_name(BEST.model_copy(update=values)).name


@pytest.mark.parametrize("name", PRESETS.names())
def test_presets_keep_their_names_and_text(name: str) -> None:
    assert under_its_own_name(load_policy(name)) == load_policy(name)


def test_what_differs_is_in_the_name() -> None:
    (healthy,) = BEST.rule
    long = healthy.model_copy(update={"name": "long_enough"})
    assert changed(otherwise="keep_alt") == "best+otherwise"
    assert changed(pick="all", otherwise="keep_alt") == "best+otherwise,pick"
    assert changed(rule=()) == "best+healthy"
    assert changed(rule=(healthy.model_copy(update={"none_of": ("spam",)}),)) == "best+healthy"
    assert changed(rule=(healthy, long)) == "best+long_enough"
    assert changed(rule=(long.model_copy(update={"name": "x" * 60}),)) == "best+changed"
    assert changed(description="in my own words") == "best"
    assert changed(name="mine", otherwise="keep_alt") == "mine"


def test_a_policy_that_was_changed_back_has_its_name_back() -> None:
    assert under_its_own_name(BEST.model_copy(update={"name": "best+otherwise"})).name == "best"
    more = BEST.model_copy(update={"name": "best+otherwise", "pick": "first"})
    assert under_its_own_name(more).name == "best+pick"


def test_the_description_does_not_praise_what_was_taken_out() -> None:
    found = under_its_own_name(BEST.model_copy(update={"otherwise": "keep_alt"}))
    assert found.description.startswith("The preset best with other otherwise.")


@given(st.sampled_from(PRESETS.names()), st.sampled_from(PRESETS.names()))
def test_a_preset_under_the_name_of_another(name: str, other: str) -> None:
    policy = load_policy(name).model_copy(update={"name": other})
    found = under_its_own_name(policy)
    assert (found.name == other) == (name == other)
    assert under_its_own_name(found) == found, "once is enough"
    assert parse_policy(to_toml(found), where="test") == found


@pytest.mark.parametrize("way", ["file", "function"])
def test_every_way_to_commit(tmp_path: Path, way: str) -> None:
    kit = small_store(tmp_path / "shards", [])
    alt = load_policy("as-is").model_copy(update={"otherwise": "keep_alt"})
    if way == "function":
        decide(kit.ws, alt, MakerChoice(), RunOptions(max_quarantine=1.0), stop=StopRequest())
    else:
        (tmp_path / "as-is.toml").write_text(to_toml(alt))
        more = ["--policy", tmp_path / "as-is.toml", "--max-quarantine", 1]
        assert "policy as-is+otherwise" in curator("decide", kit.ws.spec, *more).out
    version, name = kit.ws.store.version(1), "as-is+otherwise"
    assert version.policy["name"] == name
    assert name in curator("log", kit.ws.spec).out
    assert name in curator("show", kit.ws.spec).out
    assert isinstance(policy_of(version), Policy)
    assert kit.ws.store.resolve(name) == version
    assert curator("show", f"{kit.ws.spec}@as-is").code == 10
