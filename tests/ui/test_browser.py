"""The dashboard in a real browser: overview and inspect, links, keyboard, hostile captions."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.kit.browser import Board, dashboard, needs_chromium, open_list, scrolls_sideways, settle
from tests.kit.hostile import CAPTIONS
from tests.kit.store import Row, open_kit, small_store

pytestmark = [pytest.mark.browser, needs_chromium]

TILES = "[class*=st-key-tile_]"


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    kit = small_store(tmp_path_factory.mktemp("store") / "shards")
    with dashboard(kit.ws.dataset.root) as found:
        yield found


@pytest.mark.parametrize("width", [1280, 1920])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_overview_fits_and_has_its_light(board: Board, width: int, dark: bool) -> None:
    with board.open("", width=width, dark=dark) as page:
        expect(page.locator("h1")).to_have_text("Overview")
        expect(page.get_by_text("In quarantine by")).to_be_visible()
        assert not scrolls_sideways(page)
        ground = page.evaluate(
            "getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor"
        )
        assert ground == ("rgb(20, 23, 28)" if dark else "rgb(255, 255, 255)")
        for clutter in ("stAppDeployButton", "stStatusWidget", "stMainMenu"):
            expect(page.get_by_test_id(clutter)).to_have_count(0)


def test_a_version_is_chosen_by_its_button_and_goes_along(board: Board) -> None:
    with board.open() as page:
        page.get_by_role("button", name="v2", exact=True).click()
        expect(page.get_by_text("How v2 was made")).to_be_visible()
        page.get_by_role("link", name="Inspect").click()
        expect(page.get_by_text("10 of 10 texts in v2")).to_be_visible()
        page.wait_for_url("**v=v2**")


def test_overview_is_also_found_by_its_name(board: Board) -> None:
    with board.open("overview?v=v1") as page:
        expect(page.get_by_text("How v1 was made")).to_be_visible()
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(page.get_by_role("link", name="Overview")).to_have_count(1)


def test_inspect_from_grid_to_sample_by_click_and_keyboard(board: Board) -> None:
    with board.open("inspect?v=v2&order=score") as page:
        expect(page.locator(TILES)).to_have_count(10)
        for picture in page.locator(f"{TILES} img").all():
            picture.scroll_into_view_if_needed()
            wait_for_picture(page)
        page.locator(TILES).nth(1).click()
        expect(page.get_by_text("A plate with 3 apples").first).to_be_visible()
        page.wait_for_url("**sample=00000**")
        settle(page)
        page.keyboard.press("ArrowRight")
        expect(page.get_by_text("a woman holding a cat").first).to_be_visible()
        page.get_by_text("Where it comes from").first.click()
        expect(page.get_by_text("tiny-vlm").first).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator(TILES)).to_have_count(10)
        page.locator(TILES).first.get_by_role("button").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_text('a sign with the words "a & b"').first).to_be_visible()


def wait_for_picture(page: Page) -> None:
    page.wait_for_function(
        "[...document.querySelectorAll('img')].every(i => i.complete && i.naturalWidth > 0)"
    )


def test_what_is_typed_stands_in_the_link(board: Board) -> None:
    with board.open("inspect?v=v2") as page:
        box = page.get_by_label("Text contains")
        box.fill("red")
        box.press("Enter")
        expect(page.get_by_text("2 of 10 texts in v2")).to_be_visible()
        link = page.url
    assert "text=red" in link
    with board.open(link.removeprefix(board.url + "/")) as page:
        expect(page.get_by_text("2 of 10 texts in v2")).to_be_visible()
        page.get_by_role("button", name="Clear filters").click()
        expect(page.get_by_text("10 of 10 texts in v2")).to_be_visible()


def test_an_error_is_explained(board: Board) -> None:
    with board.open("inspect?v=v2&sample=00000/99") as page:
        expect(page.get_by_role("alert")).to_contain_text("has no row 99")
        assert "/tmp" not in page.inner_text("body")


# -- hostile captions ------------------------------------------------------------------------------

# Nothing that a caption could have made: the page itself has none of these inside its texts.
_ACTIVE = "script, img, a, iframe, svg, form, input, button, style, link, math, code, table, strong"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    rows = tuple(Row(f"k{number:02}", text, text, 0.1, 0.2) for number, text in enumerate(CAPTIONS))
    kit = open_kit(tmp_path_factory.mktemp("hostile") / "shards", {"s": rows})
    kit.decide("alt")
    kit.decide(
        'name = "<img src=//outside.invalid/p onerror=window.hacked=1>"\n'
        'description = "![x](http://outside.invalid/q.png) <script>window.hacked=1</script>"\n'
        'sources = ["generated"]\npick = "first"\n\n'
        '[[rule]]\nname = "![r](http://outside.invalid/r.png)"\nfield = "score"\nmin = 0.15\n'
    )
    with dashboard(kit.ws.dataset.root) as found:
        yield found


def is_inert(page: Page) -> None:
    assert page.evaluate("window.hacked") is None
    texts = page.locator(".cc-text")
    assert texts.count() > 0
    for part in (".cc-text", ".cc-about", ".cc-badge"):
        assert page.locator(f":is({part}) :is({_ACTIVE})").count() == 0
    assert not scrolls_sideways(page)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_forty_hostile_captions_in_the_grid(hostile: Board, version: str) -> None:
    with hostile.open(f"inspect?v={version}") as page:
        expect(page.locator(TILES)).to_have_count(len(CAPTIONS))
        is_inert(page)
        shown = page.locator(f"{TILES} .cc-text").all_inner_texts()
        assert "<script>window.hacked=1</script>" in shown
        assert "![picture](http://outside.invalid/d.png)" in shown
        assert any("U+202E" in text for text in shown) == (version == "v2")  # v1's are cleaned


@pytest.mark.parametrize("row", range(0, len(CAPTIONS), 3))
def test_hostile_captions_at_large(hostile: Board, row: int) -> None:
    with hostile.open(f"inspect?v=v2&sample=s/{row}") as page:
        expect(page.get_by_text("captioned in v2")).to_be_visible()
        is_inert(page)


def test_hostile_names_of_policies_and_rules(hostile: Board) -> None:
    with hostile.open("") as page:
        expect(page.get_by_text("How v2 was made")).to_be_visible()
        graph = page.locator(".st-key-lineage svg")
        expect(graph.get_by_text("<img src=//outside.invali…")).to_be_visible()
        page.get_by_text("Policy and models").click()
        expect(page.get_by_text("rule ![r](http://outside.invalid/r.png)")).to_be_visible()
        for part in (".st-key-lineage svg", ".cc-about", ".cc-badge", ".cc-facts"):
            assert page.locator(f"{part} :is({_ACTIVE}, foreignObject)").count() == 0
        assert not scrolls_sideways(page)
        versions = open_list(page, page.get_by_role("combobox").first)
        expect(versions).to_have_count(2)
        assert page.evaluate("window.hacked") is None


def test_a_hostile_link_does_nothing(hostile: Board) -> None:
    attack = "%3Cimg%20src%3Dx%20onerror%3Dwindow.hacked%3D1%3E"
    with hostile.open(f"inspect?v={attack}&text={attack}&sample={attack}&key={attack}") as page:
        expect(page.get_by_text(re.compile("0 of 40 texts"))).to_be_visible()
        assert page.evaluate("window.hacked") is None
        assert page.locator("img[src=x]").count() == 0


# -- the server ------------------------------------------------------------------------------------


def test_only_this_machine_is_listened_to(board: Board) -> None:
    assert board.url.startswith("http://127.0.0.1:")
    port = int(board.url.rpartition(":")[2])
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    lines = [line.split() for table in tables for line in table.read_text().splitlines()[1:]]
    listening = {line[1] for line in lines if line[3] == "0A" and line[1].endswith(f":{port:04X}")}
    assert listening == {f"0100007F:{port:04X}"}


def test_another_host_name_cannot_reach_the_session(board: Board) -> None:
    """DNS rebinding: a page of somebody else that resolves its name to this machine."""
    host, port = board.url.removeprefix("http://").split(":")
    handshake = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    for name, wanted in ((f"{host}:{port}", 101), ("outside.invalid", 403)):
        connection = http.client.HTTPConnection(host, int(port))
        origin = {"Host": name, "Origin": f"http://{name}"}
        connection.request("GET", "/_stcore/stream", headers={**handshake, **origin})
        assert connection.getresponse().status == wanted
        connection.close()
