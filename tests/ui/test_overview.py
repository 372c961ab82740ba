"""The overview page: the graph of versions, quarantine of runs, health that comes late."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from playwright.sync_api import expect

from curator.browse import languages
from curator.browse.lineage import lineage, lines
from curator.core.errors import DamageError
from curator.core.stopping import StopRequest
from curator.edits import log as edit_log
from curator.edits.history import Draft, SampleRef
from curator.steps.apply_edits import apply
from curator.store.runs import open_run
from curator.store.versions import Version
from tests.kit.browser import Board, dashboard, needs_chromium, settle
from tests.kit.hostile import FEW
from tests.kit.pages import Open, opener, shown
from tests.kit.store import GENERATOR, Kit, image, small_store
from ui.views.overview import health
from ui.views.overview import lineage as overview_lineage
from ui.views.overview.lineage import COLORS, NEWEST, dot, label, said

THEME = Path(overview_lineage.__file__).parents[2] / "theme" / "parts.css"
EDITS = ("a man in a hat", "a man in a cap", "a man with a cap")


def edit(kit: Kit, base: Version, old: str, new: str) -> Version:
    """A version that is `base` with another caption of a1."""
    sha256 = hashlib.sha256(image("a1")).hexdigest()
    sample = SampleRef(shard="00000", row=1, key="a1", image_sha256=sha256)
    draft = Draft(sample=sample, action="edit", base_text=old, new_text=new)
    edit_log.add(kit.ws.store, draft, who="Ann")
    return apply(kit.ws.store, base, who="Ann", stop=StopRequest()).version


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    """v1 alt, v2 top, v3 edits v2, v4 edits v3, v5 strict, v6 edits v4."""
    kit = small_store(tmp_path_factory.mktemp("store") / "shards", ["alt", "best"])
    kit.versions["v3"] = edit(kit, kit.versions["best"], "a man in a red hat", EDITS[0])
    kit.versions["v4"] = edit(kit, kit.versions["v3"], EDITS[0], EDITS[1])
    kit.decide("strict")
    kit.versions["v6"] = edit(kit, kit.versions["v4"], EDITS[1], EDITS[2])
    kit.ws.store.tag("gold", kit.versions["v4"])
    return kit


@pytest.fixture
def overview(monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    with opener(monkeypatch, "overview") as opened:
        yield opened


# -- lineage ---------------------------------------------------------------------------------------


def test_where_the_texts_of_a_version_come_from(kit: Kit) -> None:
    alt, best, edited, *_ = lineage(kit.ws.store)
    assert alt.sources == {"alt_text": "alt texts"}
    assert best.sources == {"alt_text": "alt texts", GENERATOR: "tiny-vlm, short"}
    assert edited.base == best.version


def test_what_is_left_in_place_of_a_caption_is_an_alt_text(tmp_path: Path) -> None:
    kit = small_store(tmp_path / "shards", [])
    kit.decide('name = "x"\nsources = ["generated"]\npick = "first"\notherwise = "keep_alt"\n')
    (node,) = lineage(kit.ws.store)
    assert list(node.sources) == ["alt_text", GENERATOR]


def test_edits_stand_behind_what_they_edit(kit: Kit) -> None:
    nodes = lineage(kit.ws.store)
    names = [[node.version.name for node in line] for line in lines(nodes)]
    assert names == [["v1"], ["v2", "v3", "v4", "v6"], ["v5"]]
    names = [[node.version.name for node in line] for line in lines(nodes[3:])]
    assert names == [["v4", "v6"], ["v5"]]  # v3, which v4 edits, is not among them


# -- the graph -------------------------------------------------------------------------------------


def edges(text: str) -> set[str]:
    """The edges of a DOT text that are to be seen."""
    return set(re.findall(r"^(\S+ -> \S+)$", text, re.MULTILINE))


def nodes_of(text: str) -> dict[str, str]:
    """The texts of each node; the label must be XML, or Graphviz draws nothing at all."""
    found = re.findall(r"^(\w+) \[label=<(.*)>\]$", text, re.MULTILINE)
    return {
        name: " ".join(" ".join(ET.fromstring(body).itertext()).split()) for name, body in found
    }


def test_graph(kit: Kit) -> None:
    text = dot(lineage(kit.ws.store), kit.versions["best"])
    assert edges(text) == {
        "s0:e -> v1:w",
        "s0:e -> v2:w",
        "s1:e -> v2:w",
        "s0:e -> v5:w",
        "v2:e -> v3:w",
        "v3 -> v4",  # edits of edits stand one below the other, so that the graph stays narrow
        "v4 -> v6",
    }
    columns = re.findall(r"rank=same; edge \[style=invis\]; (.*)}", text)
    assert columns == ["s0; s1; s0 -> s1", "v1; v2; v5; v1 -> v2; v2 -> v5", "v3; v4; v6"]
    found = nodes_of(text)
    assert (found["s0"], found["s1"]) == ("alt texts", "tiny-vlm, short")
    # see tests/browse/test_browse.py: 6 captioned, 3 kept, b2 in quarantine; mean of nine scores
    assert found["v2"] == "v2 top score 0.289 ■ 6 ■ 3 ■ 1"
    assert found["v4"].endswith("gold")
    assert text.count(f'COLOR="{COLORS["accent"]}"') == 1  # the one that is shown


def test_bar_of_a_node_shows_the_smallest_part() -> None:
    bar = overview_lineage._bar({"captioned": 1_000_000, "kept": 0, "dropped": 1, "quarantined": 0})
    assert re.findall(r'WIDTH="(\d+)" HEIGHT="6" BGCOLOR="(#\w+)"', bar) == [
        ("204", COLORS["captioned"]),
        ("2", COLORS["dropped"]),
    ]


def test_an_edited_version_that_is_too_old_for_the_graph_is_named(kit: Kit) -> None:
    newest = lineage(kit.ws.store)[3:]  # v4, which edits v3, and later ones
    text = dot(newest, kit.versions["v6"])
    assert "v3:e -> v4:w" in edges(text)
    assert nodes_of(text)["v3"] == "v3"
    assert "v2" not in nodes_of(text)


def test_the_graph_in_words(kit: Kit) -> None:
    assert said(lineage(kit.ws.store)[:3]) == (
        "Origin of 3 versions: v1 from alt texts; v2 from alt texts and tiny-vlm, short; "
        "v3 with edits on v2"
    )


def test_every_color_of_the_graph_is_one_of_the_page() -> None:
    theme = THEME.read_text()
    for name, code in COLORS.items():
        assert f"--cc-{name}: light-dark(#" in theme, name
        assert f'[fill="{code}"]{{fill:var(--cc-{name})}}' in overview_lineage.style()


@pytest.mark.parametrize("text", [*FEW, r"\N \G \l", "]]> <!-- -->", "{a|<b> c}", "\x00\x0b\ufffe"])
def test_a_label_is_text(text: str) -> None:
    made = label(text, 200)
    assert "<" not in made
    assert ">" not in made
    told = ET.fromstring(f"<x>{made}</x>").text or ""
    assert told.isprintable()
    kept = [word for word in text.split() if word.isprintable()]
    assert [word for word in kept if word not in told] == []


def test_a_label_shows_what_cannot_be_seen_and_ends_somewhere() -> None:
    assert label("a\u202eb", 40) == "a U+202E b"
    assert label("abcdefgh", 8) == "abcdefgh"
    assert label("abcdefghi", 8) == "abcdefg…"
    assert len(label("\u202e" * 50, 12)) == 12


# -- the page --------------------------------------------------------------------------------------


def test_page_shows_the_newest_versions_and_takes_any(
    monkeypatch: pytest.MonkeyPatch, overview: Open, kit: Kit
) -> None:
    monkeypatch.setattr(overview_lineage, "NEWEST", 3)
    page = overview(kit, v="v1")
    assert [button.label for button in page.button] == ["v6", "v5", "v4"]
    chart = page.get("graphviz_chart")[0].proto
    assert set(nodes_of(chart.spec)) == {"s0", "v3", "v4", "v5", "v6"}
    assert "How v1 was made" in shown(page)  # an older one, from the select box
    assert NEWEST == 12


def test_page_says_what_a_run_put_into_quarantine(overview: Open, tmp_path: Path) -> None:
    kit = small_store(tmp_path / "shards", ["best"])
    with open_run(kit.ws.store, "recaption", {}) as one:
        one.state["quarantined"] = {"image.truncated": 2, "vlm.refusal": 1_200}
    with open_run(kit.ws.store, "decide", {}) as other:
        other.state["quarantined"] = {}
    with open_run(kit.ws.store, "score", {}) as broken:
        broken.state["quarantined"] = ["of a newer tool"]
    told = shown(overview(kit))
    assert "1,202 put into quarantine (vlm.refusal 1,200, image.truncated 2)" in told
    assert told.count("put into quarantine") == 1
    assert "<b>score</b>" not in told


def test_page_says_which_languages_texts_are_in(overview: Open, kit: Kit) -> None:
    told = shown(overview(kit, v="v1"))
    # nine samples can be used, a3 of them has no alt text
    assert "Languages of the alt texts</div>" in told
    assert "in all 8 texts" in told
    assert "English" in told
    assert "too short or unclear" in told  # IMG_2034.JPG


def test_page_says_that_languages_are_of_some_texts(
    monkeypatch: pytest.MonkeyPatch, overview: Open, kit: Kit
) -> None:
    monkeypatch.setattr(languages, "MAX_READ", 3)
    assert "in a random sample of 3 texts" in shown(overview(kit, v="v1"))


def test_health_that_cannot_be_read_is_explained_in_its_place(
    monkeypatch: pytest.MonkeyPatch, overview: Open, kit: Kit
) -> None:
    def broken(*_: object) -> None:
        raise DamageError("the index is <b>torn</b>", where="/home/ann/x")

    monkeypatch.setattr(health, "_read", broken)
    told = shown(overview(kit))
    assert "the index is &lt;b&gt;torn&lt;/b&gt;" in told
    assert "/home/ann" not in told
    assert "How v6 was made" in told


# -- in a browser ----------------------------------------------------------------------------------

# Read by the server before anything else: its index report waits for a file, and every run of the
# whole page adds a line to another.
_LATE = """
import time
from pathlib import Path

