"""The page of studies: AppTest for its logic, one real browser for the rest."""

from __future__ import annotations

import html
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import streamlit as st
from playwright.sync_api import expect

from finetune.report.build import build_report
from finetune.report.html import render_html
from finetune.report.markdown import render_markdown
from finetune.report.text import gap_sentence, headline, sentence
from finetune.report.values import Report
from tests.kit import store, study
from tests.kit.browser import (
    PATIENCE_MS,
    Board,
    dashboard,
    needs_chromium,
    scrolls_sideways,
    settle,
)
from tests.kit.pages import Open, opener, shown
from tests.kit.store import Kit
from ui.views.studies.runs import find_studies, runs


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two studies: the made-up one with three seeds, and a small one with a run that failed."""
    folder = tmp_path_factory.mktemp("studies")
    study.run(study.study(seeds="3"), folder / "whole")
    failing = study.FakeRunner(fails=("depth, b, seed 1",))
    study.run(study.study(study.SMALL), folder / "more" / "small", failing)
    return folder


@pytest.fixture(scope="module")
def report(studies: Path) -> Report:
    return build_report(studies / "whole")


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    return store.small_store(tmp_path_factory.mktemp("ui_studies") / "shards", ["alt"])


@pytest.fixture
def open_page(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    with opener(monkeypatch, "studies") as opened:
        yield lambda studies, **url: opened(kit, studies=studies, **url)


def told(page: str, said: str) -> bool:
    return html.escape(said, quote=True) in page


# -- finding --------------------------------------------------------------------------------------


def test_studies_are_found_a_few_folders_down(studies: Path, tmp_path: Path) -> None:
    assert list(find_studies(studies, 3)) == ["more/small", "whole"]
    assert list(find_studies(studies, 1)) == ["whole"]
    assert list(find_studies(studies / "whole", 3)) == ["whole"]  # it is one itself
    (tmp_path / ".hidden").mkdir()
    shutil.copy(studies / "whole" / "study.json", tmp_path / ".hidden")
    (tmp_path / "link").symlink_to(studies)
    assert find_studies(tmp_path, 3) == {}


def test_the_address_names_a_study_below_the_folder_and_no_other(
    studies: Path, open_page: Open
) -> None:
    assert "<h1>small</h1>" in shown(open_page(studies))
    assert "<h1>made up</h1>" in shown(open_page(studies, study="whole"))
    for elsewhere in (str(studies / "whole"), "../whole", "more/../whole", "nothing"):
        assert "<h1>small</h1>" in shown(open_page(studies, study=elsewhere))


def test_without_a_folder_studies_beside_the_shards_are_shown(
    kit: Kit, studies: Path, open_page: Open
) -> None:
    assert "No study found" in shown(open_page(None))
    st.cache_data.clear()
    beside = kit.ws.dataset.root.parent / "found"
    shutil.copytree(studies / "whole", beside)
    try:
        assert "<h1>made up</h1>" in shown(open_page(None))
    finally:
        shutil.rmtree(beside)


# -- what is shown --------------------------------------------------------------------------------


def test_the_verdict_comes_first_with_what_to_know(
    studies: Path, report: Report, open_page: Open
) -> None:
    page = shown(open_page(studies, study="whole"))
    said = headline(report)
    assert len(said) == 2
    for task, line in said:
        assert f"<b>{task[:1].upper()}{task[1:]}:</b> {html.escape(line)}" in page
    first = page.index(f'<p class="cc-decision">{html.escape(report.decision.sentence)}</p>')
    assert (
        first
        < page.index("cc-verdict")
        < page.index("Before you believe this")
        < page.index("cc-study")
    )
    for line in (*report.warnings, *report.notes):
        assert told(page, line)


def test_results_are_those_of_the_report(studies: Path, report: Report, open_page: Open) -> None:
    app = open_page(studies, study="whole")
    page = shown(app)
    for task in report.tasks:
        for comparison in task.comparisons:
            assert told(page, sentence(comparison))
        for arm, mean in task.means.items():
            assert f"{arm}</td><td>{mean.n}</td><td>{task.metric.number(mean.mean)}<" in page
    assert len(app.get("image")) == len(report.tasks)
    assert "Against masked images, as the paper reports it" in page


def test_curves_with_how_much_less_is_needed(
    studies: Path, report: Report, open_page: Open
) -> None:
    app = open_page(studies, study="whole", show="curves")
    # Two tasks over labels and over samples.
    assert len(app.get("image")) == 4
    asked = [gap for task in report.tasks for gap in task.gaps if gap.arm == "recaptioned"]
    assert asked
    for gap in asked:
        assert told(shown(app), gap_sentence(gap))


def test_learning_cost_and_how_it_was_made(studies: Path, report: Report, open_page: Open) -> None:
    assert len(open_page(studies, study="whole", show="learning").get("image")) == 3
    cost = shown(open_page(studies, study="whole", show="cost"))
    assert "<td>3</td><td>51,200</td>" in cost
    made = shown(open_page(studies, study="whole", show="made"))
    assert "<dt>recipe</dt><dd>tiny</dd>" in made
    assert "<dt>seeds</dt><dd>0, 1, 2</dd>" in made


def test_pictures_of_every_arm_and_none_from_elsewhere(
    studies: Path, tmp_path: Path, open_page: Open
) -> None:
    page = shown(open_page(studies, study="whole", show="pictures"))
    # Two tasks, four pictures, each with its truth and six arms.
    assert page.count("data:image/png;base64,") == 2 * 4 * 8
    copy = tmp_path / "studies" / "mine"
    shutil.copytree(studies / "whole", copy)
    (tmp_path / "secret.png").write_bytes(b"a picture of another folder")
    plan = json.loads((copy / "study.json").read_text())
    dense = next(cell["digest"] for cell in plan["cells"] if cell["kind"] == "dense")
    first = copy / "cells" / f"{dense}.json"
    record = json.loads(first.read_text())
    one, two, *_ = record["outcome"]["pictures"]
    one["image"], two["image"] = str(tmp_path / "secret.png"), "../../secret.png"
    first.write_text(json.dumps(record))
    page = shown(open_page(copy.parent, show="pictures"))
    assert "YSBwaWN0dXJl" not in page  # "a picture" in base64
    assert page.count("<i></i>") == 2


def test_runs_can_be_narrowed_down(studies: Path, open_page: Open) -> None:
    app = open_page(studies, study="more/small", show="cells")
    table = app.dataframe[0].value
    # Two arms, two seeds: a pretraining and a dense run each.
    assert len(table) == 8
    assert table["state"].tolist().count("failed") == 1
    (reason,) = table["reason"].dropna()
    assert reason.startswith("no memory for depth, b, seed 1")
    app = open_page(studies, study="more/small", show="cells", of_arm="a", of_stage="dense")
    table = app.dataframe[0].value
    assert (set(table["arm"]), set(table["stage"]), len(table)) == ({"a"}, {"dense"}, 2)
    assert "2 of 8 runs" in shown(app)
    assert table["result"].tolist()[0].split(",")[0].endswith(" m RMSE")
    app.multiselect(key="some_of_arm").set_value(["b"]).run()
    assert app.query_params["of_arm"] == "b"
    assert set(app.dataframe[0].value["arm"]) == {"b"}


def test_runs_that_wait_are_rows_too(studies: Path) -> None:
    plan = json.loads((studies / "more" / "small" / "study.json").read_text())
    assert {row["state"] for row in runs(plan, {})} == {"waiting"}


def test_a_study_that_goes_on_is_read_again(studies: Path, tmp_path: Path, open_page: Open) -> None:
    shutil.copytree(studies / "more" / "small", tmp_path / "small")
    cells = sorted((tmp_path / "small" / "cells").glob("*.json"))
    last = next(cell for cell in cells if '"failed"' not in cell.read_text())
    kept = last.read_bytes()
    last.unlink()
    app = open_page(tmp_path)
    assert "of 8, 1 failed" in shown(app)
    assert 'cc-value">6<' in shown(app)
    last.write_bytes(kept)
    assert 'cc-value">7<' in shown(app.run())


def test_a_damaged_study_is_told_without_a_path(
    studies: Path, tmp_path: Path, open_page: Open
) -> None:
    shutil.copytree(studies / "more" / "small", tmp_path / "small")
    (tmp_path / "small" / "study.json").write_text("{")
    page = shown(open_page(tmp_path))
    assert "the file is unreadable" in page
    assert str(tmp_path) not in page


def test_downloads_are_the_report_itself(
    studies: Path, report: Report, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: dict[str, bytes] = {}

    def button(label: str, data: Callable[[], bytes], **_: object) -> None:
        taken[label] = data()

    monkeypatch.setattr(st, "download_button", button)
    open_page(studies, study="whole")
    assert taken["Report page"].decode() == render_html(report, studies / "whole")
    assert taken["Markdown"].decode() == render_markdown(report)


def test_names_of_arms_are_text(tmp_path: Path, open_page: Open) -> None:
    name = "<img src=x onerror=alert(1)>"
    text = study.SMALL.replace('"b"', json.dumps(name)).replace('"small"', '"**small** [a](b)"')
    study.QUALITY[name] = 1.0
    try:
        study.run(study.study(text), tmp_path / "hostile")
    finally:
        del study.QUALITY[name]
    for part in ("results", "pictures", "learning", "cost", "made"):
        page = shown(open_page(tmp_path, show=part))
        assert "<img src=x" not in page
        assert "&lt;img src=x" in page
    assert "<h1>**small** [a](b)</h1>" in page


# -- a real browser -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def board(kit: Kit, studies: Path) -> Iterator[Board]:
    with dashboard(kit.ws.spec, studies=studies) as board:
        yield board


@needs_chromium
@pytest.mark.browser
def test_a_verdict_is_read_part_by_part_and_taken_along(board: Board) -> None:
    with board.open("studies?study=whole", dark=True) as page:
        page.get_by_text("Before you believe this").wait_for()
        plot = page.locator("[data-testid=stImage] img").first
        plot.wait_for()
        # The drawing brings its colours: it is a picture, and no variable reaches into it.
        assert plot.evaluate("image => image.naturalWidth") > 0
        for part, name in (
            ("Fewer labels", "curves"),
            ("Pictures", "pictures"),
            ("Learning", "learning"),
            ("Runs", "cells"),
            ("Cost", "cost"),
            ("How it was made", "made"),
        ):
            page.get_by_role("radio", name=part).click()
            # Before the script has begun to run, nothing there tells that it will.
            expect(page).to_have_url(re.compile(f"show={name}$"), timeout=PATIENCE_MS)
            settle(page)
            assert page.locator(".cc-error").count() == 0
            assert not scrolls_sideways(page)
        with page.expect_download() as found:
            page.get_by_role("button", name="Report page").click()
        assert Path(found.value.path()).read_text().startswith("<!doctype html>")
