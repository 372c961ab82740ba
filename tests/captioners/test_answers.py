"""What chat models put around a caption comes off where that is exact, and is told; else nothing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.captioners import Caption, CaptionFailure, CaptionRequest
from curator.captioners.answers import open_answer, split_reasoning
from curator.captioners.cut import cut_back
from curator.captioners.guard import Guarded, judge, tidy
from curator.captioners.local import LocalCaptioner
from curator.captioners.payload import captions_of
from curator.captioners.prompts import PRESETS
from curator.core.reasons import REASONS
from tests.captioners.test_guard import picture

SHORT = PRESETS["short"]
DOG = "A brown dog runs across green grass."
FENCE = "```"

WRAPPED = [
    # reasoning, as the models of today mark it
    f"<think>\nThe user wants a caption.\n</think>\n\n{DOG}",
    f"The user wants a caption.</think>\n{DOG}",  # the template wrote the first mark
    f"<think>\n\n</think>\n\n{DOG}",
    f"<think>a</think> <think>b</think> {DOG}",
    f"<THINKING>a</THINKING><answer>{DOG}</answer>",
    f"\u25c1think\u25b7a\u25c1/think\u25b7{DOG}",
    f"[THINK]a[/THINK]{DOG}",
    f"<seed:think>a</seed:think>{DOG}",
    f"<thought>a</thought>{DOG}",
    f"<reasoning>a</reasoning>\n<caption>{DOG}</caption>",
    f"<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>{DOG}<|END_RESPONSE|>",
    f"<|begin_of_thought|>a<|end_of_thought|><|begin_of_solution|>{DOG}<|end_of_solution|>",
    f"<|inner_prefix|>a<|inner_suffix|>{DOG}",
    f"<|channel>thought\na<channel|>{DOG}",
    "<|channel|>analysis<|message|>We need ...<|end|><|start|>assistant"
    f"<|channel|>final<|message|>{DOG}<|return|>",
    f"analysisThe user wants a caption.assistantfinal{DOG}",
    f"Here is my thought process: a. Here is my response: {DOG}",
    f"Let me think. It is a dog.\n\n**Final answer:** {DOG}",
    # fences, JSON, HTML, LaTeX
    f'{FENCE}json {{"caption": "{DOG}"}} {FENCE}',
    f'{FENCE}json\n{{\n  "caption": "{DOG}"\n}}\n{FENCE}',
    f"{FENCE}\n{DOG}\n{FENCE}",
    f"{FENCE}markdown\n{DOG}\n{FENCE}",
    f'{{"caption": "{DOG}"}}',
    f'{{"language": "en", "caption": "{DOG}", "confidence": 0.9}}',
    f'[{{"description": "{DOG}"}}]',
    f'["{DOG}"]',
    f"<p>{DOG}</p>",
    f"<div class='x'><p>{DOG}</p></div><br>",
    "A brown dog runs across green&#32;grass.",
    f"$\\boxed{{\\text{{{DOG}}}}}$",
    # Markdown
    f"**{DOG}**",
    f"*{DOG}*",
    f"# {DOG}",
    f"> {DOG}",
    f"- {DOG}",
    f"`{DOG}`",
    "A **brown dog** runs across *green* grass.",
    # labels and talk
    f"Caption: {DOG}",
    f"**Caption:** {DOG}",
    f"**Image description**\n\n{DOG}",
    f"### Description\n\n{DOG}",
    f'Alt text: "{DOG}"',
    f"Sure! Here is a caption for the image:\n\n{DOG}",
    f'Here\u2019s a short caption: "{DOG}"',
    f"Certainly! {DOG}",
    f'A possible caption for this image could be: "{DOG}"',
    f"{DOG} Let me know if you would like a longer description!",
    f"{DOG}\n\nI hope this helps! Would you like me to add more details?",
    f"好的，以下是图片的描述：{DOG}",
    f"Based on the image, here is a caption: {DOG}",
    f"Caption for the image: {DOG}",
    f"Caption (English): {DOG}",
    f"<answer>\n{DOG}\n</answer>",
    f"{DOG}\n\n---\n\nLet me know if you want changes.",
    f"{DOG}\n\n*Note: This caption was written by a model.*",
    f'Here is the JSON:\n{FENCE}json\n{{"caption": "{DOG}"}}\n{FENCE}\nLet me know what you think!',
]


@pytest.mark.parametrize("answer", WRAPPED)
def test_a_caption_is_taken_out_of_its_wrapping(answer: str) -> None:
    opened = open_answer(answer)
    assert opened.text == DOG
    assert not opened.is_list
    assert opened.taken_off or answer == "A brown dog runs across green&#32;grass."
    assert judge(opened.text, prompt=SHORT.text) is None


# (answer, reason): nothing is chosen or guessed.
REFUSED = [
    (f"Here are three options:\n\n1. {DOG}\n2. Dog in the park.\n3. Fetch time!", "vlm.markup"),
    (f"Here are three options: {DOG} Or: Dog in the park.", "vlm.boilerplate"),
    ("Option 1: A dog runs. Option 2: A dog plays.", "vlm.boilerplate"),
    ("1. A dog runs. 2. A dog plays.", "vlm.boilerplate"),
    (f"{DOG}\n\nOR\n\nA dog plays.", "vlm.boilerplate"),
    (f"{DOG} Alternatively: A dog plays.", "vlm.boilerplate"),
    ("Formal: A dog runs. Casual: Good boy!", "vlm.boilerplate"),
    ("Short caption: A dog runs. Detailed caption: A brown dog runs.", "vlm.boilerplate"),
    ("Tags: dog, grass, ball", "vlm.boilerplate"),
    ("Hello! How can I assist you?", "vlm.boilerplate"),
    ("Thank you for sharing this image!", "vlm.boilerplate"),
    ("Yes.", "vlm.boilerplate"),
    ("Got it, let's see. The image shows a dog.", "vlm.reasoning_only"),
    ("To describe this image, I will first look at the dog.", "vlm.reasoning_only"),
    ("Looking at the image, I need to name the main objects.", "vlm.reasoning_only"),
    (f"{DOG}\n\nHuman: thanks", "vlm.echo"),
    ("Unable to process the image.", "vlm.refusal"),
    ("Can't help with that.", "vlm.refusal"),
    ("I must respectfully decline.", "vlm.refusal"),
    ("I'd rather not describe it.", "vlm.refusal"),
    ("It looks like the image didn't come through.", "vlm.refusal"),
    ("You haven't attached an image.", "vlm.refusal"),
    ("There isn't an image attached to your message.", "vlm.refusal"),
    ("[Image blocked by safety filter]", "vlm.refusal"),
    ("Content blocked.", "vlm.refusal"),
    ("Error: image too large", "vlm.refusal"),
    ("**Caption 1:** A dog runs.\n**Caption 2:** A dog plays.", "vlm.markup"),
    ("- A dog\n- A green lawn", "vlm.markup"),
    (f"### Description\n\n{DOG}\n\n- **Mood:** happy", "vlm.markup"),
    (f"**A Dog at Play**\n\n{DOG}", "vlm.markup"),
    ("| object | color |\n|---|---|\n| dog | brown |", "vlm.markup"),
    ("Title: Dog\n\nCaption: A dog runs.", "vlm.markup"),
    ("Subject: a dog\nMood: happy\nStyle: photo", "vlm.markup"),
    (f"<p>{DOG}</p> &amp; <br>", "vlm.markup"),
    ("<ul><li>A dog</li><li>A lawn</li></ul>", "vlm.markup"),
    ("<img src='a.jpg' alt='A dog'>", "vlm.markup"),
    ("<svg><circle/></svg>", "vlm.markup"),
    (f"<details><summary>x</summary>a</details>\n{DOG}", "vlm.markup"),
    ("[A dog](https://a.example/dog)", "vlm.markup"),
    ('{"short": "A dog", "long": "A dog runs"}', "vlm.markup"),
    ('{"caption_1": "A dog", "caption_2": "A dog runs"}', "vlm.markup"),
    ('{"error": "no image"}', "vlm.markup"),
    ('{"caption": "A brown dog runs', "vlm.markup"),
    (f'{FENCE}json\n{{"caption": "A brown', "vlm.markup"),
    ("```python\nprint('dog')\n```", "vlm.markup"),
    ("\\begin{figure} A dog \\end{figure}", "vlm.markup"),
    ('{caption: "A dog runs"}', "vlm.markup"),
    ("A dog runs.\\n\\nIt is brown.", "vlm.markup"),
    ("It is a dog. I should write a short caption. A dog runs.", "vlm.boilerplate"),
    ("Sure! Here is a caption:", "vlm.boilerplate"),
    ("What would you like me to describe?", "vlm.boilerplate"),
    ("Let me know if you need anything else!", "vlm.boilerplate"),
    ("null", "vlm.empty"),
    ("None", "vlm.empty"),
    ("N/A", "vlm.empty"),
    ("nan", "vlm.empty"),
    ("undefined", "vlm.empty"),
    ("{}", "vlm.empty"),
    ('{"caption": null}', "vlm.empty"),
    ("(no caption)", "vlm.empty"),
    ("<think>\nThe user wants a caption", "vlm.reasoning_only"),
    ("<think>hm</think>", "vlm.reasoning_only"),
    ("<|channel|>analysis<|message|>We need", "vlm.reasoning_only"),
    ("Okay, so I need to describe this image. There is a dog", "vlm.reasoning_only"),
    ("The user wants a caption. There is a dog, and", "vlm.reasoning_only"),
]


class Saying:
    """Always the same answer."""

    def __init__(self, text: str, finish_reason: str = "stop", reasoning: str = "") -> None:
        self.answer = Caption(text, finish_reason, 64, 0, reasoning=reasoning)
        self.prompts: list[str] = []

    def caption(self, requests: list[CaptionRequest]) -> list[Caption | CaptionFailure]:
        self.prompts += [request.prompt for request in requests]
        return [self.answer] * len(requests)


def guarded(
    text: str, finish_reason: str = "stop", reasoning: str = ""
) -> Caption | CaptionFailure:
    captioner = Saying(text, finish_reason, reasoning)
    return Guarded(captioner, prompt=SHORT).caption([picture(1)])[0]


@pytest.mark.parametrize(("answer", "reason"), REFUSED)
def test_an_answer_that_needs_a_guess_is_no_caption(answer: str, reason: str) -> None:
    outcome = guarded(answer)
    assert isinstance(outcome, CaptionFailure), outcome
    assert outcome.reason == reason
    assert reason in REASONS


@pytest.mark.parametrize(
    "caption",
    [
        'A sign says "Caption: closed"',
        'The caption on the poster reads "Keep calm".',
        "The caption on the poster reads: Keep Calm and Carry On.",
        "Here are two versions of the same statue side by side.",
        'A sign reads "STOP" OR "GO"',
        "Left: a cat. Right: a dog.",
        'A woman holds a sign that says "Help! I am sorry"',
        "The image is blocked by trees in the foreground",
        "To see the sea, people stand on a wall",
        "Unable to move, a cow stands in deep mud",
        "A sign that says: sure, here is the caption contest",
        "The album cover of M*A*S*H next to a 5* hotel",
        "A dog - brown and white - runs on grass",
        "Two dogs (one brown, one white) in 1990.",
        "A T-shirt with the words None of the above",
        "Item 1 of 3 on a shelf",
        "A person thinking about a chess move",
        "A man in front of a table of options",
        "A keyboard with the keys <, > and | on it",
        "A girl & a boy < 10 years old",
        "Here are two dogs on a beach",
        "A user holds the phone in the left hand",
        "First, second and third place on a podium",
        "A list of names is written on a wall: Ann, Bob",
        "The dog's bowl reads 'Rex'",
        'A woman holds a card with the text "Let me know"',
        "#1 fan of the team waves a flag",
    ],
)
def test_what_looks_a_little_like_it_stays_as_it_is(caption: str) -> None:
    assert open_answer(caption).text == caption
    assert judge(caption, prompt=SHORT.text) is None


@given(
    st.sampled_from(WRAPPED + [text for text, _ in REFUSED]) | st.text(max_size=200),
    st.sampled_from(["", " ", "\n", "**", "```", '"', "<p>", "</think>", "{", "- "]),
)
def test_a_caption_that_is_stored_holds_no_wrapping_to_take_off(text: str, around: str) -> None:
    tidied = tidy(around + text + around)
    if judge(tidied, prompt=SHORT.text) is None:
        again = open_answer(tidied)
        assert again.reasoning == ""
        assert "```" not in tidied


# -- reasoning ---------------------------------------------------------------------------------


def test_a_budget_that_thinking_used_up_is_told() -> None:
    outcome = guarded("", "length", "So, the user wants a caption")
    assert isinstance(outcome, CaptionFailure)
    assert outcome.reason == "vlm.reasoning_only"
    assert "--max-tokens" in outcome.detail
    assert "So, the user wants a caption" in outcome.detail
    hidden = guarded("", "length")  # a server that does not show what was thought
    assert isinstance(hidden, CaptionFailure)
    assert (hidden.reason, "--max-tokens" in hidden.detail) == ("vlm.empty", True)


def test_what_came_off_is_kept_as_a_note() -> None:
    outcome = guarded(f"<think>It is a dog.</think> **Caption:** {DOG}")
    assert isinstance(outcome, Caption)
    assert outcome.text == DOG
    assert outcome.note == "taken off: reasoning '<think>It is a dog.'; Markdown; a label"


def test_split_reasoning_leaves_other_answers_alone() -> None:
    assert split_reasoning(DOG) == ("", DOG)
    # Half a mark behind something else: nobody knows what the something is.
    assert split_reasoning(f"{DOG} <think>hm") == ("", f"{DOG} <think>hm")
    assert guarded(f"{DOG} <think>hm").reason == "vlm.special_token"


class _Tokenizer:
    """A tokenizer whose marks of thinking are special tokens, as of gpt-oss and Gemma 4."""

    pieces = ("<|channel>", "thought\nIt is a dog.", "<channel|>", DOG, "<turn|>")
    special = ("<|channel>", "<channel|>", "<turn|>")

    def decode(self, ids: list[int], *, skip_special_tokens: bool = False) -> str:
        pieces = [self.pieces[number] for number in ids]
        return "".join(p for p in pieces if not (skip_special_tokens and p in self.special))


def test_a_local_model_does_not_lose_its_marks_of_thinking() -> None:
    captioner = LocalCaptioner.__new__(LocalCaptioner)
    captioner._tokenizer = _Tokenizer()
    captioner._special_tokens = list(_Tokenizer.special)
    assert open_answer(captioner._text([0, 1, 2, 3, 4])).text == DOG
    assert open_answer(captioner._text([0, 1])).text == ""
    assert captioner._text([3, 4]) == DOG


def _payload(message: object, **fields: object) -> bytes:
    usage = {"completion_tokens": fields.pop("tokens", 9)}
    choice = {"message": message, "finish_reason": "stop", **fields}
    return json.dumps({"choices": [choice], "usage": usage}).encode()


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_a_server_that_tells_thinking_apart(name: str) -> None:
    (answer,) = captions_of(_payload({"content": None, name: "It is"}), seeds=[0], max_tokens=64)
    assert isinstance(answer, Caption)
    assert (answer.text, answer.reasoning) == ("", "It is")


def test_parts_that_are_thoughts_are_not_the_answer() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "It is"}]},
        {"type": "reasoning", "text": "It is"},
        {"type": "text", "text": DOG},
    ]
    (answer,) = captions_of(_payload({"content": parts}), seeds=[0], max_tokens=64)
    assert isinstance(answer, Caption)
    assert answer.text == DOG


@pytest.mark.parametrize(
    ("fields", "finish_reason"),
    [
        ({"finish_reason": "length"}, "length"),
        ({"finish_reason": "max_tokens"}, "length"),
        ({"finish_reason": "MAX_TOKENS"}, "length"),
        ({"finish_reason": "stop", "tokens": 64}, "length"),  # says stop, used every token
        ({"finish_reason": None, "tokens": 64}, "length"),
        ({"finish_reason": "stop", "tokens": 63}, "stop"),
        ({"finish_reason": None}, "stop"),
    ],
)
def test_which_answers_came_to_the_token_limit(fields: dict, finish_reason: str) -> None:
    (answer,) = captions_of(_payload({"content": DOG}, **fields), seeds=[0], max_tokens=64)
    assert isinstance(answer, Caption)
    assert answer.finish_reason == finish_reason


# -- cut at the limit --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "whole", "rest"),
    [
        ("A dog runs on. Behind it stands a", "A dog runs on.", "Behind it stands a"),
        ("A dog runs on grass.", "A dog runs on grass.", ""),
        ("A dog runs on grass. It is 3.", "A dog runs on grass. It is 3.", ""),
        ("A dog runs with Dr.", "", "A dog runs with Dr."),
        ("A dog runs on grass by Mr. Smith and", "", "A dog runs on grass by Mr. Smith and"),
        ("Yes. A dog runs on", "", "Yes. A dog runs on"),  # one word is not a caption
        ("一只狗在草地上奔跑。后面有", "一只狗在草地上奔跑。", "后面有"),
        ("A dog runs on. Its col\ufffd", "A dog runs on.", "Its col"),
        ("", "", ""),
    ],
)
def test_cut_back_to_the_last_whole_sentence(text: str, whole: str, rest: str) -> None:
    assert cut_back(text) == (whole, rest)


def test_a_cut_caption_is_flagged_and_cut_back() -> None:
    cut = guarded("A dog runs on grass. Behind it stands a", "length")
    assert isinstance(cut, Caption)
    assert (cut.text, cut.finish_reason) == ("A dog runs on grass.", "trimmed")
    assert cut.note == "cut back, the token limit came at: Behind it stands a"
    half = guarded("A dog runs on green grass behind a\ufffd", "length")
    assert isinstance(half, Caption)
    assert (half.text, half.finish_reason) == ("A dog runs on green grass behind a", "length")


def test_another_language_is_not_asked_for_in_english() -> None:
    captioner = Saying("A dog runs on the green grass.")
    (outcome,) = Guarded(captioner, prompt=SHORT, language="de").caption([picture(1)])
    assert isinstance(outcome, CaptionFailure)
    assert outcome.reason == "vlm.language"
    assert captioner.prompts == [SHORT.text, SHORT.text]  # the alternative says "in English"
