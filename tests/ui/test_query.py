"""The page that asks in SQL: AppTest for its logic, one real browser for the rest."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from curator.query import run as query
from curator.query import worker
from curator.query.run import VIEWS, Request
from tests.kit import store
from tests.kit.browser import Board, dashboard, needs_chromium, scrolls_sideways, settle
from tests.kit.hostile import SECRET, SQL_ATTACKS
from tests.kit.pages import Open, opener, shown
from tests.kit.store import Kit


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    return store.small_store(tmp_path_factory.mktemp("ui_query") / "shards")


@pytest.fixture
def open_page(monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    with opener(monkeypatch, "query") as opened:
        yield opened


class Child(contextlib.nullcontext[None]):
    """What `QueryProcess` starts, without a process."""

    returncode = 0

    def poll(self) -> None:
        """It runs."""

    def kill(self) -> None:
        """It ends with the query."""


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """The worker's own code without the start of its process; what it was asked."""
    asked: list[Request] = []

    class Answering(Child):
        def communicate(self, data: bytes, timeout: float) -> tuple[bytes, bytes]:
            request = Request(**json.loads(data))
            assert timeout == request.timeout_sec
            asked.append(request)
            head, table = worker.answer(request)
            body = io.BytesIO()
            if table is not None:
                with pa.ipc.new_stream(body, table.schema) as writer:
                    writer.write_table(table)
            return json.dumps(head).encode() + b"\n" + body.getvalue(), b""

    monkeypatch.setattr(query, "_started", Answering)
    return asked


def run(app: AppTest, sql: str) -> AppTest:
    app.text_area(key="query_sql").set_value(sql)
    (button,) = [one for one in app.button if one.label == "Run"]
    return button.click().run()


# -- answers --------------------------------------------------------------------------------------


def test_rows_are_shown_with_the_limit_told(
    kit: Kit, open_page: Open, in_this_process: list[Request]
) -> None:
    app = run(open_page(kit, v="v1"), "select key from captions order by key")
    assert app.dataframe[0].value["key"].tolist()[:3] == ["a0", "a1", "a2"]
    assert "10 rows, complete. (v1, " in shown(app)
    request = in_this_process[0]
    assert (request.version, request.limit, request.shards) == (1, 1000, ["00000", "00001"])
    assert (request.timeout_sec, request.memory_mib) == (30.0, 1024)


def test_more_rows_than_the_limit(
    kit: Kit, open_page: Open, in_this_process: list[Request]
) -> None:
    app = run(open_page(kit, limit="100"), "select unnest(range(101)) as n from versions limit 101")
    assert "The first 100 rows; there are more." in shown(app)
    assert "The downloads hold these rows only." in shown(app)
    assert len(app.dataframe[0].value) == 100


def test_one_row_and_none(kit: Kit, open_page: Open, in_this_process: list[Request]) -> None:
    app = run(open_page(kit), "select count(*) as n from samples")
    assert "1 row, complete." in shown(app)
    app = run(app, "select key from samples where key = 'nobody'")
    assert "0 rows, complete." in shown(app)
    assert not app.dataframe


def test_a_link_brings_its_sql_and_runs_nothing(
    kit: Kit, open_page: Open, in_this_process: list[Request]
) -> None:
    app = open_page(kit, sql="select 7 as seven")
    assert app.text_area(key="query_sql").value == "select 7 as seven"
    assert "No result yet" in shown(app)
    assert in_this_process == []
    app = run(app, "select 8 as eight")
    assert app.query_params["sql"] == "select 8 as eight"


def test_examples_run(kit: Kit, open_page: Open, in_this_process: list[Request]) -> None:
    app = open_page(kit)
    names = [name for name in app.selectbox(key="query_example").options if "choose" not in name]
    assert len(names) >= 6
    for name in names:
        app.selectbox(key="query_example").set_value(name).run()
        app = run(app, str(app.text_area(key="query_sql").value))
        assert "complete" in shown(app), name
    # Of the four versions v2 ("best") rewords a0, a1, a5, b3 of v1 ("alt"); see tests.kit.store.
    app.selectbox(key="query_example").set_value("What a recaption changed").run()
    app = run(app, str(app.text_area(key="query_sql").value))
    assert len(app.dataframe[0].value) == 4


def test_an_answer_to_an_earlier_text_says_so(
    kit: Kit, open_page: Open, in_this_process: list[Request]
) -> None:
    app = run(open_page(kit), "select 1 as one")
    assert "for an earlier query text" not in shown(app)
    app.selectbox(key="query_example").set_value("Worst scores").run()
    assert "for an earlier query text" in shown(app)
    assert app.dataframe[0].value["one"].tolist() == [1]


def test_the_schema_is_beside_it(kit: Kit, open_page: Open) -> None:
    page = shown(open_page(kit))
    for view in VIEWS:
        assert view.about.replace("'", "&#x27;") in page
        for name in view.columns:
            assert f"<td>{name}</td>" in page


def test_a_store_without_versions_can_be_asked(
    tmp_path: Path, open_page: Open, in_this_process: list[Request]
) -> None:
    app = run(open_page(store.open_kit(tmp_path)), "select count(*) as n from samples")
    assert app.dataframe[0].value["n"].tolist() == [10]
    assert "(no version, " in shown(app)


# -- taking it along ------------------------------------------------------------------------------


