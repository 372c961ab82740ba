"""docs/extend/captioner.md and scorer.md, done as they say: a file, a row, and it works."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.kit import tars
from tests.kit.newcomer import EXTEND, Newcomer

SHORT, LONG = "a red car", "two dogs run along a wide sandy beach"


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "shards"
    folder.mkdir()
    files = [
        *tars.sample("a", 1, caption=SHORT),
        *tars.sample("b", 2, caption=LONG),
        *tars.sample("c", 3, caption=None),
    ]
    (folder / "00000.tar").write_bytes(tars.tar(files))
    return folder


@pytest.mark.parametrize("name", ["captioner", "scorer"])
def test_the_page_shows_the_file(name: str) -> None:
    shown = f"```python\n{(EXTEND / f'{name}.py').read_text()}```"
    assert shown in (EXTEND / f"{name}.md").read_text()


def test_a_new_captioner(tmp_path: Path, shards: Path) -> None:
    house = Newcomer(tmp_path, "captioner", "curator/captioners/__init__.py")
    assert "colours of an image" in " ".join(house.curator("recaption", "--help").split())
    house.curator("recaption", shards, "--captioner", "colours", "--policy", "replace")
    found = house.curator("query", shards, "select key, text, source from captions", "--json")
    rows = [json.loads(line) for line in found.splitlines()]
    texts = {row["key"]: row["text"] for row in _flat(rows)}
    assert set(texts) == {"a", "b", "c"}
    for text in texts.values():
        assert re.fullmatch(r"An image of \d+ by \d+ pixels in (\w+ \(\d+%\),? ?)+\.", text)
    assert all(row["source"].startswith("colours-short-") for row in _flat(rows))
    # Made once: the same command again asks nobody.
    again = house.curator("recaption", shards, "--captioner", "colours", "--policy", "replace")
    assert "no model was called" in again
    house.contract("tests/contracts/test_captioners.py", "colours")


def test_a_new_scorer(tmp_path: Path, shards: Path) -> None:
    house = Newcomer(tmp_path, "scorer", "curator/scorers/__init__.py")
    (toml,) = re.findall(r"```toml\n(.*?)```", house.page, re.DOTALL)
    policy = tmp_path / "long.toml"
    policy.write_text(toml)
    said = house.refused("decide", shards, "--policy", policy)
    assert said[0] == 10  # nothing is there yet
    house.curator("score", shards, "--scorer", "length")
    house.curator("decide", shards, "--policy", policy)
    found = house.curator("query", shards, "select key, text, score from captions", "--json")
    rows = _flat([json.loads(line) for line in found.splitlines()])
    kept = {row["key"]: (row["text"], row["score"]) for row in rows if row["text"]}
    assert kept == {"b": (LONG, pytest.approx(8 / 20))}
    # `recaption` takes the scorer of the policy, and refuses another one before any work.
    house.curator("recaption", shards, "--captioner", "echo", "--policy", policy)
    code, error = house.refused("recaption", shards, "--scorer", "length", "--captioner", "echo")
    assert code == 2
    assert (
        "policy 'best' needs scores of a 'clip' scorer, but --scorer is a 'length' scorer" in error
    )
    house.contract("tests/contracts/test_scorers.py", "length")


def test_a_class_that_breaks_the_contract_is_refused_before_a_shard_is_read(
    tmp_path: Path, shards: Path
) -> None:
    house = Newcomer(tmp_path, "captioner", "curator/captioners/__init__.py")
    mine = (EXTEND / "captioner.py").read_text().replace("def caption(", "def describe(")
    (house.root / "captioner.py").write_text(mine)
    code, error = house.refused("recaption", shards, "--captioner", "colours")
    assert code == 2
    assert "the class ColourCaptioner has no method `caption(requests)`" in error
    assert str(house.root / "captioner.py") in error
    assert not (shards / ".curator").exists()


def _flat(rows: list[object]) -> list[dict[str, object]]:
    return [one for row in rows for one in (row if isinstance(row, list) else [row])]  # type: ignore[misc]
