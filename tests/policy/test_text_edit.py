"""The TOML of policies, and saving them: nothing is lost, nothing is overwritten by accident."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from curator.core.errors import ConflictError, NotFoundError, UsageError
from curator.policy.fields import FIELDS
from curator.policy.model import PRESETS, Policy, Rule, Surgery, Weights, load_policy, parse_policy
from curator.policy.text_edit import base_text, policy_of, save_policy, to_toml
from curator.scorers.text import FLAGS
from tests.kit import store

_numbers = some.floats(allow_nan=False)
_percent = some.floats(0, 100)
# What a TOML file can hold at all: text without lone surrogates.
_texts = some.text(some.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
_of_numbers = some.sampled_from([name for name, row in FIELDS.items() if not row.names]).flatmap(
    lambda name: some.builds(
        Rule,
        name=_texts,
        source=some.sampled_from(["any", "alt_text", "generated"]),
        field=some.just(name),
        min=some.floats(FIELDS[name].lowest, FIELDS[name].highest),
        max=some.none() | some.floats(FIELDS[name].lowest, FIELDS[name].highest),
    )
)
_of_percentiles = some.builds(
    Rule, name=_texts, field=some.just("score"), min_percentile=_percent, max=some.none() | _numbers
)
_of_flags = some.builds(
    Rule,
    name=_texts,
    field=some.just("flags"),
    none_of=some.lists(some.sampled_from(sorted(FLAGS)), min_size=1).map(tuple),
)
_policies = some.builds(
    Policy,
    name=_texts,
    description=some.text(some.characters(exclude_categories=["Cs"])),
    sources=some.sampled_from([("alt_text",), ("generated", "alt_text")]),
    pick=some.sampled_from(["best", "first", "all"]),
    otherwise=some.sampled_from(["drop", "keep_alt"]),
    scorer=_texts,
    rule=some.lists(_of_numbers | _of_percentiles | _of_flags, max_size=3).map(tuple),
    surgery=some.none()
    | some.builds(Surgery, min_score=_numbers)
    | some.builds(Surgery, min_percentile=_percent),
    weights=some.builds(Weights, alt_text=_percent, generated=_percent),
)


@given(_policies)
def test_a_policy_comes_back_from_its_text(policy: Policy) -> None:
    assert parse_policy(to_toml(policy), where="test") == policy


@pytest.mark.parametrize("name", PRESETS.names())
def test_presets_come_back(name: str) -> None:
    assert parse_policy(to_toml(load_policy(name)), where="test") == load_policy(name)


def test_the_text_reads_as_a_person_would_write_it() -> None:
    assert to_toml(load_policy("filter")) == (
        'name = "filter"\n'
        'description = "Drop only: keep the alt texts with the better half of the scores, '
        'generate nothing."\n'
        'sources = ["alt_text"]\n'
        'pick = "first"\n'
        "\n"
        "[[rule]]\n"
        'name = "aligned"\n'
        'field = "score"\n'
        "min_percentile = 50\n"
        "\n"
        "[[rule]]\n"
        'name = "readable"\n'
        'field = "flags"\n'
        'none_of = ["empty", "no_letters", "unreadable", "html", "file_name"]\n'
    )


def test_the_policy_of_a_version(tmp_path: Path) -> None:
    kit = store.small_store(tmp_path, policies=("strict",))
    version = kit.versions["strict"]
    strict = parse_policy(store.POLICIES["strict"], where="test")
    assert policy_of(version) == strict
    assert base_text("", version) == to_toml(strict)
    assert base_text("best", None).startswith('name = "best"')
    edited = replace(version, policy={"name": "edits", "edits": 3})
    with pytest.raises(UsageError, match="v1 was not decided by a policy"):
        policy_of(edited)


# -- saving ---------------------------------------------------------------------------------------

MINE = '# mine\nname = "mine"\nsources = ["alt_text"]\npick = "first"\n'


def test_a_policy_is_saved_as_typed_under_its_name(tmp_path: Path) -> None:
    path = save_policy(MINE, tmp_path)
    assert path == tmp_path / "mine.toml"
    assert path.read_text() == MINE  # with the comment
    assert load_policy(str(path)).name == "mine"


def test_a_file_is_replaced_only_when_asked_for(tmp_path: Path) -> None:
    save_policy(MINE, tmp_path)
    other = MINE.replace("first", "all")
    with pytest.raises(ConflictError, match="the file exists"):
        save_policy(other, tmp_path)
    assert (tmp_path / "mine.toml").read_text() == MINE
    save_policy(other, tmp_path, replace=True)
    assert (tmp_path / "mine.toml").read_text() == other


@pytest.mark.parametrize("there", [b"[project]\nname = 'mine'\n", b"\xff\xfe"])
def test_another_file_is_never_replaced(tmp_path: Path, there: bytes) -> None:
    (tmp_path / "mine.toml").write_bytes(there)
    with pytest.raises(ConflictError, match="is not a policy"):
        save_policy(MINE, tmp_path, replace=True)
    assert (tmp_path / "mine.toml").read_bytes() == there


@pytest.mark.parametrize("name", ["../mine", "a/b", ".hidden", "a b", "ä", "-x"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    with pytest.raises(UsageError, match="cannot be a file name"):
        save_policy(MINE.replace('"mine"', f'"{name}"'), folder)
    assert list(tmp_path.rglob("*")) == [folder]


def test_folders_are_not_made_and_no_policy_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no folder"):
        save_policy(MINE, tmp_path / "no")
    with pytest.raises(UsageError):
        save_policy("name = ", tmp_path)
    assert list(tmp_path.iterdir()) == []