def test_downloads_hold_the_rows(
    kit: Kit, open_page: Open, in_this_process: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: dict[str, bytes] = {}

    def button(label: str, data: Callable[[], bytes], **_: object) -> None:
        taken[label] = data()

    monkeypatch.setattr(st, "download_button", button)
    sql = """select key, flags, [{'a': 1}] as parts, alt_text from samples
             where key in ('a1', 'b3') order by key"""
    run(open_page(kit), sql)
    frame = pl.read_csv(taken["CSV"])
    assert frame.columns == ["key", "flags", "parts", "alt_text"]
    assert frame["alt_text"].to_list() == ["IMG_2034.JPG", "a <b>bold</b> sign"]
    assert json.loads(frame["parts"][0]) == [{"a": 1}]
    table = pl.read_parquet(io.BytesIO(taken["Parquet"]))
    assert table["key"].to_list() == ["a1", "b3"]
    assert table["parts"].to_list() == [[{"a": 1}], [{"a": 1}]]


def test_equal_names_and_what_json_has_no_word_for(
    kit: Kit, open_page: Open, in_this_process: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: dict[str, bytes] = {}

    def button(label: str, data: Callable[[], bytes], **_: object) -> None:
        taken[label] = data()

    monkeypatch.setattr(st, "download_button", button)
    sql = """select key, key, 'nan'::double as n, ['nan'::double] as l, 'x'::blob as b,
             interval 1 day as i from samples where key = 'a1'"""
    page = shown(run(open_page(kit), sql))
    assert "column 2, &#x27;key&#x27;, is shown as &#x27;key_1&#x27;: its name is taken" in page
    assert taken["CSV"].decode() == "key,key_1,n,l,b,i\na1,a1,NaN,[null],x,1 day\n"
    table = pl.read_parquet(io.BytesIO(taken["Parquet"]))
    assert table.columns == ["key", "key_1", "n", "l", "b", "i"]


# -- errors and attacks ---------------------------------------------------------------------------


def test_an_error_comes_as_the_query_gives_it_and_leaves_the_text(
    kit: Kit, open_page: Open, in_this_process: list[Request]
) -> None:
    app = run(open_page(kit), "select 1 as one")
    app = run(app, "select txt from captions")
    page = shown(app)
    assert "query.invalid" in page
    assert "the views: samples, captions(version, shard, row, key" in page
    assert not app.dataframe  # no rows of the question before
    assert app.text_area(key="query_sql").value == "select txt from captions"


def attacked(kit: Kit, folder: Path, attack: str) -> tuple[str, dict[str, bytes]]:
    """The SQL of an attack, and all files that there are."""
    secret = folder / "secret.csv"
    secret.write_text(f"{SECRET}\n")
    if not (folder / "store").exists():
        (folder / "store").symlink_to(kit.ws.store.root)
    sql = attack.format(secret=secret, out=folder / "out", folder=folder)
    return sql, files(kit, folder)


def files(kit: Kit, folder: Path) -> dict[str, bytes]:
    roots = (folder, kit.ws.dataset.root)
    paths = [path for root in roots for path in root.rglob("*") if path.is_file()]
    return {str(path): path.read_bytes() for path in paths}


def test_attacks_through_the_page_read_and_write_nothing(
    kit: Kit,
    open_page: Open,
    in_this_process: list[Request],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    app = open_page(kit)
    assert len(set(SQL_ATTACKS)) >= 25
    for attack in SQL_ATTACKS:
        sql, before = attacked(kit, tmp_path, attack)
        app = run(app, sql)
        page = shown(app)
        assert "query.refused" in page or "query.invalid" in page, attack
        assert SECRET not in page
        assert not app.dataframe
        assert files(kit, tmp_path) == before, attack
    assert len(in_this_process) == len(SQL_ATTACKS)


@pytest.mark.parametrize(
    "attack", ["copy (select 1) to '{out}'", "select * from read_text('{secret}')"]
)
def test_attacks_meet_the_process_itself(
    kit: Kit, open_page: Open, tmp_path: Path, attack: str
) -> None:
    sql, before = attacked(kit, tmp_path, attack)
    page = shown(run(open_page(kit), sql))
    assert "query.refused" in page or "query.invalid" in page
    assert SECRET not in page
    assert files(kit, tmp_path) == before


@pytest.mark.slow
@pytest.mark.parametrize("attack", SQL_ATTACKS)
def test_every_attack_meets_the_process_itself(
    kit: Kit, open_page: Open, tmp_path: Path, attack: str
) -> None:
    test_attacks_meet_the_process_itself(kit, open_page, tmp_path, attack)


def test_an_endless_query_is_stopped(
    kit: Kit, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(Child):
        def communicate(self, _: bytes, timeout: float) -> None:
            raise subprocess.TimeoutExpired("query", timeout)

    monkeypatch.setattr(query, "_started", Late)
    page = shown(run(open_page(kit), "select 1"))
    assert "the query took longer than 30 s" in page
    assert "query.timeout" in page


# -- a real browser -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def board(kit: Kit) -> Iterator[Board]:
    with dashboard(kit.ws.spec) as board:
        yield board


@needs_chromium
@pytest.mark.browser
def test_a_query_is_typed_run_and_taken_along(board: Board) -> None:
    with board.open("query") as page:
        field = page.get_by_label("SQL")
        field.fill("select key, alt_text from samples where key = 'b3'")
        field.press("Control+Enter")
        settle(page)
        page.get_by_text("1 row, complete.").wait_for()
        page.locator("[data-testid=stDataFrame] canvas").first.wait_for()
        with page.expect_download() as found:
            page.get_by_role("button", name="CSV", exact=True).click()
        assert "a <b>bold</b> sign" in Path(found.value.path()).read_text()
        page.get_by_text("captions", exact=True).first.click()
        page.get_by_text("SHA-256 of the text").first.wait_for()
        assert not scrolls_sideways(page)
        field.fill("select * from read_text('/etc/hostname')")
        page.get_by_role("button", name="Run").click()
        page.get_by_role("alert").wait_for()
        assert "query.refused" in page.get_by_role("alert").inner_text()
