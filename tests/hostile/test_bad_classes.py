"""Captioners and scorers of other people that do not keep the contract: one line says whose."""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from curator.captioners import CAPTIONERS, Caption, CaptionFailure
from curator.core.model_spec import ModelSpec
from curator.scorers import SCORERS, Score, ScorerSpec
from curator.store import facts
from tests.kit import tars
from tests.kit.cli import Said, curator, quarantine


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    (tmp_path / "00000.tar").write_bytes(tars.tar(tars.samples(4)))
    return tmp_path


def captioner(result: Any) -> type:
    """A class whose `caption` returns `result(requests)`."""

    class Mine:
        def caption(self, requests: Sequence[Any]) -> Any:
            return result(requests)

    return Mine


def scorer(result: Any) -> type:
    """A class whose `score` returns `result(pairs)`."""

    class Mine:
        def score(self, pairs: Sequence[Any]) -> Any:
            return result(pairs)

    return Mine


class Waits:
    async def caption(self, requests: Sequence[Any]) -> Any:
        return []


class NotBuilt:
    def __init__(self) -> None:
        raise RuntimeError("no licence\nfound")

    def caption(self, requests: Sequence[Any]) -> Any:
        return []


def fails(_: object) -> Any:
    raise KeyError("lost")


def install(monkeypatch: pytest.MonkeyPatch, table: Any, cls: type, **row: Any) -> None:
    module = types.ModuleType("newcomer")
    module.Mine = cls
    monkeypatch.setitem(sys.modules, "newcomer", module)
    spec = ModelSpec if table is CAPTIONERS else ScorerSpec
    monkeypatch.setitem(table.rows, "mine", spec("newcomer:Mine", in_process=True, **row))


def ask(shards: Path) -> Said:
    return curator("recaption", shards, "--captioner", "mine", "--policy", "replace", "--json")


@pytest.mark.parametrize(
    ("cls", "came"),
    [
        (captioner(lambda asked: ["a dog"] * len(asked)), "returned a list with a str"),
        (captioner(lambda _: "a dog"), "returned a str"),
        (captioner(lambda _: None), "returned a NoneType"),
        (captioner(lambda asked: [Caption(None, "stop", 1, 0)] * len(asked)), "text is a NoneType"),
        (
            captioner(lambda asked: [CaptionFailure("vlm.refused")] * len(asked)),
            "unknown reason 'vlm.refused'",
        ),
        (captioner(fails), "raised KeyError: 'lost'"),
        (Waits, "returned a coroutine (it is `async def`)"),
        (NotBuilt, "`__init__` of the class NotBuilt raised RuntimeError: no licence found"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_captioner(shards: Path, monkeypatch: pytest.MonkeyPatch, cls: type, came: str) -> None:
    install(monkeypatch, CAPTIONERS, cls)
    said = ask(shards)
    assert said.code == 30, said.err
    assert came in said.err
    assert cls.__qualname__ in said.err
    assert __file__ in said.err
    assert "this is a bug" not in said.err
    if "raised" not in came:
        assert "it must return list[Caption | CaptionFailure]" in said.err
    if "vlm" in came:
        assert "did you mean 'vlm.refusal'? allowed: vlm.boilerplate" in said.err
    assert quarantine(shards) == {}


def test_the_traceback_of_a_class_is_in_the_log_of_the_run(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, CAPTIONERS, captioner(fails))
    ask(shards)
    (log,) = (shards / ".curator" / "runs").glob("*/log.jsonl")
    assert "in fails" in log.read_text()
    monkeypatch.setenv("CURATOR_TRACEBACK", "1")
    with pytest.raises(Exception, match="lost"):
        ask(shards)


@pytest.mark.parametrize(
    ("result", "came"),
    [
        (lambda pairs: [0.5] * len(pairs), "a list with a float"),
        (lambda pairs: [Score(0.5)] * (len(pairs) - 1), "returned 3 scores for 4 pairs"),
        (lambda pairs: [Score(float("nan"))] * len(pairs), "a Score whose score is nan"),
        (lambda pairs: [Score(None, failure="bad")] * len(pairs), "the unknown failure 'bad'"),
        (fails, "raised KeyError: 'lost'"),
    ],
)
def test_a_scorer(shards: Path, monkeypatch: pytest.MonkeyPatch, result: Any, came: str) -> None:
    cls = scorer(result)
    install(monkeypatch, SCORERS, cls)
    said = curator("score", shards, "--scorer", "mine")
    assert said.code == 30, said.err
    assert came in said.err
    assert f"`score` of the class {cls.__qualname__}" in said.err
    assert __file__ in said.err


def test_a_reason_that_nobody_knows_is_shown_as_it_is(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stores of before this check may have one."""
    install(monkeypatch, CAPTIONERS, captioner(lambda a: [CaptionFailure("vlm.empty")] * len(a)))
    written = facts.FactWriter.add

    def renamed(self: Any, records: Any) -> None:
        written(self, [r | {"failure": "vlm.old"} if r.get("failure") else r for r in records])

    with monkeypatch.context() as patch:
        patch.setattr(facts.FactWriter, "add", renamed)
        assert ask(shards).code == 4
    assert quarantine(shards) == {"vlm.old": 4}
    assert "vlm.old" in curator("quarantine", "list", shards).out
    assert curator("quarantine", "show", shards, "--reason", "vlm.old", "--json").code == 0
    assert curator("quarantine", "retry", shards, "--reason", "vlm.old", "--json").json == {
        "reason": "vlm.old",
        "reopened": 4,
    }
    assert curator("quarantine", "retry", shards, "--reason", "vlm.older").code == 2
