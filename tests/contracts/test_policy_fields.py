"""The contract of every policy field, run over the whole table.

Each function takes the name of a field, so that tests/extend/test_policy_field.py can run them on
a row that is not in the table yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

import polars as pl
import pytest

from curator.core.errors import UsageError
from curator.policy.decider import passes
from curator.policy.fields import FIELDS, with_fields
from curator.policy.model import Policy, Rule, parse_policy
from curator.policy.text_edit import add_rule, new_rules, to_toml

TEXT = {
    "text": ("a dog", pl.String),
    "source": ("alt_text", pl.String),
    "score": (0.3, pl.Float32),
    "width": (640, pl.Int32),
    "height": (480, pl.Int32),
    "truncated": (0, pl.Int8),
    "flags": ([], pl.List(pl.String)),
    "copies": (1, pl.Int32),
    "copy_number": (0, pl.Int32),
    "alt_text": ("a dog", pl.String),
}
"""The columns of a text as the decider has them."""
DECIDERS_OWN = ("row", "rank", "source", "text", "text_sha256", "failure", "failed", "whole")
"""Columns that the decider goes on to use: a field of such a name would take their place."""
HEAD = 'name = "x"\nsources = ["alt_text"]\npick = "first"\n[[rule]]\nname = "it"\n'

every_field = pytest.mark.parametrize("name", list(FIELDS))


def decided(rule: Rule, columns: Mapping[str, object]) -> bool:
    """Whether a text passes a rule, as the decider computes it."""
    values = {name: [columns.get(name, value)] for name, (value, _) in TEXT.items()}
    frame = pl.DataFrame(values, schema={name: dtype for name, (_, dtype) in TEXT.items()})
    frame = with_fields(frame, [rule.field])
    return bool(frame.select(passes(rule, pl.lit(None))).item())


def limit_of(name: str) -> str:
    """One allowed limit, as the line of a rule."""
    row = FIELDS[name]
    if row.names:
        return f'none_of = ["{next(iter(row.names))}"]'
    return f"min = {row.lowest if row.lowest > -inf else 0.5}"


@every_field
def test_the_row_is_whole(name: str) -> None:
    row = FIELDS[name]
    assert name.isidentifier()
    assert name not in DECIDERS_OWN
    assert row.label == row.label.strip() != ""
    assert row.help.endswith(".")
    assert row.lowest < row.highest
    assert row.step > 0
    assert row.examples


@every_field
def test_a_rule_parses_and_comes_back_from_its_text(name: str) -> None:
    policy = parse_policy(f'{HEAD}field = "{name}"\n{limit_of(name)}', where="test")
    assert policy.rule[0].field == name
    assert parse_policy(to_toml(policy), where="test") == policy


@every_field
def test_it_decides_its_examples_as_their_values_say(name: str) -> None:
    row = FIELDS[name]
    for columns, value in row.examples:
        if row.names:
            assert isinstance(value, list)
            for flag in row.names:
                rule = Rule(name="it", field=name, none_of=(flag,))
                assert decided(rule, columns) == (flag not in value), (columns, flag)
            continue
        if value is None:  # no value: neither a lower nor an upper limit lets it through
            for bound in ("min", "max"):
                allowed = row.lowest if row.lowest > -inf else 0.0
                assert not decided(Rule(name="it", field=name, **{bound: allowed}), columns)
            continue
        assert isinstance(value, int | float)
        assert decided(Rule(name="it", field=name, min=value, max=value), columns), columns
        if value + row.step <= row.highest:
            assert not decided(Rule(name="it", field=name, min=value + row.step), columns)
        if value - row.step >= row.lowest:
            assert not decided(Rule(name="it", field=name, max=value - row.step), columns)


@every_field
def test_what_is_not_allowed_is_refused_with_what_is(name: str) -> None:
    row = FIELDS[name]
    wrong = [("field", f'field = "{name}x"\nmin = 1', name)]  # the nearest name
    if row.names:
        wrong.append(("none_of", f'field = "{name}"\nnone_of = ["no such"]', "allowed: "))
    else:
        wrong.append(("min", f'field = "{name}"\nmin = nan', f"allowed: {row.range}"))
        for bound, beyond in (("min", row.highest + 1), ("max", row.lowest - 1)):
            if abs(beyond) < inf:
                line = f'field = "{name}"\n{bound} = {beyond}'
                wrong.append((bound, line, f"allowed: {row.range}"))
    for key, lines, allowed in wrong:
        with pytest.raises(UsageError, match=key) as caught:
            parse_policy(HEAD + lines, where="test")
        assert allowed in str(caught.value)


@every_field
def test_what_the_page_offers_is_a_rule_on_it(name: str) -> None:
    policy = Policy(name="x", sources=("alt_text",), pick="first")
    for kind in FIELDS[name].starts:
        assert kind in new_rules()
        (rule,) = add_rule(policy, kind).rule
        assert rule.field == name
