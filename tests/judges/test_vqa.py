"""VQAScore: equal to a plain call of the model, and what a judge that cannot answer gives."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from curator.core.errors import EngineError
from curator.core.images import decode
from curator.judges.ask import request_of
from curator.judges.claims import ClaimsScorer, verdict_of
from curator.judges.vqa import MAX_CHARS, QUESTION, VqaScorer
from tests.kit import tinymodels
from tests.kit.paths import STUB_SERVER
from tests.kit.stub_server import verdict, yes_no
from tests.kit.tinyclip import photo

TEXTS = ["a dog", "two people stand in front of a red house", "x y z"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tinymodels.judge(tmp_path_factory.mktemp("judge") / "tiny")


@pytest.fixture
def serve() -> Iterator[Callable[[str], str]]:
    processes = []

    def start(mode: str = "ok") -> str:
        command = [sys.executable, str(STUB_SERVER), "--mode", mode]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert processes[-1].stdout is not None
        return f"http://127.0.0.1:{int(processes[-1].stdout.readline())}/v1"

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def plain(folder: Path, image: Image.Image, text: str, answer: tuple[int, ...]) -> float:
    """P(answer) by the model's own forward pass, alone, without padding or `generate`."""
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    question = QUESTION.format(text=text)
    content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    chance = 1.0
    for token in answer:
        with torch.inference_mode():
            chance *= float(model(**inputs).logits[0, -1].softmax(-1)[token])
        one = torch.ones(1, 1, dtype=torch.long)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], token * one], dim=1)
        inputs["attention_mask"] = torch.cat([inputs["attention_mask"], one], dim=1)
    return chance


def test_the_score_is_that_of_a_plain_call(folder: Path) -> None:
    pairs = [(photo(number), text) for number, text in enumerate(TEXTS)]
    scores = VqaScorer(model=str(folder), device="cpu").score(pairs)
    tokenizer = AutoProcessor.from_pretrained(folder).tokenizer
    yes, no = tokenizer.convert_tokens_to_ids(["Yes", "No"])
    for (image, text), score in zip(pairs, scores, strict=True):
        shown = decode(image).image
        assert score.score == pytest.approx(plain(folder, shown, text, (yes,)), abs=1e-5)
        assert score.measures["no"] == pytest.approx(plain(folder, shown, text, (no,)), abs=1e-5)
    assert len({score.score for score in scores}) == len(TEXTS)  # it sees image and text


def test_an_answer_of_two_tokens_is_the_product(tmp_path: Path) -> None:
    """The tokenizer of this one has no token for Yes: the model is led along both of its parts."""
    folder = tinymodels.smolvlm(tmp_path / "plain")
    judge = VqaScorer(model=str(folder), device="cpu")._judge
    tokenizer = AutoProcessor.from_pretrained(folder).tokenizer
    yes = tuple(tokenizer.encode("Yes", add_special_tokens=False))
    assert len(yes) > 1
    captioner = judge._captioner  # type: ignore[attr-defined]  # the judge that runs here
    image = photo(1)
    requests = [request_of(image, QUESTION.format(text=text)) for text in TEXTS]
    found = captioner.likelihoods(requests, [yes], 3)
    for text, one in zip(TEXTS, found, strict=True):
        expected = plain(folder, decode(image).image, text, yes)
        assert one.of[0] == pytest.approx(expected, rel=1e-3)


def test_a_judge_that_says_neither_has_no_score(tmp_path: Path) -> None:
    folder = tinymodels.judge(tmp_path / "mute")
    model = AutoModelForImageTextToText.from_pretrained(folder)
    tokenizer = AutoProcessor.from_pretrained(folder).tokenizer
    with torch.no_grad():  # both far below the other 300 tokens
        head = model.get_output_embeddings().weight
        head[[*tokenizer.convert_tokens_to_ids(["Yes", "No"])]] = 0.0
        head[4:24] = 1e3 * torch.randn(20, head.shape[1], generator=torch.manual_seed(1))
        head[24:44] = -head[4:24]
    model.save_pretrained(folder)
    (score,) = VqaScorer(model=str(folder), device="cpu").score([(photo(0), "a dog")])
    if score.score is not None:  # 20 of 40 opposite rows are above zero, whatever the state
        pytest.fail(f"a number was made up: {score}")
    assert score.failure == "judge.no_yes_no"


