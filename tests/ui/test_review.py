"""The Review page: what a click records, what it refuses, and that nothing acknowledged is lost.

Sessions without a browser (AppTest) over the small store of tests/kit/store.py, version v2 (best),
worst score first: a4 (.26), a3 (.27), a1 (.28), b0 (.29), a5 (.30), a2 (.31), a0 (.32), b1 (.33);
b3 has .24 and comes before all of them.
"""

from __future__ import annotations

import random
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from curator.edits import log as edit_log
from curator.steps.fsck import fsck
from curator.steps.workspace import Workspace, open_workspace
from curator.store.facts import SCORES, Facts
from tests.kit import store
from tests.kit.browser import dashboard, needs_chromium, scrolls_sideways, settle
from tests.kit.paths import ROOT
from ui.shared import environment

HOSTILE = "![x](http://elsewhere.invalid/x.png) <img src=x onerror=alert(1)> [l](javascript:0)"
PAGE = ROOT / "ui" / "views" / "review" / "page.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("review") / "shards"
    store.small_store(folder)
    return folder


@pytest.fixture
def ws(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    shutil.copytree(made, tmp_path / "shards")
    monkeypatch.setenv(environment.DATASET, str(tmp_path / "shards"))
    monkeypatch.delenv(environment.STORE, raising=False)
    monkeypatch.delenv(environment.STUDIES, raising=False)
    st.cache_data.clear()
    st.cache_resource.clear()
    return open_workspace(str(tmp_path / "shards"), None)


def session(who: str = "Anna", **state: str) -> AppTest:
    """The page as somebody opens it."""
    app = AppTest.from_file(str(PAGE), default_timeout=60)
    for name, value in {"who": who, "v": "v2", **state}.items():
        if value:
            app.query_params[name] = value
    return ran(app)


def ran(app: AppTest) -> AppTest:
    app.run()
    assert not app.exception
    return app


def press(app: AppTest, label: str) -> AppTest:
    button = next(button for button in app.button if button.label == label)
    assert not button.disabled, label
    button.click()
    return ran(app)


def shown(app: AppTest) -> str:
    """Everything on the page that is text."""
    return "\n".join(str(element.proto.body) for element in app.get("html"))


def history(ws: Workspace, shard: str = "00000") -> list[tuple[str, str, str | None]]:
    return [(e.action, e.key, e.new_text) for e in edit_log.history(ws.store, shard).edits]


# -- one by one ------------------------------------------------------------------------------------


def test_the_worst_one_comes_first_and_accepting_goes_on(ws: Workspace) -> None:
    app = session()
    assert "1 of 9 · b3 · 00001" in shown(app)
    press(app, "Accept")
    assert [toast.value for toast in app.toast] == ["accepted: `00001#0` is saved"]
    assert "2 of 9 · a4 · 00000" in shown(app)
    assert app.query_params["i"] == "1"
    press(app, "Reject")
    assert history(ws, "00001") == [("accept", "b3", None)]
    assert history(ws) == [("reject", "a4", None)]
    assert "3 of 9 · a3" in shown(app)


def test_what_was_reviewed_is_skipped_by_the_next_reviewer(ws: Workspace) -> None:
    press(press(session(), "Accept"), "Accept")
    other = session("Ben")
    assert "3 of 9 · a3" in shown(other)
    press(other, "Back")
    assert "2 of 9 · a4" in shown(other)  # there to be looked at again, with who did what
    assert "accepted" in shown(other)
    assert "Anna accepted it" in shown(other)


def test_a_button_is_about_the_text_beside_it(ws: Workspace) -> None:
    """A press before the next text is on the screen must not be about that text."""
    app = session()
    before = {button.label: button.key for button in app.button}
    after = {button.label: button.key for button in press(app, "Accept").button}
    for label in ("Accept", "Reject", "Edit"):
        assert before[label] != after[label]


def test_edit(ws: Workspace) -> None:
    app = press(session(), "Edit")
    area = app.text_area[0]
    assert area.value == 'a sign with the words "a & b"'
    area.set_value("a sign\nthat says a & b")
    press(app, "Save")
    assert history(ws, "00001") == [("edit", "b3", "a sign that says a & b")]
    press(app, "Back")
    assert "edited" in shown(app)
    press(app, "Edit")
    assert app.text_area[0].value == "a sign that says a & b"
    press(app, "Cancel")
    assert not app.text_area


def test_an_edit_that_changes_nothing_is_refused_where_it_was_typed(ws: Workspace) -> None:
    app = press(press(session(), "Edit"), "Save")
    assert "the new text equals the old one" in shown(app)
    assert app.text_area, "the form is still there"
    assert history(ws, "00001") == []


def test_another_text_can_be_taken(ws: Workspace) -> None:
    app = session()
    assert "a &lt;b&gt;bold&lt;/b&gt; sign" in shown(app)
    press(app, "Use")
    assert history(ws, "00001") == [("edit", "b3", "a <b>bold</b> sign")]


def test_undo_takes_back_what_this_session_did_last(ws: Workspace) -> None:
    app = press(press(session(), "Accept"), "Reject")
    press(app, "Undo")
    assert "2 of 9 · a4" in shown(app)
    assert history(ws) == [("reject", "a4", None), ("undo", "a4", None)]
    press(app, "Undo")
    assert "1 of 9 · b3" in shown(app)
    assert edit_log.newest(ws.store).is_empty()
    assert next(button for button in app.button if button.label == "Undo").disabled


def test_a_stale_edit_is_refused_by_name_and_shows_the_text_as_it_is(ws: Workspace) -> None:
    anna, ben = session("Anna"), press(session("Ben"), "Edit")
    press(anna, "Edit").text_area[0].set_value("what Anna wrote")
    press(anna, "Save")
    ben.text_area[0].set_value("what Ben wrote")
    press(ben, "Save")
    assert "was changed by &#x27;Anna&#x27; at" in shown(ben)
    assert "your edit was not recorded" in shown(ben)
    assert [new for _, _, new in history(ws, "00001")] == ["what Anna wrote"]
    assert "what Anna wrote" in shown(ben)
    assert ben.text_area[0].value == "what Ben wrote", "what was typed is still there"
    press(ben, "Save")  # now that he has seen hers
    assert [new for _, _, new in history(ws, "00001")] == ["what Anna wrote", "what Ben wrote"]


def test_a_click_is_about_the_text_that_was_on_the_screen(ws: Workspace) -> None:
    """Ben's page is old: his Accept must not accept what Anna wrote since, which he never saw."""
    ben = session("Ben")
    anna = press(session("Anna"), "Edit")
    anna.text_area[0].set_value("what Anna wrote")
    press(anna, "Save")
    press(ben, "Accept")
    assert "was changed by &#x27;Anna&#x27;" in shown(ben)
    assert [action for action, _, _ in history(ws, "00001")] == ["edit"]


def test_a_double_click_is_one_edit(ws: Workspace) -> None:
    one, same = session(), session()
    press(one, "Accept")
    press(same, "Accept")
    assert len(history(ws, "00001")) == 1
    assert "2 of 9 · a4" in shown(same)


def test_without_a_name_nothing_can_be_recorded(ws: Workspace) -> None:
    app = session(who="")
    disabled = {button.label for button in app.button if button.disabled}
    assert {"Accept", "Reject", "Edit", "Use"} <= disabled
    assert "Type your name" in app.info[0].value


def test_the_queue_ends_and_other_queues_begin(ws: Workspace) -> None:
    app = session(text="red car")
    assert "1 of 1 · b1" in shown(app)
    press(app, "Accept")
    assert "The queue is finished" in shown(app)
    press(app, "Back")
    assert "1 of 1 · b1" in shown(app)
    assert "No text matches" in shown(session(text="no such words"))
    dropped = session(v="v4", which="none", order="shard")
    assert "1 of 6 · a1" in shown(dropped)
    press(dropped, "Edit").text_area[0].set_value("somebody in a hat")
    press(dropped, "Save")
    assert history(ws) == [("edit", "a1", "somebody in a hat")]


def test_a_random_order_is_in_the_address(ws: Workspace) -> None:
    first = shown(session(order="random", seed="3"))
    assert shown(session(order="random", seed="3")) == first
    orders = {shown(session(order="random", seed=str(seed))) for seed in range(6)}
    assert len(orders) > 1


# -- many at once, and a version -------------------------------------------------------------------


def replaced(app: AppTest, find: str, put: str) -> AppTest:
    app.text_input(key="review_find").set_value(find)
    app.text_input(key="review_put").set_value(put)
    return press(app, "Preview")


def test_find_and_replace_shows_first_and_can_be_taken_back(ws: Workspace) -> None:
    app = replaced(session(view="many"), "a man", "someone")
    assert "texts would change" in shown(app)
    assert history(ws) == [], "a preview writes nothing"
    press(app, "Replace in 2 texts")
    assert sorted(new for _, _, new in history(ws) if new) == [
        "someone in a red hat", "someone riding a bike",
    ]  # fmt: skip
    assert [toast.value for toast in app.toast] == ["2 texts replaced"]
    assert "1 of 2" in shown(session(text="a man")), "nobody has looked at them yet"
    press(app, "Undo")
    assert [toast.value for toast in app.toast] == ["2 edits undone"]
    assert edit_log.newest(ws.store).is_empty()


def test_a_replacement_keeps_to_what_the_filter_shows(ws: Workspace) -> None:
    """v2: "a man" stands in a1 (a caption of the model) and in a2 (an alt text)."""
    app = replaced(session(view="many", source=store.GENERATOR), "a man", "someone")
    # captions of the model in v2: a0, a1, a3, a5, b1 (equally good, first in line), b3
    assert figures(app) == {
        "texts would change": "1", "texts searched": "6", "samples searched": "6 of 10",
        "would be empty or too long": "0",
    }  # fmt: skip
    app.text_input(key="review_text").set_value("red")
    ran(app)
    assert not [b for b in app.button if b.label.startswith("Replace in")], "another filter by now"
    press(app, "Preview")
    assert figures(app)["samples searched"] == "2 of 10"  # a1 and b1
    press(app, "Replace in 1 texts")
    assert history(ws) == [("edit", "a1", "someone in a red hat")]
    assert app.query_params["text"] == "red"
    everywhere = replaced(session(view="many"), "a man", "someone")
    assert figures(everywhere)["samples searched"] == "9 of 10"
    assert figures(everywhere)["texts would change"] == "1", "a2 is left"


def figures(app: AppTest) -> dict[str, str]:
    """The row of figures, with what stands in small below them."""
    found = re.findall(
        r'cc-name">(.*?)</div><div class="cc-value">(.*?)</div><div class="cc-small">(.*?)</div>',
        shown(app),
    )
    return {name: f"{value} {small}".strip() for name, value, small in found}


def test_filter_and_replacement_are_text_in_the_address(ws: Workspace) -> None:
    app = session(view="many", text="red", order="random", seed="3", which="all")
    assert app.text_input(key="review_text").value == "red"
    app.segmented_control(key="review_view").set_value("one")
    assert "red" in shown(ran(app)), "the same filter in the queue"
    assert (app.query_params["order"], app.query_params["seed"]) == ("random", "3")


def test_a_bad_expression_is_named(ws: Workspace) -> None:
    app = session(view="many")
    app.checkbox(key="review_regex").check()
    replaced(app, "(a", "b")
    assert "is not a valid regular expression" in shown(app)
    assert "unclosed group" in shown(app)
    replaced(app, "what no text has", "b")
    assert "Nothing matches" in shown(app)


def test_make_a_version(ws: Workspace) -> None:
    assert "No edits yet" in shown(session(view="make"))
    app = session()
    press(app, "Edit").text_area[0].set_value("a sign")
    press(app, "Save")
    press(app, "Reject")
    app = press(session(view="make"), "Make a version: v2 with the edits")
    assert [toast.value for toast in app.toast] == ["v5 is committed"]
    assert ws.store.version(5).policy["name"] == "top+edits"
    assert "top+edits" in shown(app)
    assert fsck(ws, deep=True).damage == []
    assert figures(app)["edited texts without a score"] == "1"
    assert app.code[0].value == "curator score DATASET --scorer PATH/tiny-clip"
    press(app, "Make a version: v2 with the edits")
    assert [toast.value for toast in app.toast] == ["v5 already exists, with the same edits"]
    fact = store.score_fact(store.image("b3"), "a sign", 0.5)
    store.add_facts(Facts(ws.store, SCORES, store.SCORER), "00001", [fact])
    press(app, "Make a version: v2 with the edits")
    assert [toast.value for toast in app.toast] == ["v6 is committed"]
    assert figures(app)["edited texts without a score"] == "0"
    assert not app.code


# -- many at once ----------------------------------------------------------------------------------


def storm(ws: Workspace, *, num_sessions: int, num_edits: int, num_places: int) -> Counter[str]:
    """Sessions taking turns: one opens a form, others save theirs, so that pages are often old."""
    generator = random.Random(0)
    apps = {number: session(f"r{number}") for number in range(num_sessions)}
    left = Counter(dict.fromkeys(apps, num_edits))
    outcome: Counter[str] = Counter()
    acknowledged: set[str] = set()
    while left:
        number = generator.choice(sorted(left))
        app = apps[number]
        if not app.text_area:
            app.query_params["i"] = str(generator.randrange(num_places))
            press(ran(app), "Edit")
            continue
        app.text_area[0].set_value(f"text {left.total()} of r{number}")
        press(app, "Save")
        said = [toast.value for toast in app.toast if "is saved" in toast.value]
        if said:
            acknowledged.add(said[0].split("`")[1])
            outcome["acknowledged"] += 1
        else:
            assert "was changed by &#x27;r" in shown(app), "refused by name"
            outcome["refused"] += 1
            press(app, "Cancel")
        left -= Counter({number: 1})
    kept = {
        edit.id: edit
        for shard in edit_log.edited_shards(ws.store)
        for edit in edit_log.history(ws.store, shard).edits
    }
    assert set(kept) == acknowledged
    return outcome


def test_sessions_that_overlap_lose_no_edit(ws: Workspace) -> None:
    outcome = storm(ws, num_sessions=4, num_edits=4, num_places=2)
    assert outcome.total() == 16
    assert outcome["refused"] > 0, "they have to overlap"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_50_sessions_of_20_edits_lose_no_edit(ws: Workspace) -> None:
    outcome = storm(ws, num_sessions=50, num_edits=20, num_places=9)
    assert outcome.total() == 1000
    assert outcome["refused"] > 0


# -- in a browser ----------------------------------------------------------------------------------


@pytest.mark.browser
@needs_chromium
def test_by_keyboard_in_a_browser(ws: Workspace) -> None:
    with dashboard(ws.spec) as board, board.open("review?who=Anna&v=v2") as page:
        page.get_by_text("1 of 9 · b3 · 00001").wait_for()
        settle(page)
        page.keyboard.press("a")
        page.get_by_text("2 of 9 · a4 · 00000").wait_for()
        settle(page)
        page.keyboard.press("x")
        page.get_by_text("3 of 9 · a3 · 00000").wait_for()
        settle(page)
        page.keyboard.press("e")
        page.get_by_label("New text").fill("an exact text")  # its letters are no shortcuts
        page.get_by_label("New text").press("Control+Enter")
        page.get_by_text("4 of 9 · a1 · 00000").wait_for()
        settle(page)
        page.keyboard.press("u")
        page.get_by_text("3 of 9 · a3 · 00000").wait_for()
        settle(page)
        assert "i=2" in page.url
        page.keyboard.press("e")
        page.get_by_label("New text").fill(HOSTILE)
        page.get_by_role("button", name="Save").click()
        page.get_by_text("4 of 9 · a1 · 00000").wait_for()
        settle(page)
        page.keyboard.press("ArrowLeft")
        page.get_by_text("History").wait_for()
        assert page.get_by_text("<img src=x").count() > 0, "shown as it was typed"
        page.get_by_text("Make a version").click()
        page.get_by_role("button", name="Make a version: v2 with the edits").click()
        page.get_by_text("Made: v5").wait_for()
        settle(page)
        assert not scrolls_sideways(page)
    assert history(ws, "00001") == [("accept", "b3", None)]
    assert history(ws) == [
        ("reject", "a4", None), ("edit", "a3", "an exact text"), ("undo", "a3", "an exact text"),
        ("edit", "a3", HOSTILE),
    ]  # fmt: skip
