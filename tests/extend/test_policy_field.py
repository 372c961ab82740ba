"""A newcomer adds a policy field: the file of docs/extend and one row of the table, no more."""

from __future__ import annotations

import dataclasses
import importlib
import re
import textwrap
from pathlib import Path

import polars as pl
import pytest

from curator.policy.fields import FIELDS
from tests.contracts import test_policy_fields as contract
from tests.kit.cli import curator
from tests.kit.newcomer import EXTEND, Newcomer
from tests.kit.pages import opener, shown
from tests.kit.store import Row, open_kit

NAME = "distinct_words"
POLICY = """
name = "varied"
sources = ["alt_text"]
pick = "first"

[[rule]]
name = "says-something"
field = "distinct_words"
min = 0.5
"""
ROWS = (
    Row("k0", "a red car"),  # 3 of 3 words are different
    Row("k1", "dog dog cat cat"),  # 2 of 4: just enough
    Row("k2", "sale sale sale sale now"),  # 2 of 5
)


@pytest.fixture
def _one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not in a context of its own: a test that changes the row again would put it back afterwards.
    monkeypatch.syspath_prepend(EXTEND)
    row = importlib.import_module("policy_field").DISTINCT_WORDS
    monkeypatch.setitem(FIELDS, NAME, row)


def test_the_page_can_be_followed(tmp_path: Path) -> None:
    """An import at the top of the table's file used to be a circular one."""
    house = Newcomer(tmp_path, "policy_field", "curator/policy/fields.py")
    (toml,) = re.findall(r" *```toml\n(.*?)```", house.page, re.DOTALL)
    policy = tmp_path / "varied.toml"
    policy.write_text(
        textwrap.dedent(toml).replace('"generated", ', "").replace('"best"', '"first"')
    )
    kit = open_kit(tmp_path / "shards", {"00000": ROWS})
    house.curator("decide", kit.ws.spec, "--policy", policy)
    found = house.curator("query", kit.ws.spec, "select key, because from captions", "--json")
    assert '{"key": "k2", "because": "alt_text: varied"}' in found
    house.contract("tests/contracts/test_policy_fields.py", NAME)


@pytest.mark.usefixtures("_one_row")
def test_it_decides_and_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kit = open_kit(tmp_path / "shards", {"00000": ROWS})
    kit.decide("alt")
    policy = tmp_path / "varied.toml"
    policy.write_text(POLICY)
    said = curator("decide", kit.ws.spec, "--policy", policy, "--json")
    assert said.code == 0, said.err
    rows = curator("query", kit.ws.spec, "select key, action, because from captions", "--json")
    assert rows.out.splitlines() == [
        '{"key": "k0", "action": "kept", "because": "first that passes"}',
        '{"key": "k1", "action": "kept", "because": "first that passes"}',
        '{"key": "k2", "action": "dropped", "because": "alt_text: says-something"}',
    ]
    page = tmp_path / "diff.html"
    assert curator("diff", kit.ws.spec, "--html", page).code == 0
    assert "distinct words among all words: at least 0.5" in page.read_text()
    with opener(monkeypatch, "policy") as open_page:
        app = open_page(kit, base="version", v="v2")
        assert "says-something: distinct words among all words ≥ 0.5" in shown(app)
        assert "2 texts pass all rules, 1 fail this one" in shown(app)
        (box,) = app.number_input
        assert (box.label, box.step) == ("Distinct words among all words at least", 0.05)
        box.set_value(0.7).run()
        assert "1 texts pass all rules, 2 fail this one" in shown(app)
        app.selectbox(key="control_new_rule").set_value("distinct words at least").run()
        assert 'name = "varied"\nfield = "distinct_words"\nmin = 0.5\n' in app.text_area[0].value


@pytest.mark.usefixtures("_one_row")
@pytest.mark.parametrize("check", [one for one in dir(contract) if one.startswith("test_")])
def test_it_meets_the_contract(check: str) -> None:
    getattr(contract, check)(NAME)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (pl.col("txet").str.len_chars(), "cannot be computed"),
        (pl.col("text").str.to_lowercase(), "gives String"),
    ],
)
@pytest.mark.usefixtures("_one_row")
def test_an_expression_that_does_not_fit_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: pl.Expr, said: str
) -> None:
    """It used to be a dump of the plan of polars."""
    monkeypatch.setitem(FIELDS, NAME, dataclasses.replace(FIELDS[NAME], value=value))
    kit = open_kit(tmp_path / "shards", {"00000": ROWS})
    policy = tmp_path / "varied.toml"
    policy.write_text(POLICY)
    done = curator("decide", kit.ws.spec, "--policy", policy)
    assert done.code == 2
    assert f"policy field '{NAME}': the expression of its row {said}" in done.err
    columns = "text, source, score, width, height, truncated"
    assert f"it must give a number for each text, and may use the columns {columns}" in done.err
    (line,) = [line for line in done.err.splitlines() if line.startswith("error[")]
    assert line.startswith("error[policy_field.contract]")
