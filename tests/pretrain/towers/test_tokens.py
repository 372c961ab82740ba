"""The tokens of training are open_clip's, in memory that does not grow."""

from __future__ import annotations

import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pretrain.towers import tokens

CONTEXT = 16
THEIRS = open_clip.SimpleTokenizer(context_length=CONTEXT)
OURS = tokens.tokenizer(CONTEXT)


@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_any_text_has_the_tokens_of_open_clip(text: str) -> None:
    assert torch.equal(OURS([text]), THEIRS([text]))


@given(st.text(st.characters(max_codepoint=127), max_size=60))
def test_ascii_too_which_is_not_cleaned_in_full(text: str) -> None:
    assert torch.equal(OURS([text]), THEIRS([text]))


@pytest.mark.parametrize(
    "text", ["Tom &amp; Jerry", "<end_of_text> a", "\x1b[31mred", "a\tb  C ", ""]
)
def test_what_cleaning_is_for(text: str) -> None:
    assert torch.equal(OURS([text]), THEIRS([text]))


def test_words_are_forgotten_before_memory_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_MOST_WORDS", 3)
    made = tokens.Tokenizer(CONTEXT)
    for _ in range(2):
        for text in ("one two three", "four five", "six one"):
            assert torch.equal(made([text]), THEIRS([text]))
            assert len(made._ids) <= 3
            assert len(made.cache) <= 3 + 2  # and the two special ones
