"""Blind ratings: what is acknowledged is kept, whatever is killed and however many rate at once."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.core.errors import DamageError, UsageError
from curator.ratings import log as rating_log
from curator.ratings.log import Answer, Matchup, Rating, ShownPair
from curator.store import sealed
from curator.store.store import Store
from tests.kit import rating_worker

SHA = "ab" * 32
CAT_DOG = ShownPair(image_sha256=SHA, left="a cat", right="a dog", shard="00000", key="k")
DOG_CAT = ShownPair(image_sha256=SHA, left="a dog", right="a cat", shard="00000", key="k")
ENV = {**os.environ, "POLARS_MAX_THREADS": "1"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "store")


def files(store: Store) -> list[Path]:
    return sorted((store.root / "facts" / "ratings").iterdir())


# -- keeping ------------------------------------------------------------------------------------


def test_a_rating_reads_back_as_it_was_given(store: Store) -> None:
    kept = rating_log.add(store, CAT_DOG, "right", "Anna")
    assert rating_log.read(store) == [kept]
    assert (kept.left, kept.right, kept.answer, kept.who, kept.nth) == (
        "a cat", "a dog", "right", "Anna", 0
    )  # fmt: skip


def test_the_order_of_the_texts_makes_no_other_item(store: Store) -> None:
    first = rating_log.add(store, CAT_DOG, "left", "Anna")
    second = rating_log.add(store, DOG_CAT, "right", "Bob")
    assert first.item == second.item
    assert first.said == second.said  # both say: the cat
    assert {rating.who for rating in rating_log.read(store, {first.item})} == {"Anna", "Bob"}


def test_the_same_answer_again_adds_nothing(store: Store) -> None:
    first = rating_log.add(store, CAT_DOG, "left", "Anna")
    # A double click, or the same question asked the other way round.
    assert rating_log.add(store, CAT_DOG, "left", "Anna") == first
    assert rating_log.add(store, DOG_CAT, "right", "Anna") == first
    assert len(files(store)) == 1


def test_the_latest_of_several_answers_counts_and_none_is_lost(store: Store) -> None:
    for answer in ("left", "equal", "both_bad", "left"):
        rating_log.add(store, CAT_DOG, answer, "Anna")
    (found,) = rating_log.read(store)
    assert (found.answer, found.nth) == ("left", 3)
    assert len(files(store)) == 4


def test_only_the_items_asked_for_are_read(store: Store) -> None:
    kept = rating_log.add(store, CAT_DOG, "left", "Anna")
    other = rating_log.add(store, rating_worker.shown(7), "left", "Anna")
    next(path for path in files(store) if other.item in path.name).write_bytes(b"damaged")
    assert rating_log.read(store, {kept.item}) == [kept]
    assert rating_log.read(store, set()) == []


@pytest.mark.parametrize(
    ("shown", "answer", "who", "told"),
    [
        (CAT_DOG, "better", "Anna", "answer is 'better'"),
        (CAT_DOG, "left", "", "who is ''"),
        (CAT_DOG, "left", " Anna", "who is ' Anna'"),
        (CAT_DOG, "left", "Anna\nBob", "who is 'Anna"),
        (CAT_DOG, "left", "a" * 81, "who has 81 characters, at most 80"),
        (
            ShownPair(image_sha256=SHA, left="one", right="one", shard="0", key=None),
            "left",
            "Anna",
            "the same text",
        ),
        (
            ShownPair(image_sha256="../../etc", left="one", right="two", shard="0", key=None),
            "left",
            "Anna",
            "image_sha256 is '../../etc'",
        ),
    ],
)
def test_what_cannot_be_a_rating_is_refused_by_name(
    store: Store, shown: ShownPair, answer: Answer, who: str, told: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(told)):
        rating_log.add(store, shown, answer, who)
    assert rating_log.read(store) == []


@pytest.mark.parametrize("data", [b"", b"{}", b"\x00" * 40, b'{"left": 1}'])
def test_damage_is_named(store: Store, data: bytes) -> None:
    rating_log.add(store, CAT_DOG, "left", "Anna")
    (path,) = files(store)
    path.write_bytes(data)
    with pytest.raises(DamageError, match="unreadable") as found:
        rating_log.read(store)
    assert found.value.where == str(path)
    assert [one.where for one in rating_log.unreadable(store)] == [str(path)]


def test_a_rating_under_the_name_of_another_is_damage(store: Store) -> None:
    rating_log.add(store, CAT_DOG, "left", "Anna")
    other = rating_log.add(store, rating_worker.shown(7), "left", "Anna")
    mine, theirs = sorted(files(store), key=lambda path: other.item in path.name)
    theirs.write_bytes(mine.read_bytes())
    with pytest.raises(DamageError, match="does not match its file name"):
        rating_log.read(store)


@settings(deadline=None, max_examples=50)  # each waits for the disk
@given(
    texts=st.lists(st.text(max_size=40), min_size=2, max_size=2, unique=True),
    who=st.text(
        st.characters(exclude_categories=["Cs", "Zs", "Zl", "Zp", "Cc"]), min_size=1, max_size=80
    ),
)
@pytest.mark.long
def test_any_texts_and_names_survive(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], who: str
) -> None:
    store = Store.create(tmp_path_factory.mktemp("any"))
    shown = ShownPair(image_sha256=SHA, left=texts[0], right=texts[1], shard="0", key=None)
    assert rating_log.read(store) == []
    assert rating_log.read(store, {rating_log.add(store, shown, "left", who).item})[0].who == who


# -- crashes and several at once ------------------------------------------------------------------


def worker(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.kit.rating_worker", *words]
    return subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, text=True)


@pytest.mark.long
def test_several_processes_at_once_lose_nothing(store: Store) -> None:
    """Two people in two windows each: every acknowledged answer is there, each once."""
    names = ("Anna", "Anna", "Bob", "Bob")
    processes = [worker("rate", str(store.root), who, "30") for who in names]
    acknowledged: dict[str, set[tuple[str, int, str]]] = {"Anna": set(), "Bob": set()}
    for who, process in zip(names, processes, strict=True):
        said, _ = process.communicate()
        assert process.returncode == 0
        acknowledged[who] |= {tuple(json.loads(line)) for line in said.splitlines()}
    kept = [Rating.model_validate(sealed.read(path)) for path in files(store)]
    for who, answers in acknowledged.items():
        assert answers == {(one.item, one.nth, one.answer) for one in kept if one.who == who}
    assert len(rating_log.read(store)) == 60


def test_a_killed_process_loses_nothing_acknowledged(store: Store) -> None:
    process = worker("rate", str(store.root), "Anna", "100000")
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(41)]
    process.kill()
    said += process.communicate()[0].splitlines(keepends=True)
    kept = [
        Rating.model_validate(sealed.read(path)) for path in store.root.glob("facts/ratings/[!.]*")
    ]
    acknowledged = {tuple(json.loads(line)) for line in said if line.endswith("\n")}
    assert len(acknowledged) >= 41
    assert acknowledged <= {(one.item, one.nth, one.answer) for one in kept}
    assert len(kept) - len(acknowledged) <= 1  # on disk, but the word of it was not out yet
    rating_log.read(store)


def test_killed_before_any_step_there_is_a_whole_rating_or_none(store: Store) -> None:
    process = worker("sweep", str(store.root))
    said, _ = process.communicate()
    assert process.returncode == 0
    steps = [json.loads(line) for line in said.splitlines()]
    assert len(steps) > 5
    assert [killed for *_, killed in steps] == [True] * (len(steps) - 1) + [False]
    there = {rating.left for rating in rating_log.read(store)}
    for step, acknowledged, _ in steps:
        assert not acknowledged or f"left {step}" in there
    # Whatever a crash left behind is in nobody's way.
    for step, *_ in steps:
        rating_log.add(store, rating_worker.shown(step), "left", "Anna")
    assert len(rating_log.read(store)) == len(steps)


# -- in terms of two versions --------------------------------------------------------------------


def test_ratings_of_other_texts_do_not_count() -> None:
    other = Matchup(image_sha256=SHA, old="a cat", new="a cow")
    rating = Rating(
        image_sha256=SHA, left="a cat", right="a dog", shard="0", key=None, answer="left",
        who="Anna", created=0.0,
    )  # fmt: skip
    assert rating_log.votes([other], [rating]) == []
    (vote,) = rating_log.votes([Matchup(image_sha256=SHA, old="a cat", new="a dog")], [rating])
    assert vote.verdict == "old"
