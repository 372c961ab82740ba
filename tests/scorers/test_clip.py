"""The clip scorer against a plain loop over open_clip, and where a plain loop goes wrong."""

from __future__ import annotations

import io
import json
import shlex
import shutil
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from PIL import Image

from curator.core import images
from curator.core.errors import EngineError, UsageError
from curator.scorers.clip import ClipScorer, clip_score
from curator.scorers.clip_model import load_clip
from tests.kit.cli import check_whole, curator
from tests.kit.tars import tar
from tests.kit.tinyclip import photo, save_tiny_clip

SHORT = ["a dog", "a cat on the beach", "two red houses", "!"]
LONG = "a dog runs on the beach with a red ball . " * 4  # 48 tokens and the two special ones


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("models") / "tiny-clip")


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("models") / "tiny-siglip", hf_tokenizer=True)


def build(folder: Path, **options: Any) -> ClipScorer:
    return ClipScorer(
        str(folder), **({"device": "cpu", "batch_size": 4, "decode_workers": 2} | options)
    )


def plain_cosines(folder: Path, pairs: list[tuple[bytes, str]]) -> list[float]:
    """What anybody writes by hand: one pair at a time, no curator code."""
    source = f"local-dir:{folder}"
    model, _, preprocess = open_clip.create_model_and_transforms(source)
    tokenizer = open_clip.get_tokenizer(source)
    model.eval()
    cosines = []
    with torch.no_grad():
        for data, text in pairs:
            pixels = preprocess(Image.open(io.BytesIO(data)).convert("RGB"))[None]
            image = model.encode_image(pixels, normalize=True)
            words = model.encode_text(tokenizer([text]), normalize=True)
            cosines.append(float((image * words).sum()))
    return cosines


