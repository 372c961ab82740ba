"""Policies are data: presets load, mistakes are named with the nearest allowed name."""

from __future__ import annotations

from pathlib import Path

import pytest

from curator.core.errors import UsageError
from curator.policy.model import PRESETS, load_policy, parse_policy
from curator.scorers.text import FLAGS


def test_the_presets_are_those_promised() -> None:
    assert PRESETS.names() == [
        "as-is",
        "best",
        "blend",
        "filter",
        "keep-all",
        "mix",
        "raw-if-good",
        "replace",
    ]


@pytest.mark.parametrize("name", PRESETS.names())
def test_a_preset_loads_and_uses_flags_that_exist(name: str) -> None:
    policy = load_policy(name)
    assert policy.name == name
    used = {flag for rule in policy.rule for flag in rule.none_of}
    assert used <= set(FLAGS)
    assert parse_policy(PRESETS.text(name), where=name) == policy


BASE = 'name = "x"\nsources = ["alt_text"]\npick = "first"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BASE + 'sorces = ["a"]', "did you mean 'sources'"),
        (BASE.replace("first", "frist"), "pick"),
        (
            BASE + '[[rule]]\nname = "a"\nfield = "scor"\nmin = 1',
            "field is 'scor': did you mean 's",
        ),
        (
            BASE + '[[rule]]\nname = "a"\nfield = "truncated"\nmin = 2',
            "`min` of truncated is 2; allowed: from 0 to 1",
        ),
        (
            BASE + '[[rule]]\nname = "a"\nfield = "width"\nmax = nan',
            "`max` of width is nan; allowed: 0 or more",
        ),
        (BASE + '[[rule]]\nname = "a"\nfield = "flags"\nnone_of = ["urll"]', "did you mean 'url'"),
        (BASE + '[[rule]]\nname = "a"\nfield = "score"\nminn = 1', "did you mean 'min'"),
        (BASE + '[[rule]]\nname = "a"\nfield = "score"', "min_percentile"),
        (BASE + '[[rule]]\nname = "a"\nfield = "flags"\nmin = 1', "none_of"),
        (BASE + '[[rule]]\nname = "a"\nfield = "num_words"\nmin_percentile = 5', "score"),
        (BASE + "[surgery]\nmin_score = 0.1\nmin_percentile = 3", "either"),
        (BASE + "[weights]\nalt_text = -1", "weights.alt_text"),
        ("name = ", "not valid TOML"),
    ],
)
def test_a_mistake_is_named(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse_policy(text, where="mine.toml")
    assert caught.value.code == 2


def test_an_unknown_preset_or_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'replace'"):
        load_policy("replac")
    with pytest.raises(UsageError, match="there is no policy file"):
        load_policy(str(tmp_path / "no.toml"))
