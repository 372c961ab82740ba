"""Cleaning, special tokens and sentences, worked out by hand; hostile text stays linear."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.core.text import FLAGS, clean_str, clean_text, split_sentences, strip_special_tokens
from tests.kit.growth import assert_linear

ZWJ, ZWNJ, VS16 = "\u200d", "\u200c", "\ufe0f"
ENGLAND = "\U0001f3f4" + "".join(chr(0xE0000 + ord(c)) for c in "gbeng") + "\U000e007f"


@pytest.mark.parametrize(
    ("raw", "text", "flags"),
    [
        (b"A dog runs.", "A dog runs.", ()),
        # nothing, or only white space (the third is an ideographic space)
        (b"", "", ("caption.empty",)),
        (" \n\t\u3000".encode(), "", ("caption.empty",)),
        # Latin-1 bytes; the accent is lost, the rest is not
        (b"caf\xe9 noir", "caf\ufffd noir", ("caption.invalid_utf8",)),
        # a surrogate encoded as if it were UTF-8 is three invalid bytes
        (b"x\xed\xa0\x80y", "x\ufffd\ufffd\ufffdy", ("caption.invalid_utf8",)),
        # NUL, C0 and C1 vanish, line ends and tabs (NEL, form feed too) are white space
        (b"a\x00b\x1bc\xc2\x9bd\x7f", "abcd", ("caption.control",)),
        (b" two\r\nlines\tand\x0cmore\xc2\x85end ", "two lines and more end", ()),
        # bidi override and isolate, zero-width space, BOM, soft hyphen
        ("\u202eevil\u202c".encode(), "evil", ("caption.bidi",)),
        ("\ufeffdog\u200bs \u2067x\u2069".encode(), "dogs x", ("caption.bidi",)),
        # tag characters spell "hi" invisibly
        ("dog\U000e0068\U000e0069".encode(), "dog", ("caption.bidi",)),
        # all of them at once: flags come in the order of FLAGS
        (
            b"\x00\xe2\x80\xae\xff",
            "\ufffd",
            ("caption.invalid_utf8", "caption.control", "caption.bidi"),
        ),
    ],
)
def test_clean_text(raw: bytes, text: str, flags: tuple[str, ...]) -> None:
    clean = clean_text(raw)
    assert (clean.text, clean.flags) == (text, flags)


@pytest.mark.parametrize(
    "text",
    [
        f"family \U0001f468{ZWJ}\U0001f469{ZWJ}\U0001f467",  # one emoji of three people
        f"\u2764{VS16}{ZWJ}\U0001f525",  # heart on fire: a selector stands before the joiner
        f"the flag of England {ENGLAND}",
        f"\u0645\u06cc{ZWNJ}\u0631\u0648\u0645",  # Persian mi-ravam, "I go"
        f"\u0915\u094d{ZWJ}\u0937",  # Devanagari with a half form asked for
        "\u845b\U000e0100",  # a kanji with the variant that a family writes
        "Cafe\u0301 na\u00efve \u65e5\u672c\u8a9e",  # combining accents are not normalised
    ],
)
def test_what_is_spelling_stays(text: str) -> None:
    assert clean_str(text) == type(clean_str(text))(text, ())


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"pa{ZWNJ}ss{ZWJ}word", "password"),  # joiners in Latin only hide a word
        (f"\U0001f468{ZWJ} alone", "\U0001f468 alone"),
        (f"a{VS16}{VS16}{VS16}", f"a{VS16}"),  # a run of selectors carries hidden bytes
        (ENGLAND[:-1], "\U0001f3f4"),  # an unfinished flag is a flag with tags behind it
    ],
)
def test_what_only_hides_goes(text: str, clean: str) -> None:
    assert clean_str(text).text == clean
    assert clean_str(text).flags == ("caption.bidi",)


def test_surrogates() -> None:
    # json makes a lone half of an escape; two halves in a row are one character
    assert clean_str(json.loads(r'"dog \ud83d"')) == type(clean_str(""))(
        "dog \ufffd", ("caption.surrogate",)
    )
    assert clean_str("\ud83d" + "\udc36").text == "\U0001f436"
    assert clean_str("\ud83d" + "\udc36").flags == ()
    assert clean_str("\udc36\ud83d").text == "\ufffd\ufffd"


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    clean = clean_str(text)
    assert set(clean.flags) <= set(FLAGS)
    clean.text.encode("utf-8")
    assert clean.text == " ".join(clean.text.split())
    again = clean_str(clean.text)
    assert again.text == clean.text
    assert set(again.flags) <= {"caption.empty"}
    assert ("caption.empty" in clean.flags) == (clean.text == "")


@given(st.binary())
def test_any_bytes_become_text(raw: bytes) -> None:
    clean_text(raw).text.encode("utf-8")


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a dog<|im_end|>", "a dog"),
        ("a dog<|im_end|>runs", "a dog runs"),  # a token between words parts them
        ("<image>\nA dog</s>", "A dog"),
        ("[INST] a [/INST] b <<SYS>>c<</SYS>>", "a b c"),
        ("<start_of_turn>user <end_of_utterance>", "user"),
        ("<|vision_start|><|image_pad|><|vision_end|>x", "x"),
        ("dog<loc_1><loc_999>cat<loc0012>", "dog cat"),
        ("<row_1_col_2><fake_token_around_image><global-img>x", "x"),
        ("<\uff5cbegin\u2581of\u2581sentence\uff5c>x", "x"),  # DeepSeek: full-width bars
        ("<0x0A>x<PAD>y<Image>z", "x y z"),
        ("[IMG]x[IMG_BREAK]y[CLS]z[SYSTEM_PROMPT]", "x y z"),
        # nested: taking the inner one out makes the outer one
        ("a <|im_<|im_end|>end|> b", "a b"),
        ("a <ima<image>ge> b", "a b"),
        ("<<image>image>", ""),
    ],
)
def test_special_tokens_go(text: str, plain: str) -> None:
    assert strip_special_tokens(text) == (plain, True)


@pytest.mark.parametrize(
    "text",
    [
        "a < b and c > d",
        "I <3 dogs",
        "x<y>z in <b>bold</b>",  # markup is not a command
        "a [mask] and a [pad] of paper",  # BERT's tokens are upper case only
        "  two  spaces stay  ",
        "[1] [see below] <self-made> 5 <6> 7",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert strip_special_tokens(text) == (text, False)


def test_extra_tokens_are_literal_and_exact() -> None:
    assert strip_special_tokens("a ~~x~~ b ~~X~~", ["~~x~~", ""]) == ("a b ~~X~~", True)
    assert strip_special_tokens("a.b a+b", ["a+"]) == ("a.b b", True)  # no regular expression
    assert strip_special_tokens("EENDND x", ["END"]) == ("x", True)


def test_deep_nesting_loses_its_brackets() -> None:
    # 3,000 levels would need 3,000 passes; after 8 the brackets go, and with them every token
    plain, found = strip_special_tokens("<|im_" * 3000 + "end|>" * 3000)
    assert found
    assert not set(plain) & set("<>|")


@given(
    st.lists(
        st.sampled_from(
            ["<|", "|>", "im_end", "<image>", "<im", "age>", "[IN", "ST]", "a ", "<s>", "<"]
        ),
        max_size=30,
    ).map("".join)
)
def test_no_token_is_left(text: str) -> None:
    plain, found = strip_special_tokens(text)
    assert strip_special_tokens(plain) == (plain, False)
    assert found or plain == text


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in split_sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A dog runs. A cat sits.", ["A dog runs.", "A cat sits."]),
        ("a dog runs. a cat sits", ["a dog runs.", "a cat sits"]),  # lower-case captions
        ("A dog runs . A cat sits .", ["A dog runs .", "A cat sits ."]),  # Flickr8k
        ("Really?! Yes!", ["Really?!", "Yes!"]),
        ("Mr. Smith walks. He smiles.", ["Mr. Smith walks.", "He smiles."]),
        ("Animals, e.g. dogs, i.e. pets. End", ["Animals, e.g. dogs, i.e. pets.", "End"]),
        ("No. 5 wins. No. He sits.", ["No. 5 wins.", "No.", "He sits."]),
        ("It is 3.5 m tall. It costs .5 more.", ["It is 3.5 m tall.", "It costs .5 more."]),
        ("Born in 1995. He is old.", ["Born in 1995.", "He is old."]),
        ("1. A dog runs.", ["1. A dog runs."]),  # a list's number is not a sentence
        (
            "Dogs, cats, etc. are here. Dogs etc. The end",
            ["Dogs, cats, etc. are here.", "Dogs etc.", "The end"],
        ),
        ("The U.S. Army. In the U.S. The dog.", ["The U.S. Army.", "In the U.S.", "The dog."]),
        ("J. K. Rowling reads. Plan B. The dog.", ["J. K. Rowling reads.", "Plan B.", "The dog."]),
        ("A man at 5 p.m. walking.", ["A man at 5 p.m. walking."]),
        ("Main St. is wet. A cat. A capt. sits.", ["Main St. is wet.", "A cat.", "A capt. sits."]),
        ("Wait ... what? Yes\u2026 No.", ["Wait ... what?", "Yes\u2026", "No."]),
        ('"Stop!" she says. "Go." He left.', ['"Stop!" she says.', '"Go."', "He left."]),
        ("A dog (brown.) It runs.", ["A dog (brown.)", "It runs."]),
        ("See www.example.com. It is.", ["See www.example.com.", "It is."]),
        ("A dog. . . A cat", ["A dog. . .", "A cat"]),  # marks alone belong to what is before
        ("... A dog", ["...", "A dog"]),  # nothing is before: they stand alone
        (
            "\u72d7\u5728\u8dd1\u3002\u732b\u5728\u7761\uff01",
            ["\u72d7\u5728\u8dd1\u3002", "\u732b\u5728\u7761\uff01"],
        ),
        (
            "\u300c\u597d\u3002\u300d\u4ed6\u8bf4\u3002",
            ["\u300c\u597d\u3002\u300d", "\u4ed6\u8bf4\u3002"],
        ),
        (
            "\u0915\u0941\u0924\u094d\u0924\u093e\u0964 \u092c\u093f\u0932\u094d\u0932\u0940\u0964",
            [
                "\u0915\u0941\u0924\u094d\u0924\u093e\u0964",
                "\u092c\u093f\u0932\u094d\u0932\u0940\u0964",
            ],
        ),
        ("A title\n\nA text", ["A title", "A text"]),
        ("one\nsentence", ["one\nsentence"]),
        ("", []),
        (" \n ", []),
        ("!!!", ["!!!"]),
    ],
)
def test_split_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@given(st.one_of(st.text(), st.text("aB.!?\u3002\u2026 \n\"')1", max_size=60)))
def test_spans_cover_all_that_is_not_space(text: str) -> None:
    spans = split_sentences(text)
    covered = set()
    last = 0
    for start, end in spans:
        assert last <= start < end
        assert text[start:end] == text[start:end].strip()
        covered.update(range(start, end))
        last = end
    assert all(i in covered for i, char in enumerate(text) if not char.isspace())


@pytest.mark.parametrize(
    "hostile",
    [".", "1. ", "<|", "<im", ".\"'", "a_", "\u200d", "\U000e0041", "Mr. ", "< ", "[A_", "\n \n"],
)
def test_hostile_text_is_linear(hostile: str) -> None:
    # 64 KiB is the longest caption there is; a quadratic pattern would take minutes
    def work(size: int) -> None:
        text = hostile * (size // len(hostile)) + "x"
        clean_str(text)
        strip_special_tokens(text)
        split_sentences(text)

    assert_linear(work, 65536)