from curator.browse import lineage
from curator.steps import index

folder = Path(__file__).parent
report, read = index.report, lineage.lineage


def late(ws, **options):
    while not (folder / "go").exists():
        time.sleep(0.05)
    return report(ws, **options)


def counted(store):
    with (folder / "runs").open("a") as runs:
        runs.write("one\\n")
    return read(store)


index.report, lineage.lineage = late, counted
"""


@pytest.mark.browser
@needs_chromium
def test_health_that_comes_late_leaves_open_what_is_open(
    monkeypatch: pytest.MonkeyPatch, kit: Kit, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(_LATE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with dashboard(kit.ws.dataset.root) as board:
        # So high that nothing has to be scrolled: that would close an open list.
        page = board.browser.new_page(viewport={"width": 1280, "height": 1400})
        page.goto(board.url)
        expect(page.get_by_text("Reading the data")).to_be_visible()
        # What is clicked meanwhile does not have to wait for it.
        page.get_by_role("button", name="v2", exact=True).click()
        expect(page.get_by_text("How v2 was made")).to_be_visible()
        expect(page.get_by_text("Reading the data")).to_be_visible()
        page.get_by_text("Policy and models").click()
        models = page.get_by_text(GENERATOR).first
        expect(models).to_be_visible()
        page.get_by_role("combobox").first.click()
        expect(page.get_by_role("option")).to_have_count(6)
        (tmp_path / "go").touch()
        expect(page.get_by_text("unusable samples")).to_be_visible()
        settle(page)
        expect(page.get_by_role("option")).to_have_count(6)
        expect(models).to_be_visible()
        page.close()
    # Opened, and another version chosen: the health did not have all of it drawn once more.
    assert (tmp_path / "runs").read_text().split() == ["one"] * 2


@pytest.fixture(scope="module")
def board(kit: Kit) -> Iterator[Board]:
    with dashboard(kit.ws.dataset.root) as found:
        yield found


@pytest.mark.browser
@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_graph_has_the_colors_of_the_page(board: Board, dark: bool) -> None:
    with board.open("?v=v2", dark=dark) as page:
        graph = page.locator(".st-key-lineage svg").last
        expect(graph.get_by_text("tiny-vlm, short")).to_be_visible()
        figure = page.get_by_role("figure", name="Origin of 6 versions")
        expect(figure).to_be_visible()
        ground, ink, bar = page.evaluate(
            """([ground, bar]) => [
                getComputedStyle(document.querySelector(`.st-key-lineage [fill="${ground}"]`)).fill,
                getComputedStyle(document.querySelector(".st-key-lineage text:not([fill])")).fill,
                getComputedStyle(document.querySelector(`.st-key-lineage [fill="${bar}"]`)).fill,
            ]""",
            [COLORS["ground"], COLORS["captioned"]],
        )
        assert ground == ("rgb(29, 33, 40)" if dark else "rgb(245, 246, 248)")
        assert ink == ("rgb(230, 232, 236)" if dark else "rgb(28, 32, 38)")
        assert bar == ("rgb(127, 165, 245)" if dark else "rgb(59, 111, 212)")
        page.emulate_media(color_scheme="light" if dark else "dark")  # as the system does at dusk
        box = graph.locator(f'[fill="{COLORS["ground"]}"]').first
        expect(box).to_have_css("fill", "rgb(245, 246, 248)" if dark else "rgb(29, 33, 40)")
