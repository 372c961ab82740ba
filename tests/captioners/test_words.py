"""Rules on the words of a caption: what is asked for again, and what counts at last."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from curator.captioners import Caption, CaptionFailure, CaptionRequest
from curator.captioners.guard import Guarded
from curator.captioners.prompts import PRESETS
from curator.captioners.words import WordRules
from curator.core.errors import UsageError
from curator.core.names import Items

PROMPT = PRESETS["short"]
KEEP = Items(("Lufthansa",), ("737",))


class Parrot:
    """Gives the next of its texts to each request, and keeps the requests."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)
        self.asked: list[CaptionRequest] = []

    def caption(self, requests: Sequence[CaptionRequest]) -> list[Caption | CaptionFailure]:
        self.asked += requests
        return [Caption(self.texts.pop(0), "stop", 5, 0) for _ in requests]


def ask(parrot: Parrot, rules: WordRules) -> Caption | CaptionFailure:
    guarded = Guarded(parrot, prompt=PROMPT, words=rules)
    (outcome,) = guarded.caption([CaptionRequest("00", b"", PROMPT.text, keep=KEEP)])
    assert not parrot.texts, "every answer was asked for"
    return outcome


def test_lost_names_are_asked_for_by_name() -> None:
    parrot = Parrot("A plane of Lufthansa lands.", "A 737 of Lufthansa lands.")
    outcome = ask(parrot, WordRules(keep_names=True))
    assert isinstance(outcome, Caption)
    assert (outcome.text, outcome.note) == ("A 737 of Lufthansa lands.", "")
    assert parrot.asked[1].prompt == f'{PROMPT.text} The caption must contain: "737".'
    assert parrot.asked[1].candidate != parrot.asked[0].candidate, "another seed"


@pytest.mark.parametrize(
    ("second", "kept", "note"),
    [
        ("A white plane lands.", "A plane of Lufthansa lands.", "names lost: 737"),
        ("A 737 stands still.", "A plane of Lufthansa lands.", "names lost: 737"),
        ("I cannot help with that.", "A plane of Lufthansa lands.", "names lost: 737"),
    ],
)
def test_the_better_of_two_counts_and_lost_names_are_no_failure(
    second: str, kept: str, note: str
) -> None:
    outcome = ask(Parrot("A plane of Lufthansa lands.", second), WordRules(keep_names=True))
    assert isinstance(outcome, Caption)
    assert (outcome.text, outcome.note) == (kept, note)


def test_forbidden_and_required_words() -> None:
    rules = WordRules(forbid=("stock photo",), require=("plane",))
    good = "A plane on the ground."
    parrot = Parrot("A Stock  photo of a jet on the ground.", good)
    outcome = ask(parrot, rules)
    assert isinstance(outcome, Caption)
    assert outcome.text == good
    assert parrot.asked[1].prompt == (
        f'{PROMPT.text} The caption must contain: "plane". '
        'The caption must not contain: "stock photo".'
    )
    outcome = ask(Parrot("A stock photo of a plane.", "A jet on the ground."), rules)
    assert isinstance(outcome, CaptionFailure)
    assert (outcome.reason, outcome.detail) == ("vlm.words", "forbidden: stock photo")
    # "planes" is another word, and what holds at once is not asked for again.
    assert ask(Parrot("Stock photography, a plane."), rules) == Caption(
        "Stock photography, a plane.", "stop", 5, 0
    )


def test_rules_come_back_from_a_recipe() -> None:
    rules = WordRules(keep_names=True, forbid=("image",), require=("dog",))
    assert WordRules.of({"words": rules.to_recipe()}) == rules
    assert WordRules.of({}) == WordRules()
    assert WordRules().to_recipe() == {}


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"forbid": (" ",)}, "--forbid is ' '"),
        ({"require": ('a "dog"',)}, "without double quotes"),
        ({"forbid": ("Dog",), "require": ("dog",)}, "both in --forbid and in --require"),
    ],
)
def test_bad_rules(rules: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        WordRules(**rules)  # type: ignore[arg-type]  # one of the fields
