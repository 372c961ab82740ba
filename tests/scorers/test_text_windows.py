"""Windows over long texts: by hand with a token a letter, and hostile ones with real tokens."""

from __future__ import annotations

import pytest
import torch

from curator.scorers.clip_model import ClipTokens, load_clip
from curator.scorers.text_windows import Budget, plan_text
from tests.kit.growth import assert_linear
from tests.kit.tinyclip import CONTEXT, save_tiny_clip


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> ClipTokens:
    folder = save_tiny_clip(tmp_path_factory.mktemp("models") / "tiny-clip")
    return load_clip(str(folder), device=torch.device("cpu"), dtype=torch.float32).tokens


def letters(text: str) -> int:
    """A tokenizer with a token a letter, and one at the end."""
    return len(text.replace(" ", "")) + 1


@pytest.mark.parametrize(
    ("text", "pieces", "num_tokens"),
    [
        ("abcde fghi", [], 10),  # 9 letters and the end: fits exactly
        ("ab. cd.", ["ab.", "cd."], 7),
        # 12 letters do not fit: words are packed while they fit, 4 + 4 of 9
        ("abcd efgh ijkl", ["abcd efgh", "ijkl"], 13),
        # the first sentence fits, the second is cut
        ("ab. cdef ghij kl.", ["ab.", "cdef ghij", "kl."], 15),
        # a word that does not fit alone: by characters, halved until they fit, as 5 and 5 and 2
        ("abcdefghijkl mn", ["abcde", "fghij", "kl", "mn"], 15),
    ],
)
def test_windows_by_hand(text: str, pieces: list[str], num_tokens: int) -> None:
    plan = plan_text(text, Budget(letters, limit=10, num_special=1))
    assert [text[start:end] for start, end in plan.pieces] == pieces
    assert plan.num_tokens == num_tokens
    assert plan.whole is (num_tokens <= 10)


@pytest.mark.parametrize(
    "text",
    [
        "\u72d7" * 400,
        "x" * 65536,
        "dog " * 16384,
        "ab1!" * 3000,
        ("y" * 300 + " ") * 50,
        "&amp;" * 500,
    ],
)
def test_hostile_texts_fit_their_windows(tokens: ClipTokens, text: str) -> None:
    budget = Budget(tokens.count, tokens.limit, tokens.num_special)
    plan = plan_text(text, budget)
    assert_linear(lambda size: plan_text(text[:size], budget), len(text))  # BPE alone is not
    assert tokens.limit == CONTEXT
    assert all(tokens.count(text[start:end]) <= CONTEXT for start, end in plan.pieces)
    assert "".join(text[s:e] for s, e in plan.pieces).replace(" ", "") == text.replace(" ", "")
