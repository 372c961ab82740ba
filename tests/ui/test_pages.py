"""The overview and inspect pages without a browser."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from curator.core.errors import UsageError
from curator.store import sealed
from curator.store.runs import open_run
from tests.kit.pages import UI, open_page, run, shown
from tests.kit.store import Kit, open_kit, small_store
from ui.shared import context


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    found = small_store(tmp_path_factory.mktemp("store") / "shards")
    found.ws.store.tag("good", found.versions["best"])
    return found


def shards(kit: Kit) -> Path:
    return kit.ws.dataset.root


def titles(page: AppTest) -> list[str]:
    """The texts of the tiles of a grid."""
    return re.findall(r'<div class="cc-tile.*?cc-text" dir="auto">(.*?)</div>', shown(page))


# -- overview --------------------------------------------------------------------------------------


def test_overview(monkeypatch: pytest.MonkeyPatch, kit: Kit) -> None:
    page = open_page(monkeypatch, shards(kit), "overview")
    told = shown(page) + page.get("graphviz_chart")[0].proto.spec
    assert page.query_params["v"] == "v4"  # the newest
    for name in ("v1", "v2", "v3", "v4", "good", "strict", "vlm.refusal", "image.truncated"):
        assert name in told, name
    page.button(key="show_v2").click()
    run(page)
    assert page.query_params["v"] == "v2"
    assert "How v2 was made" in shown(page)


def test_overview_of_an_empty_store_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kit = open_kit(tmp_path / "shards")
    told = shown(open_page(monkeypatch, shards(kit), "overview"))
    assert "There is no version yet" in told
    assert "curator recaption" in told


def test_a_link_to_a_version_that_is_gone_shows_the_newest(
    monkeypatch: pytest.MonkeyPatch, kit: Kit
) -> None:
    page = open_page(monkeypatch, shards(kit), "overview", v="v77")
    assert page.query_params["v"] == "v4"


def test_overview_shows_a_run_at_work_and_one_that_died(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kit = small_store(tmp_path / "shards", ["best"])
    with open_run(kit.ws.store, "recaption", {"policy": "<i>mine</i>"}) as working:
        working.progress("caption (local)", 250, 1000)
        working.write()
        told = shown(open_page(monkeypatch, shards(kit), "overview"))
        assert "running" in told
        assert "250 of 1,000" in told
        assert "width:25.00%" in told
        assert "policy &lt;i&gt;mine&lt;/i&gt;" in told
        path = working.folder / "run.json"
        sealed.write(path, {**sealed.read(path), "pid": 2**22 + 1})
        os.utime(path, (0, 0))
        told = shown(open_page(monkeypatch, shards(kit), "overview"))
        assert "died" in told
        assert "run the same command again to resume" in told


# -- inspect ---------------------------------------------------------------------------------------


def test_inspect_shows_a_version(monkeypatch: pytest.MonkeyPatch, kit: Kit) -> None:
    page = open_page(monkeypatch, shards(kit), "inspect", v="v2")
    assert "10 of 10 texts in v2" in shown(page)
    assert len(titles(page)) == 10
    assert titles(page)[0] == "two dogs running on a beach"
    assert "a sign with the words &quot;a &amp; b&quot;" in titles(page)


def test_filters_come_from_the_url(monkeypatch: pytest.MonkeyPatch, kit: Kit) -> None:
    url = {"v": "v2", "action": ["captioned"], "order": "score", "falling": "true"}
    page = open_page(monkeypatch, shards(kit), "inspect", **url)  # type: ignore[arg-type]  # of tables of tests
    assert "6 of 10 texts in v2" in shown(page)
    assert titles(page)[:2] == ["a red car", "two dogs running on a beach"]
    assert page.multiselect(key="action").value == ["captioned"]


def test_a_filter_is_typed_and_cleared(monkeypatch: pytest.MonkeyPatch, kit: Kit) -> None:
    page = open_page(monkeypatch, shards(kit), "inspect", v="v2", page="3")
    page.text_input(key="text").set_value("RED")
    run(page)
    assert titles(page) == ["a man in a red hat", "a red car"]
    assert "page" not in page.query_params  # another list begins at its first page
    page.text_input(key="text").set_value("nowhere")
    run(page)
    assert "No text matches these filters" in shown(page)
    (clear,) = [button for button in page.sidebar.button if button.label == "Clear filters"]
    clear.click()
    run(page)
    assert len(titles(page)) == 10


def test_score_limits(monkeypatch: pytest.MonkeyPatch, kit: Kit) -> None:
    page = open_page(monkeypatch, shards(kit), "inspect", v="v2")
    low, high = page.slider(key="score").value
    assert (low, high) == (pytest.approx(0.24), pytest.approx(0.33))
    page.slider(key="score").set_range(0.3, high)
    run(page)
    assert "4 of 10 texts in v2" in shown(page)  # a0 a2 a5 b1
    page.slider(key="score").set_range(low, high)
    run(page)
    assert "10 of 10 texts in v2" in shown(page)  # with the one that has no score


def test_limits_that_another_version_cannot_have(monkeypatch: pytest.MonkeyPatch, kit: Kit) -> None:
    page = open_page(monkeypatch, shards(kit), "inspect", v="v1")  # .05 to .33
    page.slider(key="score").set_range(0.05, 0.2)
    run(page)
    assert "3 of 10 texts in v1" in shown(page)  # .05 .08 .20
    page.selectbox(key="pick_v").select("v2")  # .24 to .33
    run(page)
    assert "of 10 texts in v2" in shown(page)
    page = open_page(monkeypatch, shards(kit), "inspect", v="v2", score=["-7", "0.2"])
    assert "of 10 texts in v2" in shown(page)


def test_against_another_version(monkeypatch: pytest.MonkeyPatch, kit: Kit) -> None:
    page = open_page(monkeypatch, shards(kit), "inspect", v="v2", against="v1")
    assert "5 of 10 texts" in shown(page)
    page = open_page(monkeypatch, shards(kit), "inspect", v="v2", against="v1", change="unchanged")
    assert "5 of 10 texts" in shown(page)
    assert "the same as in v1" in shown(page)


def test_a_click_opens_a_sample_and_arrows_go_on(monkeypatch: pytest.MonkeyPatch, kit: Kit) -> None:
    page = open_page(monkeypatch, shards(kit), "inspect", v="v2", order="score")
    page.button(key="open_1").click()  # the second worst: a4
    run(page)
    assert (page.query_params["sample"], page.query_params["at"]) == ("00000/4", "1")
    assert "A plate with 3 apples" in shown(page)
    assert "vlm.refusal" in shown(page)
    page.button(key="next").click()
    run(page)
    assert page.query_params["sample"] == "00000/3"
    assert "a woman holding a cat" in shown(page)
    page.button(key="previous").click()
    run(page)
    page.button(key="close").click()
    run(page)
    assert "sample" not in page.query_params
    assert len(titles(page)) == 10


def test_a_link_to_a_sample(monkeypatch: pytest.MonkeyPatch, kit: Kit) -> None:
    page = open_page(monkeypatch, shards(kit), "inspect", v="v2", sample="00001/2")
    assert "image.truncated" in shown(page)
    assert "quarantined in v2" in shown(page)


@pytest.mark.parametrize("sample", ["00001/99", "nowhere/1", "x", "00000/-1"])
def test_a_link_to_no_sample_is_an_explained_error(
    monkeypatch: pytest.MonkeyPatch, kit: Kit, sample: str
) -> None:
    page = open_page(monkeypatch, shards(kit), "inspect", v="v2", sample=sample)
    assert "cc-error" in shown(page)


# -- the frame -------------------------------------------------------------------------------------


def test_every_page_of_the_navigation_exists_and_runs(
    monkeypatch: pytest.MonkeyPatch, kit: Kit
) -> None:
    monkeypatch.setenv("CURATOR_UI_DATASET", str(shards(kit)))
    frame = AppTest.from_file(str(UI / "app.py"), default_timeout=60).run()
    assert not frame.exception
    listed = re.findall(r'"(\w+)": "\w+"', (UI / "app.py").read_text())
    assert sorted(listed) == sorted(path.parent.name for path in (UI / "views").glob("*/page.py"))


def test_errors_are_explained_without_a_path(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(context.st, "html", lambda body: shown.append(str(body)))

    def wrong() -> None:
        raise UsageError("no <b>such</b> thing", where="/home/ann/x", hint="do this instead")

    context.run(wrong)
    assert "no &lt;b&gt;such&lt;/b&gt; thing" in shown[-1]
    assert "do this instead" in shown[-1]
    assert "/home/ann" not in shown[-1]

    def broken() -> None:
        raise ZeroDivisionError("/home/ann/secret")

    context.run(broken)
    assert "Something went wrong" in shown[-1]
    assert "/home/ann" not in shown[-1]
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_without_a_dataset_the_page_says_how_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CURATOR_UI_DATASET", raising=False)
    page = AppTest.from_file(str(UI / "views" / "inspect" / "page.py"), default_timeout=60).run()
    assert "curator ui DATASET" in shown(page)


@pytest.mark.parametrize(
    ("url", "default", "found"),
    [
        ("7", 3, 7),
        ("x", 3, 3),
        ("0.5", 0.0, 0.5),
        ("1", False, True),
        ("yes", True, True),
        ("text", "", "text"),
    ],
)
def test_state_is_typed(
    monkeypatch: pytest.MonkeyPatch, url: str, default: object, found: object
) -> None:
    monkeypatch.setattr(context.st, "query_params", {"key": url})
    assert context.state("key", default) == found  # type: ignore[type-var]  # several types
    assert context.state("other", default) == default  # type: ignore[type-var]  # several types
