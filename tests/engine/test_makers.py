"""Makers: their names, by which facts are found, and what a row of a table is refused for."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from curator.captioners import CAPTIONERS
from curator.core.errors import CuratorError, EngineError, UsageError
from curator.core.model_spec import ModelSpec
from curator.core.models import ModelIdentity
from curator.engine import makers
from curator.engine.makers import all_of, captioner_maker, checker_maker, scorer_maker
from curator.scorers import SCORERS, ScorerSpec
from curator.steps.doctor import doctor


@pytest.fixture
def any_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model is there, as commit 000... of its repository."""
    monkeypatch.setattr(makers, "locate", lambda *_, **__: None)
    monkeypatch.setattr(
        makers,
        "identify",
        lambda model, revision=None: ModelIdentity(
            model.removeprefix("hf-hub:"), revision or "0" * 40
        ),
    )


@pytest.mark.usefixtures("any_model")
def test_names_of_makers_stay_as_they_are_in_stores() -> None:
    """Facts lie under these names (as of 2026-11-30): another name, and all is made again."""
    drawn = {"max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "seed": 4}
    url = "http://gpu:8000/v1"
    coca = "coca_ViT-L-14:mscoco_finetuned_laion2b_s13b_b90k"
    found = [
        captioner_maker("local", model="org/vlm"),
        captioner_maker(
            model="org/vlm",
            revision="r1",
            prompt="detailed",
            language="de",
            candidates=2,
            **drawn,  # type: ignore[arg-type]  # as on the command line
        ),
        captioner_maker("coca", model=coca),
        captioner_maker("server", model="Qwen/Qwen3-VL-8B-Instruct", url=url, prompt="grounded"),
        captioner_maker("echo"),
        captioner_maker("echo", prompt="Say {alt_text}"),
        scorer_maker("clip", device="cpu"),
        scorer_maker("ViT-B-32:laion2b_s34b_b79k", device="cpu", dtype="bf16"),
        scorer_maker("text"),
        checker_maker("ja"),
    ]
    assert [maker.name for maker in found] == [
        "local-org-vlm-short-ab7eb7d5",
        "local-org-vlm-detailed-12b74c65",
        "coca-coca-vit-l-14-mscoco-finetuned-l-ea1bba71",
        "server-qwen-qwen3-vl-8b-instruct-ground-d530eb04",
        "echo-short-8bc856d5",
        "echo-say-alt-text-a403e585",
        "clip-laion-clip-vit-b-32-datacomp.xl-7fe20dbd",
        "clip-vit-b-32-laion2b-s34b-b79k-212e323f",
        "text-en-cc50a0a9",
        "text-ja-21c3f658",
    ]


@pytest.mark.usefixtures("any_model")
def test_a_new_version_of_a_class_is_another_maker(monkeypatch: pytest.MonkeyPatch) -> None:
    def names() -> set[str]:
        return {
            captioner_maker("echo").name,
            captioner_maker("local", model="org/vlm").name,
            scorer_maker("clip", device="cpu").name,
            scorer_maker("text").name,
        }

    before = names()
    for table in (CAPTIONERS, SCORERS):
        for name, spec in table.rows.items():
            monkeypatch.setitem(table.rows, name, replace(spec, version=spec.version + 1))
    assert not before & names()


class Nothing:
    pass


@pytest.fixture
def newcomer(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("newcomer")
    module.Nothing = Nothing
    monkeypatch.setitem(sys.modules, "newcomer", module)
    monkeypatch.setitem(CAPTIONERS.rows, "mine", ModelSpec("newcomer:Nothing"))
    monkeypatch.setitem(SCORERS.rows, "mine", ScorerSpec("newcomer:Nothing"))


@pytest.mark.usefixtures("newcomer")
def test_a_class_without_the_method_is_refused_when_its_maker_is_made() -> None:
    for make, member in ((captioner_maker, "caption(requests)"), (scorer_maker, "score(pairs)")):
        with pytest.raises(UsageError) as caught:
            make("mine")
        assert f"the class Nothing has no method `{member}` in {__file__}" in str(caught.value)


class Licensed:
    def __init__(self, licence: str) -> None:
        self.licence = licence

    def caption(self, requests: object) -> list[object]:
        return []

    def score(self, pairs: object) -> list[object]:
        return []


@pytest.mark.parametrize("needs", ["nothing", "model"])
@pytest.mark.usefixtures("newcomer", "any_model")
def test_a_constructor_with_arguments_of_its_own_is_refused(
    monkeypatch: pytest.MonkeyPatch, needs: str
) -> None:
    monkeypatch.setattr(sys.modules["newcomer"], "Nothing", Licensed)
    for table, spec, make in (
        (CAPTIONERS, ModelSpec, captioner_maker),
        (SCORERS, ScorerSpec, scorer_maker),
    ):
        row = spec("newcomer:Nothing", needs=needs)  # type: ignore[arg-type]  # parametrized
        monkeypatch.setitem(table.rows, "mine", row)
        with pytest.raises(UsageError) as caught:
            make("mine")
        assert "the class Licensed cannot be built with" in str(caught.value)
        assert __file__ in str(caught.value)
        found = [
            check
            for check in doctor(Path("/"), scorer="mine", captioner="mine")
            if "Licensed cannot be built" in check.text
        ]
        assert {check.status for check in found} == {"fail"}
        assert table.kind in [check.name for check in found]


@pytest.mark.usefixtures("newcomer")
def test_a_row_that_needs_what_there_is_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    row = ModelSpec("newcomer:Nothing", needs="modle")  # type: ignore[arg-type]  # the point
    monkeypatch.setitem(CAPTIONERS.rows, "mine", row)
    with pytest.raises(UsageError) as caught:
        captioner_maker("mine")
    assert "needs = 'modle'; did you mean 'model'? allowed: model, nothing, server" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"captioner": "nobody"}, "unknown captioner 'nobody'"),
        ({"captioner": "server"}, "--captioner server needs --url and --model"),
        (
            {"captioner": "server", "model": "m", "url": "gpu:8000"},
            "--url is 'gpu:8000'; allowed: http://HOST:PORT/v1",
        ),
        ({"url": "http://gpu/v1"}, "--url works only with --captioner server"),
        ({"captioner": "echo", "model": "org/vlm"}, "--captioner echo uses no model"),
        ({"model": "org/vlm", "candidates": 3}, "3 candidates at temperature 0"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        captioner_maker(**options)  # type: ignore[arg-type]  # as on the command line
    assert words in str(caught.value)


def test_a_row_that_needs_a_model_and_has_no_default_asks_for_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = ModelSpec(CAPTIONERS.spec("local").target, needs="model")
    monkeypatch.setitem(CAPTIONERS.rows, "mine", row)
    with pytest.raises(UsageError, match="--captioner mine needs --model"):
        captioner_maker("mine")


def test_an_unknown_scorer_gets_the_names_and_the_forms_of_a_model() -> None:
    with pytest.raises(UsageError) as caught:
        scorer_maker("clop")
    assert "unknown scorer 'clop'; did you mean 'clip'?" in str(caught.value)
    assert "or a folder, org/name, or ViT-B-32:tag" in str(caught.value)


def failing(error: CuratorError) -> Callable[[], None]:
    def make() -> None:
        raise error

    return make


def test_a_wrong_name_is_told_without_what_the_network_says() -> None:
    typo = UsageError("unknown captioner 'sever'", hint="did you mean 'server'?")
    hub = EngineError("the hub cannot be reached", hint="download it elsewhere")
    for order in ((typo, hub), (hub, typo)):
        with pytest.raises(UsageError) as caught:
            all_of(*map(failing, order))
        assert str(caught.value) == "unknown captioner 'sever'; did you mean 'server'?"


def test_errors_with_the_same_hint_give_it_once() -> None:
    first, second = (EngineError(f"no {name}", hint="do it") for name in ("model", "scorer"))
    with pytest.raises(EngineError) as caught:
        all_of(failing(first), failing(second))
    assert str(caught.value) == "no model; do it; also: no scorer"
