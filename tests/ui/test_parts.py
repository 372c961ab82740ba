"""Pieces of pages: whatever a caption holds, it is shown, and it is text."""

from __future__ import annotations

import unicodedata
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tests.kit.hostile import CAPTIONS
from ui.shared import parts, plots


class Read(HTMLParser):
    """The tags, their attributes and the text of some HTML."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.text += "\n" if tag == "br" else ""

    def handle_data(self, data: str) -> None:
        self.text += data


def is_plain(html: str) -> Read:
    read = Read(html)
    assert set(read.tags) <= {"br", "span", "div", "del", "ins"}
    assert {name for name, _ in read.attributes} <= {"class", "title", "dir"}
    assert all(is_visible(char) for char in read.text), ascii(read.text)
    return read


def is_visible(char: str) -> bool:
    """Spaces of all widths count; joiners are spelling in some scripts (tested on their own)."""
    return char.isprintable() or unicodedata.category(char) == "Zs" or char in "\n\t\u200c\u200d"


def test_there_are_forty() -> None:
    assert len(set(CAPTIONS)) == 40


@pytest.mark.parametrize("text", CAPTIONS, ids=range(40))
def test_a_hostile_caption_is_text_wherever_it_is_shown(text: str) -> None:
    for html in (
        parts.escaped(text),
        parts.caption_html(text, source=text, score=0.1),
        parts.worddiff_html(text, "something else"),
        parts.worddiff_html("something else", text),
        parts.badge_html(text),
        parts.badge_html(text, text),
    ):
        is_plain(html)


@given(some.text())
def test_any_text_is_shown_whole(text: str) -> None:
    read = is_plain(parts.escaped(text))
    if "cc-mark" not in parts.escaped(text):
        assert read.text.split() == text.split()


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("a < b & 'c' \"d\"", "a &lt; b &amp; &#x27;c&#x27; &quot;d&quot;"),
        ("one\ntwo\r\nthree\u2028four", "one<br>two<br>three<br>four"),
        ("\u202e", '<span class="cc-mark" title="right-to-left override">U+202E</span>'),
        ("\x07", '<span class="cc-mark" title="control character">U+0007</span>'),
        ("café 猫 👩", "café 猫 👩"),
    ],
)
def test_escaped(text: str, html: str) -> None:
    assert parts.escaped(text) == html


def test_emoji_sequences_stay_together() -> None:
    family = "👩\u200d👩\u200d👧"
    assert parts.escaped(family) == family
    persian = "\u0645\u06cc\u200c\u062e\u0648"
    assert parts.escaped(persian) == persian
    assert "U+200D" in parts.escaped("a\u200db")
    assert parts.escaped("\u3164\u2800").count("cc-mark") == 2


def test_scores_and_badges() -> None:
    assert ">0.123<" in parts.score_html(0.1234)
    assert 'cc-up">+0.020<' in parts.score_html(0.02, delta=True)
    assert 'cc-down">-0.020<' in parts.score_html(-0.02, delta=True)
    assert "unscored" in parts.score_html(None)
    assert "no text" in parts.caption_html(None)


def test_worddiff() -> None:
    read = is_plain(parts.worddiff_html("a red car", "a blue car"))
    assert read.text == "a red blue car"
    assert read.tags == ["div", "div", "span", "del", "ins", "span"]


def test_plots_say_their_numbers() -> None:
    counts = {"captioned": 3, "kept": 0, "dropped": 1, "quarantined": 0}
    bar = plots.outcome_html(counts, legend=True)
    assert "width:75.000%" in bar
    assert "3 captioned" in bar
    assert "kept" not in bar
    rows = Read(plots.rows_html([("<b>", 2.0, "all"), ("b", 0.255, "a quarter")]))
    assert [value for name, value in rows.attributes if name == "style"] == [
        "width:100.00%;background:var(--cc-captioned)",
        "width:25.50%;background:var(--cc-captioned)",
    ]
    assert "<b>" in rows.text
    heights = plots.histogram_html([0, 1, 200], labels=["low", "high"], inside=(1, 2))
    assert [piece.partition("%")[0] for piece in heights.split("height:")[1:]] == [
        "0.0",
        "3.0",  # something is not nothing
        "100.0",
    ]
    assert heights.count('class="cc-out"') == 2
