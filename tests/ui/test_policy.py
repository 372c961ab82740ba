"""The page that tries policies: AppTest for its logic, one real browser for the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some
from streamlit.testing.v1 import AppTest

from curator.policy.model import parse_policy
from tests.kit import store
from tests.kit.browser import Board, dashboard, needs_chromium, scrolls_sideways, settle
from tests.kit.hostile import FEW, OUTSIDE
from tests.kit.pages import Open, opener, shown
from tests.kit.store import Kit, Row
from ui.views.policy.controls import pack, unpack

ALIGNED = """# mine
name = "mine"
sources = ["alt_text"]
pick = "first"

[[rule]]
name = "fits"
field = "score"
min = 0.27
"""


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return store.small_store(tmp_path / "shards", ["alt", "strict"])


@pytest.fixture
def open_page(monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    with opener(monkeypatch, "policy") as opened:
        yield opened


def figure(app: AppTest, name: str) -> tuple[str, str]:
    """The value and the small print of a figure."""
    cell = shown(app).partition(f'cc-name">{name}<')[2]
    value = cell.partition('cc-value">')[2].partition("<")[0]
    return value, cell.partition('cc-small">')[2].partition("<")[0]


def text(app: AppTest) -> str:
    return str(app.text_area(key="policy_text").value)


# -- what it would do -----------------------------------------------------------------------------


def test_counts_are_told_against_the_version_in_the_url(kit: Kit, open_page: Open) -> None:
    app = open_page(kit, base="as-is", v="v2")
    # v2 ("strict") keeps four alt texts and drops five; as-is keeps all eight there are.
    assert "All 10 samples in 2 shards: exact." in shown(app)
    assert figure(app, "would change") == ("4", "40.0% of the samples")
    assert figure(app, "kept") == ("8", "4 in v2")
    assert figure(app, "dropped") == ("1", "5 in v2")
    # .30 .05 .31 .26 .08 .29 .33 .20 now: .2275; .30 .31 .29 .33 in v2: .3075
    assert figure(app, "mean score") == ("0.228", "0.308 in v2")


def test_moving_a_threshold_moves_the_counts_and_the_text(kit: Kit, open_page: Open) -> None:
    app = open_page(kit, base="version", v="v2")
    assert "min = 0.27" in text(app)
    assert figure(app, "would change")[0] == "0"
    app.number_input(key="control_min_0").set_value(0.3).run()
    assert "min = 0.3\n" in text(app)
    assert figure(app, "kept") == ("3", "4 in v2")  # .29 falls out
    assert figure(app, "would change")[0] == "1"
    page = shown(app)
    assert "aligned: score ≥ 0.3" in page
    assert "3 texts pass all rules, 5 fail this one" in page
    assert page.index("<b>0.29</b>") < page.index("<b>0.3</b>")  # out stands left of in


def test_typing_the_text_moves_the_widgets(kit: Kit, open_page: Open) -> None:
    app = open_page(kit, base="as-is")
    app.text_area(key="policy_text").set_value(ALIGNED).run()
    assert app.number_input(key="control_min_0").value == 0.27
    assert text(app) == ALIGNED  # the comment too, as long as no widget is moved
    assert figure(app, "kept")[0] == "4"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("name = ", "not valid TOML"),
        (ALIGNED.replace("min =", "mni ="), "unknown key &#x27;rule.0.mni&#x27;"),
        (ALIGNED.replace('"first"', '"worst"'), "pick is &#x27;worst&#x27;"),
        (ALIGNED.replace("alt_text", "generated").replace("0.27", "0.27\nfield = 3"), "TOML"),
    ],
)
def test_a_text_that_is_no_policy_is_told_and_kept(
    kit: Kit, open_page: Open, typed: str, said: str
) -> None:
    app = open_page(kit, base="as-is")
    app.text_area(key="policy_text").set_value(typed).run()
    assert said in shown(app)
    assert text(app) == typed
    assert not [one for one in app.button if one.key == "policy_commit"]
    app.text_area(key="policy_text").set_value(ALIGNED).run()
    assert figure(app, "kept")[0] == "4"


def test_rules_come_and_go(kit: Kit, open_page: Open) -> None:
    app = open_page(kit, base="as-is")
    assert "No rule, so no limit" in shown(app)
    app.selectbox(key="control_new_rule").set_value("words at least").run()
    assert 'name = "long_enough"\nfield = "num_words"\nmin = 3\n' in text(app)
    app.selectbox(key="control_new_rule").set_value("words at least").run()
    assert 'name = "long_enough_2"' in text(app)
    app.selectbox(key="control_source_1").set_value("generated").run()
    assert 'source = "generated"' in text(app)
    app.button(key="control_drop_0").click().run()
    rules = parse_policy(text(app), where="test").rule
    assert [(rule.name, rule.source) for rule in rules] == [("long_enough_2", "generated")]


def test_every_kind_of_rule_can_be_added(kit: Kit, open_page: Open) -> None:
    app = open_page(kit, base="as-is")
    kinds = [kind for kind in app.selectbox(key="control_new_rule").options if "choose" not in kind]
    assert len(kinds) > 5
    for kind in kinds:
        app.selectbox(key="control_new_rule").set_value(kind).run()
    assert len(parse_policy(text(app), where="test").rule) == len(kinds)
    # Flags need the text checker, which has judged nothing here: said, with what to do.
    assert "the policy needs scores by &#x27;text&#x27;" in shown(app)
    assert "--scorer text" in shown(app)


def test_a_widget_that_would_break_the_policy_changes_nothing(kit: Kit, open_page: Open) -> None:
    app = open_page(kit, base="as-is")
    before = text(app)
    app.multiselect(key="control_sources").set_value([]).run()
    assert "sources: " in shown(app)
    assert text(app) == before
    assert app.multiselect(key="control_sources").value == ["alt_text"]


def test_pick_weights_otherwise_and_surgery(kit: Kit, open_page: Open) -> None:
    app = open_page(kit, base="as-is")
    app.button_group(key="control_pick").set_value("all").run()
    app.number_input(key="control_weight_alt_text").set_value(0.4).run()
    app.button_group(key="control_otherwise").set_value("keep_alt").run()
    app.toggle(key="control_surgery").set_value(True).run()
    app.slider(key="control_surgery_percentile").set_value(20.0).run()
    found = parse_policy(text(app), where="test")
    assert (found.pick, found.otherwise, found.weights.alt_text) == ("all", "keep_alt", 0.4)
    assert found.surgery is not None
    assert found.surgery.min_percentile == 20


def test_what_changes_and_what_is_left_out(kit: Kit, open_page: Open) -> None:
    app = open_page(kit, base="version", v="v2", show="moves")
    assert "Nothing changes" in shown(app)
    app = open_page(kit, base="version", v="v1", show="moves")
    assert "Nothing changes" in shown(app)
    app = open_page(kit, base="as-is", v="v2", show="moves")
    assert "dropped → kept (4)" in str(app.selectbox(key="move_1").options)
    assert "IMG_2034.JPG" in shown(app)
    app = open_page(kit, base="as-is", v="v2", show="because")
    assert app.dataframe[0].value.to_dict("list") == {
        "becomes": ["dropped", "quarantined"],
        "because": ["no_text", "image.truncated"],
        "samples": [1, 1],
    }


# -- the address ----------------------------------------------------------------------------------


def test_a_link_carries_the_changed_policy(kit: Kit, open_page: Open) -> None:
    app = open_page(kit, base="as-is", v="v1")
    assert "t" not in app.query_params
    app.text_area(key="policy_text").set_value(ALIGNED).run()
    link = {name: app.query_params[name] for name in ("base", "v", "t", "show")}
    other = open_page(kit, **{name: str(value) for name, value in link.items()})
    assert text(other) == ALIGNED
    assert figure(other, "kept")[0] == "4"


def test_another_start_replaces_the_text(kit: Kit, open_page: Open) -> None:
    app = open_page(kit, base="as-is")
    app.text_area(key="policy_text").set_value(ALIGNED).run()
    app.selectbox(key="pick_base").set_value("filter").run()
    assert text(app).startswith('name = "filter"')
    assert "t" not in app.query_params


@given(some.text())
def test_a_text_comes_back_from_an_address(typed: str) -> None:
    assert unpack(pack(typed)) == typed


@pytest.mark.parametrize("packed", ["", "!", "AAAA", "eJw", pack("x" * 20_001), pack("a")[:-3]])
def test_an_address_that_holds_no_text_is_ignored(packed: str) -> None:
    assert unpack(packed) is None


# -- keeping it -----------------------------------------------------------------------------------


def test_saving_never_overwrites_silently(kit: Kit, open_page: Open, tmp_path: Path) -> None:
    app = open_page(kit, base="as-is")
    app.text_area(key="policy_text").set_value(ALIGNED).run()
    assert app.button(key="policy_save").disabled
    app.text_input(key="policy_folder").set_value(str(tmp_path)).run()
    app.button(key="policy_save").click().run()
    saved = tmp_path / "mine.toml"
    assert saved.read_text() == ALIGNED
    assert "Saved mine.toml" in shown(app)
    other = ALIGNED.replace("0.27", "0.28")
    app.text_area(key="policy_text").set_value(other).run()
    app.button(key="policy_save").click().run()
    assert "the file exists" in shown(app)
    assert str(tmp_path) not in shown(app)  # no path on the page
    assert saved.read_text() == ALIGNED
    app.checkbox[0].set_value(True).run()
    app.button(key="policy_save").click().run()
    assert saved.read_text() == other


def test_committing_makes_the_version_that_was_previewed(kit: Kit, open_page: Open) -> None:
    app = open_page(kit, base="as-is", v="v1")
    app.text_area(key="policy_text").set_value(ALIGNED).run()
    app.button(key="policy_commit").click().run()
    # One of ten samples is unusable, and the limit of `decide` is 5 %.
    assert "the limit is 5.0%" in shown(app)
    assert kit.ws.store.numbers() == [1, 2]


def test_committing_twice_makes_one_version(tmp_path: Path, open_page: Open) -> None:
    rows = (Row("k0", "one", alt_score=0.3), Row("k1", "two", alt_score=0.2))
    mine = store.open_kit(tmp_path / "data", {"00000": rows})
    mine.decide("alt")
    app = open_page(mine, base="as-is")
    app.text_area(key="policy_text").set_value(ALIGNED).run()
    app.button(key="policy_commit").click().run()
    assert 'Committed v2, policy mine: <a href="inspect?v=v2"' in shown(app)
    version = mine.ws.store.version(2)
    assert version.counts == {"captioned": 0, "kept": 1, "dropped": 1, "quarantined": 0}
    app.button(key="policy_commit").click().run()
    assert "The same decision already exists as v2" in shown(app)
    assert mine.ws.store.numbers() == [1, 2]


def test_without_a_version_the_page_says_what_to_do(tmp_path: Path, open_page: Open) -> None:
    page = shown(open_page(store.open_kit(tmp_path / "data")))
    assert "there is no version yet" in page


def test_hostile_captions_are_text(tmp_path: Path, open_page: Open) -> None:
    rows = tuple(Row(f"k{n}", said, alt_score=0.1 * n) for n, said in enumerate(FEW))
    mine = store.open_kit(tmp_path / "data", {"00000": rows})
    mine.decide("alt")
    app = open_page(mine, base="as-is")
    app.text_area(key="policy_text").set_value(ALIGNED).run()
    page = shown(app)
    for active in ("<script", "<img src=x", "<iframe", "\u202e", "\u200b"):
        assert active not in page
    assert "&lt;script&gt;" in page
    assert f"![a fish]({OUTSIDE}/fish.png)" in page


# -- a real browser -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    folder = tmp_path_factory.mktemp("board")
    rows = tuple(Row(f"k{n}", said, alt_score=0.1 * n) for n, said in enumerate(FEW))
    store.open_kit(folder / "shards", {"00000": rows}).decide("alt")
    with dashboard(folder / "shards") as board:
        yield board


@needs_chromium
@pytest.mark.browser
def test_a_threshold_is_moved_and_committed(board: Board) -> None:
    link = f"policy?base=as-is&v=v1&t={pack(ALIGNED)}"
    with board.open(link) as page:
        page.get_by_text("All 7 samples in 1 shard: exact.").wait_for()
        assert page.locator(".cc-edge").count() == 2
        assert page.evaluate("window.hacked") is None
        assert not scrolls_sideways(page)
        field = page.get_by_label("Score at least", exact=True)
        field.fill("0.15")
        field.press("Enter")
        settle(page)
        page.get_by_text("fits: score ≥ 0.15").wait_for()
        page.get_by_role("button", name="Commit").first.click()
        page.get_by_role("button", name="Commit", exact=True).last.click()
        settle(page)
        page.get_by_text("Committed v2").wait_for()
        page.get_by_role("tab", name="Text").click()
        assert "min = 0.15" in page.get_by_label("Policy as TOML").input_value()
        assert "t=" in page.url
        page.get_by_role("link", name="Query").click()
        settle(page)
        page.get_by_role("link", name="Policy").click()
        settle(page)
        page.get_by_text("fits: score ≥ 0.15").wait_for()
