"""Texts that nobody can read, and those that only look odd; and what stands for no text at all."""

from __future__ import annotations

import polars as pl
import pytest

from curator.captioners.prompts import PRESETS, render
from curator.core.text import BLANK, clean_str, is_blank
from curator.scorers.text import check_text
from curator.scorers.unreadable import is_unreadable

WORDS = [
    "été à Paris", "naïve café", "München bei Nacht", "日本の写真", "привет мир как дела",
    "São Paulo, Brasil", "Größe", "照片里的狗", "한국어 텍스트", "ελληνικά", "niño", "žluťoučký kůň",
]  # fmt: skip


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "mac-roman", "cp437"])
@pytest.mark.parametrize("text", WORDS)
def test_utf8_read_as_something_else(text: str, encoding: str) -> None:
    mojibake = clean_str(text.encode().decode(encoding, "replace")).text
    assert is_unreadable(mojibake), mojibake
    assert not is_unreadable(text)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("привет мир", "cp1251"),
        ("собака бежит", "koi8-r"),
        ("你好世界", "gbk"),
        ("日本語", "euc-jp"),
        ("안녕하세요", "euc-kr"),
        ("ελληνικά", "iso8859-7"),
    ],
)
def test_other_encodings_read_as_latin_1(text: str, encoding: str) -> None:
    mojibake = clean_str(text.encode(encoding).decode("latin-1")).text
    assert is_unreadable(mojibake), mojibake


@pytest.mark.parametrize(
    "text",
    [
        "Ã©tÃ© Ã  la plage",
        "donâ€™t stop",
        "caf\ufffd noir",
        "\\u00e9t\\u00e9 Paris",
        "caf%C3%A9%20noir",
        "M?nchen und K?ln",
        "=?UTF-8?B?SGVsbG8gd29ybGQ=?=",
        "d\u0337\u0322o\u0338\u0321g\u0335\u0322s\u0338 run",
        "??? ???? ??",
        "aGVsbG8gd29ybGQgdGhpcyBpcyBhIHRlc3Qgb2YgYmFzZTY0",
    ],
)
def test_damaged_texts(text: str) -> None:
    assert "unreadable" in check_text(text).flags


@pytest.mark.parametrize(
    "text",
    [
        "the \u201cCAFÉ\u201d sign", "FRANÇAIS\u2026", "CAFÉ\u2122 logo", "il est né\u2026",
        "Việt Nam đường phố người thuyền", "MAÇÃ e PÃO", "Þórshöfn", "création « à »", "10 °C, ½ cup",
        "Île de la Cité", "Łódź", "РСФСР", "手机联通", "What?? Really?", "www.a.com/x?y=1&z=2",
        "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch", "Straße «Ö»", "2\u00d7 zoom",
        "一个男人穿着T恤", "卡拉OK",
    ],
)  # fmt: skip
def test_texts_that_only_look_odd(text: str) -> None:
    assert not is_unreadable(text)


@pytest.mark.parametrize("text", ["12345", "★★★ 2021 ★★★", "😀😀😀", "$$$ 50%", "--- | ---"])
def test_signs_and_figures_are_no_letters(text: str) -> None:
    assert {"no_letters", "empty"} & set(check_text(text).flags)


def test_vowel_signs_are_letters() -> None:
    assert "no_letters" not in check_text("एक कुत्ता", language="hi").flags


# -- what stands for no text -------------------------------------------------------------------

BLANKS = [
    "", " ", "nan", "NaN", "None", "null", "NULL", "(null)", "[null]", "N/A", "n.a.", "NA", "#N/A",
    "<NA>", "undefined", "nil", "\\N", "-1.#IND", "[]", "{}", "-", "\u2014", "...", '""',
    "No caption available.", "no alt text", "no description was provided", "NaT", "(empty)", "TBD",
    "Unknown", "Untitled", "Not applicable", "caption",
]  # fmt: skip
TEXTS = [
    "None of the dogs run",
    "NASA",
    "nanny",
    "Nana",
    "A dog",
    "狗",
    "!!!",
    "no text on the sign",
    "An unknown soldier",
    "Empty chairs",
]


def test_blank_texts_by_python_and_by_polars() -> None:
    assert is_blank(None)
    assert [text for text in BLANKS if not is_blank(text)] == []
    assert [text for text in TEXTS if is_blank(text)] == []
    found = pl.Series(BLANKS + TEXTS).str.contains(BLANK).to_list()
    assert found == [True] * len(BLANKS) + [False] * len(TEXTS)


def test_a_blank_alt_text_is_not_put_into_a_prompt() -> None:
    assert render(PRESETS["grounded"], alt_text="nan") == PRESETS["grounded"].bare
    assert "Nana" in render(PRESETS["grounded"], alt_text="Nana")