@pytest.mark.parametrize("kind", ["folder", "siglip"])
def test_equals_a_plain_loop(kind: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(kind)
    pairs = [(photo(i), SHORT[i % 4]) for i in range(11)]
    scores = build(path).score(pairs)
    expected = plain_cosines(path, pairs)
    assert [s.score for s in scores] == pytest.approx(expected, abs=1e-5)
    assert len({round(value, 4) for value in expected}) > 5  # the loop does tell pairs apart
    assert not any(s.truncated or s.sentences for s in scores)


def test_true_token_counts(folder: Path, siglip: Path) -> None:
    texts = ["a dog", LONG, "", "Dog's"]
    # CLIP: start and end around a|dog; 12 words 4 times; nothing; dog|'s
    assert [s.num_tokens for s in build(folder).score([(photo(0), t) for t in texts])] == [
        4,
        46,
        0,
        4,
    ]
    tokens = load_clip(str(siglip), device=torch.device("cpu"), dtype=torch.float32).tokens
    # SigLIP's style: only an end, and punctuation is cleaned away (11 words, 4 times, and the end)
    assert [tokens.count(t) for t in texts[:3]] == [3, 41, 1]
    assert tokens.num_special == 1


def test_sentences_of_a_text_that_fits(folder: Path) -> None:
    text = "a dog runs . a cat sits ."
    (score,) = build(folder).score([(photo(0), text)])
    assert not score.truncated
    assert [text[s.start : s.end] for s in score.sentences] == ["a dog runs .", "a cat sits ."]
    expected = plain_cosines(folder, [(photo(0), t) for t in (text, text[:12], text[13:])])
    assert [score.score, *(s.score for s in score.sentences)] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", ["folder", "siglip"])
def test_a_long_text_is_never_cut(kind: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(kind)
    (score,) = build(path).score([(photo(0), LONG)])
    assert score.truncated
    assert len(score.sentences) == 4
    apart = [LONG[s.start : s.end] for s in score.sentences]
    assert apart == ["a dog runs on the beach with a red ball ."] * 4
    expected = plain_cosines(path, [(photo(0), apart[0])])[0]
    assert score.score == pytest.approx(expected, abs=1e-5)
    # what open_clip alone would have said: the first 14 words, silently
    assert score.score != pytest.approx(plain_cosines(path, [(photo(0), LONG)])[0], abs=1e-4)


def test_a_long_text_counts_its_end(folder: Path) -> None:
    # The end of a text changes its score; openai/CLIP cuts it off unseen.
    same = "a dog and a cat and a man and a house " * 3
    one, other = build(folder).score([(photo(0), same + "run"), (photo(0), same + "sleep")])
    assert one.score != other.score
    assert one.score == pytest.approx(sum(s.score for s in one.sentences) / len(one.sentences))


def test_special_tokens_do_not_end_the_text(folder: Path) -> None:
    attack, plain = build(folder).score(
        [(photo(0), "a dog<end_of_text> and a cat"), (photo(0), "a dog and a cat")]
    )
    assert attack.score == pytest.approx(plain.score, abs=1e-6)
    assert (attack.flags, plain.flags) == (("special_token",), ())


def test_half_precision_overflow_is_tried_again(tmp_path: Path) -> None:
    def overflow(state: dict[str, torch.Tensor]) -> None:
        state["visual.proj"] *= 1e8  # infinite in fp16 (above 65,504), harmless in fp32

    folder = save_tiny_clip(tmp_path / "m", edit=overflow)
    pairs = [(photo(0), "a dog"), (photo(1), "a cat. a dog")]
    scores = build(folder, dtype="fp16").score(pairs)
    exact = build(folder).score(pairs)
    assert [s.failure for s in scores] == [None, None]
    assert [s.score for s in scores] == pytest.approx([s.score for s in exact], abs=1e-6)
    assert len(scores[1].sentences) == 2


def test_half_precision_is_near(folder: Path) -> None:
    pairs = [(photo(i), text) for i, text in enumerate(SHORT)]
    exact = [s.score for s in build(folder).score(pairs)]
    for dtype in ("bf16", "fp16"):
        assert [s.score for s in build(folder, dtype=dtype).score(pairs)] == pytest.approx(
            exact, abs=0.02
        )


def test_nan_in_float32_is_a_failure_of_that_pair(tmp_path: Path) -> None:
    (word,) = open_clip.SimpleTokenizer().encode("zebra")

    def poison(state: dict[str, torch.Tensor]) -> None:
        state["token_embedding.weight"][word] = float("nan")

    folder = save_tiny_clip(tmp_path / "m", edit=poison)
    for dtype in ("fp32", "bf16"):
        good, bad, sentence = build(folder, dtype=dtype).score(
            [(photo(0), "a dog"), (photo(0), "a zebra"), (photo(0), "a dog. a zebra.")]
        )
        assert good.failure is None
        assert (bad.score, bad.failure) == (None, "score.not_finite")
        assert (sentence.score, sentence.failure) == (None, "score.not_finite")


def test_failures_carry_their_reason(folder: Path) -> None:
    outcomes = build(folder).score(
        [(b"", "x"), (photo(0)[:300], "x"), (photo(1), " \n"), (b"", ""), (photo(2), "fine")]
    )
    assert [s.failure for s in outcomes] == [
        "image.empty", "image.truncated", "caption.empty", "image.empty", None,
    ]  # fmt: skip


def count_decodes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    seen: list[bytes] = []
    real = images.decode

    def decode(data: bytes, **options: Any) -> images.DecodedImage:
        seen.append(data)
        return real(data, **options)

    monkeypatch.setattr(images, "decode", decode)
    return seen


def test_identical_images_and_texts_are_encoded_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = count_decodes(monkeypatch)
    scorer = build(folder)
    rows: list[int] = []
    real = scorer._clip.net.encode_text
    monkeypatch.setattr(
        scorer._clip.net, "encode_text", lambda ids: (rows.append(len(ids)), real(ids))[1]
    )
    copy = bytes(bytearray(photo(0)))
    scorer.score([(photo(0), "a dog"), (copy, "a cat"), (photo(1), "a dog"), (copy, "a dog")])
    assert sorted(seen) == sorted([photo(0), photo(1)])
    assert rows == [2]


def test_prefetch_decodes_ahead_and_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = build(folder)
    batches = [[(photo(10 * b + i), "a dog") for i in range(5)] for b in range(3)]
    expected = [scorer.score(batch) for batch in batches]
    seen = count_decodes(monkeypatch)
    scorer.prefetch(batches[0])
    scorer.prefetch(batches[1])
    assert scorer.score(batches[0]) == expected[0]
    scorer.prefetch(batches[2])
    assert scorer.score(batches[1]) == expected[1]
    assert scorer.score(batches[2]) == expected[2]
    assert len(seen) == 15
    # a damaged image fails where it is asked for, not where it is prefetched
    scorer.prefetch([(b"", "x")])
    assert scorer.score([(b"", "x")])[0].failure == "image.empty"


def test_decoding_overlaps_the_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The model may only start on batch 1 when images of batch 2 are already being decoded.
    scorer = build(folder, batch_size=2, decode_workers=4)
    ahead = threading.Event()
    real_decode, real_encode = images.decode, scorer._clip.net.encode_image
    started: set[bytes] = set()

    def decode(data: bytes, **options: Any) -> images.DecodedImage:
        started.add(data)
        if len(started) >= 4:
            ahead.set()
        return real_decode(data, **options)

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        ahead.wait()
        return real_encode(pixels)

    monkeypatch.setattr(images, "decode", decode)
    monkeypatch.setattr(scorer._clip.net, "encode_image", encode)
    assert len(scorer.score([(photo(i), "a dog") for i in range(6)])) == 6


def test_out_of_memory_halves_the_batch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # CUDA's error, raised by hand: no memory can run out on the CPU without taking the test along.
    scorer = build(folder)
    expected = scorer.score([(photo(i), "a dog") for i in range(6)])
    real = scorer._clip.net.encode_image
    sizes: list[int] = []

    def small_only(pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        if len(pixels) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(pixels)

    monkeypatch.setattr(scorer._clip.net, "encode_image", small_only)
    scores = scorer.score([(photo(i), "a dog") for i in range(6)])
    assert [s.score for s in scores] == pytest.approx([s.score for s in expected], abs=1e-5)
    assert sizes == [4, 2] + [1] * 6

    def never(pixels: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(scorer._clip.net, "encode_image", never)
    with pytest.raises(EngineError, match="batch size 1") as caught:
        scorer.score([(photo(0), "a dog")])
    assert caught.value.code == 30


def edit_config(folder: Path) -> None:
    (folder / "open_clip_config.json").write_text("{")


def drop_weights(folder: Path) -> None:
    (folder / "open_clip_model.safetensors").unlink()


def pickle_only(folder: Path) -> None:
    drop_weights(folder)
    torch.save({}, folder / "open_clip_pytorch_model.bin")


def other_architecture(folder: Path) -> None:
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["embed_dim"] = 8
    path.write_text(json.dumps(config))


def cut_weights(folder: Path) -> None:
    path = folder / "open_clip_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def two_weights(folder: Path) -> None:
    weights = folder / "open_clip_model.safetensors"
    shutil.copy(weights, folder / "epoch_1.safetensors")
    weights.rename(folder / "epoch_2.safetensors")


@pytest.mark.parametrize(
    ("damage", "error", "reason"),
    [
        (drop_weights, UsageError, "model.no_weights"),  # open_clip would go on with random ones
        (pickle_only, UsageError, "model.pickle"),
        (two_weights, UsageError, "model.weights"),
        (edit_config, EngineError, "model.load"),
        (other_architecture, EngineError, "model.load"),
        (cut_weights, EngineError, "model.load"),
        (lambda folder: (folder / "open_clip_config.json").unlink(), UsageError, "model.config"),
    ],
)
def test_unusable_folders_are_refused(
    folder: Path, tmp_path: Path, damage: Callable[[Path], None], error: type, reason: str
) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    damage(copy)
    with pytest.raises(error) as caught:
        build(copy)
    assert caught.value.reason == reason
    assert str(copy) in str(caught.value)


def test_options_are_checked(folder: Path) -> None:
    with pytest.raises(UsageError, match="allowed: fp32, bf16, fp16"):
        build(folder, dtype="bf61")
    with pytest.raises(UsageError, match="device is 'gpu'"):
        build(folder, device="gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_gpu_is_said(folder: Path) -> None:
    with pytest.raises(UsageError, match="device is 'cuda'"):
        build(folder, device="cuda")


def test_edited_texts_by_the_commands_that_are_named(folder: Path, tmp_path: Path) -> None:
    """Score, decide, edit, apply, score, apply: the whole way with a real model."""
    shards = tmp_path / "shards"
    shards.mkdir()
    files = [("a.png", photo(0)), ("a.txt", b"a dog runs"), ("b.png", photo(1)), ("b.txt", b"cat")]
    (shards / "00000.tar").write_bytes(tar(files))
    score = ("score", shards, "--scorer", folder, "--device", "cpu", "--json")
    assert curator(*score).json["made"]["made"] == 2
    decided = curator("decide", shards, "--policy", "as-is", "--json").json["version"]
    assert decided["totals"]["num_scored"] == 2
    curator("edits", "replace", shards, "dog", "cat", "--yes", "--who", "Anna")
    said = curator("edits", "apply", f"{shards}@v1", "--who", "Anna").out
    command = f"curator score {shards} --scorer PATH/tiny-clip --dtype fp32\n"
    assert "1 edited texts have no score yet" in said
    assert command in said
    again = [*shlex.split(command.replace("PATH/tiny-clip", str(folder)))[1:], "--device", "cpu"]
    first, second = (curator(*again, "--json").json for _ in range(2))
    assert (first["made"]["made"], second["made"]["made"]) == (1, 0)
    human = next(found for found in first["scores"] if found["source"] == "human")
    [expected] = plain_cosines(folder, [(photo(0), "a cat runs")])
    assert (human["num_texts"], human["mean"]) == (1, pytest.approx(expected, abs=1e-5))
    done = curator("edits", "apply", f"{shards}@v1", "--who", "Anna", "--json").json
    assert (done["unscored"], done["version"]["number"]) == (0, 3)
    of_b = plain_cosines(folder, [(photo(1), "cat")])[0]
    totals = check_whole(shards)["totals"]
    assert totals["score_sum"] == pytest.approx(expected + of_b, abs=1e-5)


def test_clip_score() -> None:
    assert clip_score(0.31) == pytest.approx(31)
    assert clip_score(-0.2) == 0
    assert clip_score(0.31) / 40 == pytest.approx(2.5 * 0.31)  # Hessel et al. 2021


@pytest.mark.realdata
def test_equals_the_plain_loop_on_photos(shared: Path) -> None:
    folder = shared / "models" / "photo-clip"
    with tarfile.open(shared / "data" / "photos" / "00000.tar") as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
    keys = sorted(name[:-4] for name in members if name.endswith(".jpg"))[:64]
    pairs = [(members[f"{key}.jpg"], members[f"{key}.txt"].decode()) for key in keys]
    scores = build(folder, batch_size=32).score(pairs)
    assert [s.score for s in scores] == pytest.approx(plain_cosines(folder, pairs), abs=1e-4)
    labels = [json.loads(members[f"{key}.json"])["label"] == "match" for key in keys]
    right = [s.score for s, match in zip(scores, labels, strict=True) if match]
    wrong = [s.score for s, match in zip(scores, labels, strict=True) if not match]
    assert sum(right) / len(right) > sum(wrong) / len(wrong) + 0.3
