"""The tables of ports: names, rows, and the contract that is checked before any work starts."""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from typing import Protocol

import pytest

from curator.captioners import CAPTIONERS
from curator.core.errors import UsageError, nearest
from curator.core.registry import Registry, Spec, check_contract
from curator.scorers import SCORERS
from finetune.layouts import LAYOUTS
from finetune.tasks import TASKS
from pretrain.objectives import OBJECTIVES


class Port(Protocol):
    @property
    def size(self) -> int: ...

    def work(self, items: Sequence[str], *, stop: bool) -> list[str]: ...


class Fits:
    def __init__(self) -> None:
        self.size = 1

    def work(self, items: object, *, stop: object = None, more: int = 0) -> object:
        return items


class FitsByOtherMeans:
    size = 2

    @staticmethod
    def work(things: object, **options: object) -> object:
        return things


class Nothing:
    pass


class NotAMethod:
    work = ["a", "list"]  # noqa: RUF012 - what a beginner may write


class NoKeyword:
    def work(self, items: object) -> object:
        return items


class OneTooMany:
    def work(self, items: object, other: object, *, stop: bool) -> object:
        return items


def build() -> Fits:
    return Fits()


@pytest.fixture(autouse=True)
def newcomer(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("newcomer")
    for cls in (Fits, FitsByOtherMeans, Nothing, NotAMethod, NoKeyword, OneTooMany):
        setattr(module, cls.__name__, cls)
    module.builder = build
    monkeypatch.setitem(sys.modules, "newcomer", module)


def table(target: str) -> Registry[Spec]:
    return Registry("worker", {"mine": Spec(target)}, protocol=Port)


@pytest.mark.parametrize("cls", [Fits, FitsByOtherMeans])
def test_a_class_that_keeps_the_contract_is_given(cls: type) -> None:
    assert table(f"newcomer:{cls.__name__}").get("mine") is cls
    check_contract("worker", "mine", cls(), Port)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("newcomer:Nothing", "the class Nothing has no method `work(items, stop)`"),
        ("newcomer:NotAMethod", "the class NotAMethod has a `work` that cannot be called as"),
        ("newcomer:NoKeyword", "the class NoKeyword has a `work` that cannot be called as"),
        ("newcomer:OneTooMany", "the class OneTooMany has a `work` that cannot be called as"),
        ("newcomer:Nobody", "there is no 'Nobody' in the module 'newcomer'"),
        ("newcomer:builder", "newcomer:builder is not a class"),
        ("nowhere.at_all:Fits", "there is no module 'nowhere'"),
    ],
)
def test_a_class_that_does_not_keep_it_is_refused_by_name(target: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        table(target).get("mine")
    assert caught.value.code == 2
    assert caught.value.reason == "worker.contract"
    assert f"worker 'mine': {words}" in str(caught.value)
    if "class " in words:
        assert caught.value.where == __file__
        assert f"the contract is {__name__}.Port" in str(caught.value)


def test_an_object_needs_its_other_members_too() -> None:
    class NoSize:
        def work(self, items: object, *, stop: bool) -> object:
            return items

    check_contract("worker", "mine", NoSize, Port)  # its `__init__` may set `size`
    with pytest.raises(UsageError, match=r"NoSize has no `size`"):
        check_contract("worker", "mine", NoSize(), Port)


def test_what_fails_inside_a_module_is_told_as_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "needy.py").write_text("import not_installed_anywhere\n")
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        table("needy:Fits").get("mine")


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown worker 'mime'; did you mean 'mine'") as caught:
        table("newcomer:Fits").spec("mime")
    assert caught.value.reason == "worker.unknown"


def test_an_unknown_name_in_capitals_gets_the_nearest() -> None:
    assert nearest("CLIP", ["clip", "text"]) == "did you mean 'clip'? allowed: clip, text"


def test_reasons_have_no_blanks() -> None:
    tables = (CAPTIONERS, SCORERS, OBJECTIVES, TASKS, *LAYOUTS.values())
    assert all(table.kind.isidentifier() for table in tables)