def test_a_long_text_is_asked_about_in_parts(folder: Path) -> None:
    sentence = "A dog runs on the beach with a red ball. "
    text = (sentence * (MAX_CHARS // len(sentence) + 1)).strip()
    scorer = VqaScorer(model=str(folder), device="cpu")
    whole, part = scorer.score([(photo(0), text), (photo(0), sentence.strip())])
    assert whole.truncated
    assert whole.score == pytest.approx(part.score, abs=1e-5)  # the mean of equal parts
    assert {text[one.start : one.end] for one in whole.sentences} == {sentence.strip()}


def test_empty_texts_and_bad_images_fail_alone(folder: Path) -> None:
    scorer = VqaScorer(model=str(folder), device="cpu")
    bad, empty, special, good = scorer.score(
        [(b"<html>", "a dog"), (photo(1), " "), (photo(1), "<|im_end|>"), (photo(1), "a dog")]
    )
    assert (bad.score, empty.failure, special.failure) == (None, "caption.empty", "caption.empty")
    assert bad.failure is not None
    assert bad.failure.startswith("image.")
    assert good.score is not None


def test_a_server_gives_the_probabilities_that_it_lists(serve: Callable[[str], str]) -> None:
    scorer = VqaScorer(model="tiny", url=serve("ok"))
    images = [photo(number) for number in range(4)]
    for image, score in zip(images, scorer.score([(one, "a dog") for one in images]), strict=True):
        of = dict(yes_no(hashlib.sha256(image).hexdigest()))
        assert score.score == pytest.approx(of["Yes"] + of[" yes"], abs=1e-6)
        assert score.measures["unlisted"] == pytest.approx(0.05, abs=1e-6)
    bad, empty = scorer.score([(b"<html>", "a dog"), (images[0], "")])
    assert bad.failure is not None
    assert bad.failure.startswith("image.")
    assert empty.failure == "caption.empty"


@pytest.mark.parametrize("mode", ["no_logprobs", "refuses_logprobs"])
def test_a_server_without_logprobs_is_named(serve: Callable[[str], str], mode: str) -> None:
    url = serve(mode)
    with pytest.raises(EngineError, match="no log probabilities") as caught:
        VqaScorer(model="tiny", url=url).score([(photo(0), "a dog")])
    assert caught.value.reason == "server.no_logprobs"
    assert "127.0.0.1" in str(caught.value)
    assert "claims" in (caught.value.hint or "")


def test_a_chatty_server_has_no_score(serve: Callable[[str], str]) -> None:
    url = serve("chatty")
    (score,) = VqaScorer(model="tiny", url=url).score([(photo(0), "a dog")])
    assert (score.score, score.failure) == (None, "judge.no_yes_no")
    assert "'Well'" in score.detail
    (score,) = ClaimsScorer(model="tiny", url=url).score([(photo(0), "A dog. A cat.")])
    assert (score.score, score.failure) == (None, "judge.unclear")
    assert "depends on what you mean" in score.detail


def test_claims_keep_the_words_of_the_judge(serve: Callable[[str], str]) -> None:
    scorer = ClaimsScorer(model="tiny", url=serve("ok"))
    text = "A dog runs. A cat sleeps."
    for number in range(6):
        image = photo(number)
        (score,) = scorer.score([(image, text)])
        said = verdict(hashlib.sha256(image).hexdigest())
        value = {"S": 1.0, "N": 0.0, "C": 0.5}[said[0]]
        assert [(one.start, one.end, one.score) for one in score.sentences] == [
            (0, 11, value),
            (12, 25, value),
        ]
        assert score.words == (said, said)
        assert score.score == float(said.startswith("Supported"))
        assert sum(score.measures.values()) == 2


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Supported. A dog is there.", 1.0),
        ("**Supported**: yes", 1.0),
        ("not supported, it is a cat", 0.0),
        ("Unsupported", 0.0),
        ("The sentence is not supported by the image", 0.0),
        ("Answer: cannot tell", 0.5),
        ("I can't tell", None),  # not as it was asked
        ("Can\u2019t tell; it is dark", 0.5),
        ("Supportedness", None),
        ("Yes", None),
        ("", None),
        ("The dog is supported by a leash", None),
    ],
)
def test_verdicts(answer: str, expected: float | None) -> None:
    assert verdict_of(answer) == expected
