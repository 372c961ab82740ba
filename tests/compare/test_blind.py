"""The questions of blind rating: which, in which order, and what becomes of the answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from curator.compare import blind
from curator.ratings import log as rating_log
from tests.kit import store
from tests.kit.store import Kit


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    return store.small_store(tmp_path_factory.mktemp("blind") / "shards")


def drawn(kit: Kit, old: str, new: str, *, seed: int = 0, size: int = 100) -> blind.Queue:
    return blind.queue(kit.ws.store, kit.versions[old], kit.versions[new], seed=seed, size=size)


def test_the_queue_holds_samples_whose_first_text_differs(kit: Kit) -> None:
    found = drawn(kit, "alt", "best")
    # Not b1, which says the same; not a3, which had no text before.
    assert {question.key for question in found.questions} == {"a0", "a1", "a5", "b3"}
    assert found.num_samples == 4
    by_key = {question.key: question for question in found.questions}
    assert by_key["a1"].matchup.old == "IMG_2034.JPG"
    assert by_key["a1"].matchup.new == "a man in a red hat"
    assert (by_key["b3"].shard, by_key["b3"].row) == ("00001", 3)


def test_more_texts_behind_the_same_first_one_are_no_question(kit: Kit) -> None:
    # "all" puts the alt text first and adds the generated one; only a3 had none before.
    assert drawn(kit, "alt", "all").questions == ()


def test_a_longer_queue_begins_with_the_shorter_one(kit: Kit) -> None:
    long = drawn(kit, "alt", "best").questions
    for size in range(5):
        assert drawn(kit, "alt", "best", size=size).questions == long[:size]


def test_another_seed_asks_in_another_order(kit: Kit) -> None:
    orders = {
        tuple(question.key for question in drawn(kit, "alt", "best", seed=seed).questions)
        for seed in range(20)
    }
    assert len(orders) > 8  # of 24


def test_the_order_of_the_texts_is_drawn_for_each_rater(kit: Kit) -> None:
    (question, *_) = drawn(kit, "alt", "best").questions
    assert question.shown("Anna", 0) == question.shown("Anna", 0)
    lefts = [question.shown(f"rater {n}", 0).left for n in range(400)]
    # 200 in the mean, 10 the standard deviation
    assert 150 < lefts.count(question.matchup.new) < 250


def rate_all(kit: Kit, queue: blind.Queue, who: str, better: str) -> None:
    for question in queue.questions:
        shown = question.shown(who, 0)
        wanted = question.matchup.new if better == "new" else question.matchup.old
        rating_log.add(kit.ws.store, shown, "left" if shown.left == wanted else "right", who)


def verdicts(kit: Kit, queue: blind.Queue) -> list[str]:
    matchups = [question.matchup for question in queue.questions]
    return [vote.verdict for vote in rating_log.votes(matchups, rating_log.read(kit.ws.store))]


def test_ratings_outlive_a_recommit_and_turn_round_with_the_versions(tmp_path: Path) -> None:
    kit = store.small_store(tmp_path / "shards", ["alt", "best"])
    rate_all(kit, drawn(kit, "alt", "best"), "Anna", "new")
    # The same texts for all but b3, by another policy and under another number.
    kit.decide(
        'name = "again"\nsources = ["generated", "alt_text"]\npick = "best"\n\n'
        '[[rule]]\nname = "aligned"\nfield = "score"\nmin = 0.25\n'
    )
    again = drawn(kit, "alt", "again")
    assert len(again.questions) == 3
    assert verdicts(kit, again) == ["new"] * 3
    assert verdicts(kit, drawn(kit, "again", "alt")) == ["old"] * 3
