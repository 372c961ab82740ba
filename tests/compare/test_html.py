"""The page of a comparison: complete, the same each time, and safe from its captions."""

from __future__ import annotations

import base64
import io
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from curator.compare.diff import diff
from curator.compare.html import render_html, thumbnails
from curator.compare.marks import text_parts, word_diff
from curator.compare.text import verdict
from curator.compare.values import Diff
from curator.shards.dataset import Dataset
from tests.kit import store
from tests.kit.store import Kit, Row


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    return store.small_store(tmp_path_factory.mktemp("compare") / "shards")


def compare(kit: Kit, old: str, new: str, **options: object) -> Diff:
    return diff(kit.ws.store, kit.versions[old], kit.versions[new], **options)  # type: ignore[arg-type]  # kwargs


def test_word_diff() -> None:
    old, new = word_diff("A black dog runs fast .", "a brown dog runs")
    assert old == [("A", False), ("black", True), ("dog runs", False), ("fast .", True)]
    assert new == [("a", False), ("brown", True), ("dog runs", False)]
    # Nothing in common: marks would only say what two different texts say anyway.
    assert word_diff("IMG_2034.JPG", "a red car") == (
        [("IMG_2034.JPG", False)],
        [("a red car", False)],
    )


WORDS = st.lists(st.sampled_from(["a", "A", "dog", "dog.", "red", "!", "ß"]), max_size=8).map(
    " ".join
)


@given(WORDS, WORDS)
def test_word_diff_loses_no_word(old: str, new: str) -> None:
    for text, parts in zip((old, new), word_diff(old, new), strict=True):
        assert " ".join(part.words for part in parts) == text


def test_only_texts_that_differ_are_marked(kit: Kit) -> None:
    change = next(c for c in compare(kit, "best", "all").picked if c.key == "a2")
    old, new = text_parts(change)
    assert not any(part.changed for parts in (*old, *new) for part in parts)


class Page(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<svg onload=alert(1)>",
    "</style></p><iframe src=//evil.example></iframe>",
    "![](http://evil.example/x.png) [a](javascript:alert(1))",
    "{{ 7 * 7 }} {% raw %}",
    "&lt;script&gt; &amp;",
    "<!-- --> <![CDATA[ ]]>",
)


def test_hostile_captions_are_text(tmp_path: Path) -> None:
    rows = tuple(
        Row(f"k{n}", f"{text} in Paris", f"{text} near a tree", 0.1, 0.2 + n / 100)
        for n, text in enumerate(HOSTILE)
    )
    kit = store.open_kit(tmp_path, {"00000": rows})
    kit.decide("alt")
    kit.decide(store.POLICIES["best"] + 'description = "<script>alert(2)</script>"\n')
    found = compare(kit, "alt", "top")
    page = Page(render_html(found, thumbnails(kit.ws.store, kit.ws.dataset, found)))
    assert not {"script", "iframe", "link", "object", "embed", "form", "a"} & set(page.tags)
    assert page.tags["svg"] == 2  # the two plots
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert {name for _, name, _ in page.attributes} & {"src", "href"} <= {"src"}
    assert all(
        value.startswith("data:image/jpeg;base64,")
        for _, name, value in page.attributes
        if name == "src"
    )
    assert not [value for _, _, value in page.attributes if "http" in value and "//" in value]
    for text in HOSTILE:
        assert f"{text} near a tree" in " ".join(page.text.split())


def test_the_page_is_complete_and_the_same_each_time(kit: Kit) -> None:
    found = compare(kit, "alt", "best")
    pictures = thumbnails(kit.ws.store, kit.ws.dataset, found)
    html = render_html(found, pictures)
    assert html == render_html(found, thumbnails(kit.ws.store, kit.ws.dataset, found))
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in html
    assert "url(http" not in html
    assert "@import" not in html
    text = " ".join(Page(html).text.split())
    assert verdict(found) in text
    for piece in ("a man in a red hat", "tiny-vlm", "best by score", "Brighton", "+0.230"):
        assert piece in text
    assert "<del>run</del>" in html
    assert "prefers-color-scheme: dark" in html


def test_the_colours_of_the_plots_follow_the_page(kit: Kit) -> None:
    html = render_html(compare(kit, "alt", "best"), {})
    svg = html[html.index("<svg") : html.rindex("</svg>")]
    assert "var(--old)" in svg
    assert "var(--new)" in svg
    assert "#0a000" not in svg
    assert "DejaVu" not in svg


def test_thumbnails_are_the_pictures_of_the_samples(kit: Kit) -> None:
    found = compare(kit, "alt", "best")
    pictures = thumbnails(kit.ws.store, kit.ws.dataset, found)
    uri = pictures["00000", 1].uri
    assert uri is not None
    shown = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")
    real = Image.open(io.BytesIO(store.image("a1"))).convert("RGB")
    assert shown.size == real.size
    there, here = shown.getpixel((9, 9)), real.getpixel((9, 9))
    assert all(abs(a - b) <= 3 for a, b in zip(there, here, strict=True))  # type: ignore[arg-type]  # RGB


def test_a_picture_that_changed_is_left_out_and_said(tmp_path: Path) -> None:
    kit = store.small_store(tmp_path, ["alt", "best"])
    found = compare(kit, "alt", "best")
    tar = tmp_path / "00000.tar"
    data = bytearray(tar.read_bytes())
    data[data.index(store.image("a1")) + 100] ^= 1
    tar.write_bytes(bytes(data))
    pictures = thumbnails(kit.ws.store, kit.ws.dataset, found)
    assert pictures["00000", 1].uri is None
    assert pictures["00000", 1].note == "source.changed"
    assert "source.changed" in render_html(found, pictures)
    (tmp_path / "00001.tar").unlink()
    assert thumbnails(kit.ws.store, kit.ws.dataset, found)["00001", 3].note == "source.changed"
    elsewhere = Dataset(tmp_path, ())
    assert {p.uri for p in thumbnails(kit.ws.store, elsewhere, found).values()} == {None}
