"""The page that compares two versions: AppTest for its logic, one real browser for the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect
from streamlit.testing.v1 import AppTest

from curator.ratings import log as rating_log
from curator.ratings.log import Rating
from tests.kit import store
from tests.kit.browser import (
    PATIENCE_MS,
    Board,
    dashboard,
    needs_chromium,
    scrolls_sideways,
    settle,
)
from tests.kit.hostile import FEW, OUTSIDE
from tests.kit.pages import Open, opener, shown
from tests.kit.store import Kit, Row


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return store.small_store(tmp_path / "shards", ["alt", "best"])


@pytest.fixture
def open_page(monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    with opener(monkeypatch, "compare") as opened:
        yield opened


# -- numbers --------------------------------------------------------------------------------------


def test_the_newest_two_versions_are_compared_and_stand_in_the_url(
    kit: Kit, open_page: Open
) -> None:
    app = open_page(kit)
    page = shown(app)
    # As in tests/compare/test_compare.py: 4 reworded, 1 gained of 10.
    assert "5 of 10 samples changed their text (1 gained one)" in page
    assert "reworded 4, gained 1" in page
    assert "The newer policy chose captions by this scorer" in page
    assert (app.query_params["old"], app.query_params["v"]) == ("v1", "v2")


def test_a_link_carries_both_versions(kit: Kit, open_page: Open) -> None:
    kit.decide("strict")
    page = shown(open_page(kit, old="v3", v="v1"))
    assert "<th>v3</th><th>v1</th>" in page
    # "strict" drops five of the alt texts that "alt" has: .05 .26 .08 .20 and no text at all.
    assert "dropped" in page
    assert "lost" not in page.partition("Outcome of the samples")[0]


def test_the_same_version_twice_says_what_to_do(kit: Kit, open_page: Open) -> None:
    assert "Both versions are the same" in shown(open_page(kit, old="v2", v="v2"))


def test_one_version_alone_says_what_to_do(tmp_path: Path, open_page: Open) -> None:
    kit = store.small_store(tmp_path / "one", ["alt"])
    assert "There is only one version yet" in shown(open_page(kit))


def test_no_version_says_what_to_do(tmp_path: Path, open_page: Open) -> None:
    kit = store.open_kit(tmp_path / "none")
    assert "there is no version yet" in shown(open_page(kit))


# -- examples -------------------------------------------------------------------------------------


def test_gains_are_shown_with_their_pictures(kit: Kit, open_page: Open) -> None:
    app = open_page(kit, tab="Gains and losses")
    page = shown(app)
    # a1 +.23, a5 +.22, b3 +.04, a0 +.02
    places = [page.index(f"<code>{key}</code>") for key in ("00000/a1", "00000/a5", "00001/b3")]
    assert places == sorted(places)
    assert "+0.230" in page
    assert len(app.get("image")) == 4


def test_losses_can_be_chosen_and_may_be_none(kit: Kit, open_page: Open) -> None:
    assert "No sample in this list" in shown(
        open_page(kit, tab="Gains and losses", show="Largest losses")
    )
    page = shown(open_page(kit, old="v2", v="v1", tab="Gains and losses", show="Largest losses"))
    assert "-0.230" in page


def test_words_that_differ_are_marked(tmp_path: Path, open_page: Open) -> None:
    rows = (Row("k", "a small red car", "a big red car", 0.1, 0.3),)
    kit = store.open_kit(tmp_path / "shards", {"00000": rows})
    for policy in ("alt", "best"):
        kit.decide(policy)
    page = shown(open_page(kit, tab="Gains and losses"))
    assert 'a <del class="cc-removed">small</del> red car' in page
    assert 'a <ins class="cc-added">big</ins> red car' in page


def hostile_kit(folder: Path) -> Kit:
    rows = tuple(
        Row(f"k{number}", text, f"{text} again", 0.1, 0.1 + number / 100)
        for number, text in enumerate(FEW, start=1)
    )
    kit = store.open_kit(folder, {"00000": rows})
    for policy in ("alt", "best"):
        kit.decide(policy)
    return kit


@pytest.mark.parametrize("tab", ["Numbers", "Gains and losses", "Blind rating"])
def test_hostile_captions_never_become_markup(tmp_path: Path, open_page: Open, tab: str) -> None:
    app = open_page(hostile_kit(tmp_path / "shards"), tab=tab, who="<b>Anna</b>")
    page = shown(app)
    for markup in ("<script", "<img", "<iframe", "<b>", "\u202e", "\u200b"):
        assert markup not in page
    assert not app.markdown  # the one element that would read ![]() and [](); nothing uses it


# -- blind rating ---------------------------------------------------------------------------------


def blind(kit: Kit, open_page: Open, who: str = "Anna", **url: str) -> AppTest:
    return open_page(kit, tab="Blind rating", who=who, **url)


def click(app: AppTest, answer: str) -> AppTest:
    (button,) = [one for one in app.button if str(one.key).endswith(answer)]
    return button.click().run()


def kept(kit: Kit) -> list[Rating]:
    return rating_log.read(kit.ws.store)


def test_a_name_comes_first(kit: Kit, open_page: Open) -> None:
    app = blind(kit, open_page, who="")
    assert "Enter your name" in shown(app)
    assert not app.button


def test_an_answer_is_kept_and_the_next_question_comes(kit: Kit, open_page: Open) -> None:
    app = blind(kit, open_page)
    first = shown(app)
    assert "0 of 4 answered" in str(app.get("progress")[0].proto)
    app = click(app, "_left")
    (rating,) = kept(kit)
    assert (rating.answer, rating.who) == ("left", "Anna")
    assert rating.left in first
    assert "1 of 4 answered" in str(app.get("progress")[0].proto)
    assert f'auto">{rating.left}<' not in shown(app)


def test_neither_version_nor_source_nor_score_is_shown(kit: Kit, open_page: Open) -> None:
    page = shown(blind(kit, open_page))
    for told in ("v1", "v2", store.GENERATOR, "alt text", "0.3"):
        assert told not in page.partition("cc-choice")[2]


def test_thinking_again_about_the_last_answer(kit: Kit, open_page: Open) -> None:
    app = click(blind(kit, open_page), "_left")
    app = click(app, "rate_back")
    app = click(app, "_both_bad")
    (rating,) = kept(kit)
    assert (rating.answer, rating.nth) == ("both_bad", 1)


def test_a_click_on_a_question_that_is_gone_does_nothing(kit: Kit, open_page: Open) -> None:
    app = blind(kit, open_page)
    other = blind(kit, open_page)
    click(other, "_left")
    before = kept(kit)
    click(app, "_right")  # the first window still showed that question
    assert kept(kit) == before


def test_results_come_when_all_is_answered(kit: Kit, open_page: Open) -> None:
    app = blind(kit, open_page)
    for _ in range(4):
        assert "Ratings" not in shown(app)
        app = click(app, "_equal")
    page = shown(app)
    assert "All questions answered" in page
    assert "win rate of 50%" in page
    assert "One rater so far" in page
    app = blind(kit, open_page, who="Bob", results="true")
    app = click(app, "_equal")
    assert "<td>Anna, Bob</td><td>1</td><td>100%</td>" in shown(app)


def test_two_versions_that_say_the_same(kit: Kit, open_page: Open) -> None:
    kit.decide("all")
    assert "Nothing to rate" in shown(blind(kit, open_page, old="v1", v="v3"))


# -- in a browser ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    folder = tmp_path_factory.mktemp("ui") / "shards"
    hostile_kit(folder)
    with dashboard(folder) as running:
        yield running


@pytest.mark.browser
@needs_chromium
def test_in_a_browser(board: Board) -> None:
    """Charts, marks, hostile captions, keys: nothing active, nothing from outside."""
    with board.open("compare") as page:
        charts = page.get_by_alt_text("before and after")
        expect(charts).to_have_count(2, timeout=PATIENCE_MS)  # scores and lengths
        assert page.locator(".cc-rows .cc-bar").count() >= 1  # what became of the samples
        assert not scrolls_sideways(page)
        page.get_by_role("tab", name="Gains and losses").click()
        page.locator("ins.cc-added").first.wait_for()
        settle(page)
        assert page.get_by_text(f"![a fish]({OUTSIDE}/fish.png)").count() >= 1
        assert page.locator("ins.cc-added").count() >= len(FEW) - 1
        assert page.evaluate("window.hacked") is None
        assert "tab=Gains" in page.url
    with board.open("compare?tab=Blind+rating&who=Anna", width=1920, dark=True) as page:
        page.get_by_text("0 of 7 answered").wait_for()
        settle(page)
        page.keyboard.press("e")
        page.get_by_text("1 of 7 answered").wait_for()
        settle(page)  # buttons of the question before do nothing any more
        page.get_by_role("button", name="A is better").click()
        page.get_by_text("2 of 7 answered").wait_for()
        settle(page)
        page.keyboard.press("u")
        page.get_by_text("Change my last answer").wait_for(state="detached")
        settle(page)
        page.get_by_role("button", name="Both bad").click()
        page.get_by_text("Change my last answer").wait_for()
        page.get_by_text("2 of 7 answered").wait_for()
        assert not scrolls_sideways(page)
        assert page.evaluate("window.hacked") is None
