"""Captioners one by one: options, drawing, and what goes wrong inside a model."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from PIL import Image

from curator.captioners import Caption, CaptionRequest
from curator.captioners.coca import CocaCaptioner
from curator.captioners.echo import EchoCaptioner
from curator.captioners.guard import Guarded
from curator.captioners.local import LocalCaptioner
from curator.captioners.options import Sampling
from curator.captioners.prompts import PRESETS
from curator.captioners.sampling import Drawer, has_zero_run, nucleus
from curator.core.errors import EngineError, UsageError
from tests.kit.captions import GREEDY, SHORT, damaged, picture, tiny_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The folder of a tiny model, by its family."""
    root = tmp_path_factory.mktemp("models")
    return lambda family: tiny_folder(root, family)


# -- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("temperature", 1e-9),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("seed", -1),
        ("seed", 2**31),
    ],
)
def test_sampling_names_the_wrong_field(field, value):
    with pytest.raises(UsageError, match=field):
        Sampling(**{field: value})


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"device": "gpu"}, "device"),
        ({"device": "cuda:99"}, "device"),
        ({"dtype": "int8"}, "dtype"),
    ],
)
def test_local_names_the_wrong_option(options, field):
    with pytest.raises(UsageError, match=field):
        LocalCaptioner(**{"model": "nobody/nothing", "device": "cpu", **options})


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"fault": "refuse"}, "did you mean 'refusal'"),
        ({"fault_share": 2.0}, "fault_share"),
        ({"fault_sec": -1.0}, "fault_sec"),
        ({"device": "cpu"}, "device"),
    ],
)
def test_echo_names_the_wrong_option(options, field):
    with pytest.raises(UsageError, match=field):
        EchoCaptioner(**options)


# -- drawing -------------------------------------------------------------------------------------


def test_nucleus_keeps_the_likeliest():
    probs = torch.tensor([[0.1, 0.5, 0.4], [0.9, 0.05, 0.05]])
    assert nucleus(probs, 0.8).tolist() == [[False, True, True], [True, False, False]]
    assert nucleus(probs, 1e-9).sum(-1).tolist() == [1, 1]  # never nothing
    assert nucleus(probs, 1.0).all()


@pytest.mark.long
def test_draws_follow_the_distribution():
    # 4,000 images, one draw each from (0.6, 0.3, 0.1): the counts lie within 4 standard
    # deviations (31, 29, 19) of 2400, 1200 and 400. With top-p 0.8 the last one never comes.
    requests = [replace(picture(0), image_sha256=f"{number:064x}") for number in range(4000)]
    logits = torch.tensor([0.6, 0.3, 0.1]).log().expand(4000, 3)
    cpu = torch.device("cpu")
    drawn = Drawer(Sampling(temperature=1.0), requests, cpu)(logits)
    counts = torch.bincount(drawn, minlength=3) - torch.tensor([2400, 1200, 400])
    assert (counts.abs() < 4 * torch.tensor([31, 29, 19])).all()
    cut = Drawer(Sampling(temperature=1.0, top_p=0.8), requests, cpu)(logits)
    assert set(cut.tolist()) == {0, 1}


def test_zero_runs():
    assert has_zero_run([5, *[0] * 8])
    assert not has_zero_run([0] * 7)
    assert not has_zero_run([0, 1] * 20)


# -- local: what goes wrong ----------------------------------------------------------------------


def test_nan_logits_are_garbage_and_end_the_run(folder, tmp_path):
    def break_it(weights: dict[str, torch.Tensor]) -> None:
        weights["text_decoder.cls.predictions.bias"].fill_(float("nan"))

    path = damaged(folder("blip"), tmp_path / "nan", break_it)
    captioner = LocalCaptioner(model=path, sampling=GREEDY, device="cpu")
    outcomes = captioner.caption([picture(0), picture(1)])
    assert [outcome.reason for outcome in outcomes] == ["vlm.garbage"] * 2
    with pytest.raises(EngineError, match="plain test image"):
        Guarded(captioner, prompt=PRESETS["short"]).caption([picture(0)])


def test_overflow_in_fp16_is_redone_in_fp32(folder, tmp_path):
    """Row 54: a value above 65,504 is infinity in fp16, and NaN from there on."""

    def grow(weights: dict[str, torch.Tensor]) -> None:
        weights["vision_model.post_layernorm.weight"].mul_(1e6)

    path = damaged(folder("blip"), tmp_path / "big", grow)
    captioner = LocalCaptioner(model=path, sampling=GREEDY, device="cpu", dtype="fp16")
    assert captioner.caption([picture(0)])[0].reason == "vlm.garbage"
    guarded = Guarded(captioner, prompt=PRESETS["short"])
    guarded.caption([picture(0)])
    assert captioner.dtype == torch.float32
    right = LocalCaptioner(model=path, sampling=GREEDY, device="cpu").caption([picture(0)])
    assert captioner.caption([picture(0)]) == right


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "vlm.oom"),
        (ValueError("absolute aspect ratio must be smaller than 200"), "engine.error"),
    ],
)
def test_what_one_image_breaks_it_breaks_alone(folder, monkeypatch, error, reason):
    # There is no GPU here to fill, so generate fails as it would: above 3 rows, and for one image.
    captioner = LocalCaptioner(model=folder("llava"), sampling=GREEDY, device="cpu")
    requests = [picture(number) for number in range(8)]
    right = captioner.caption(requests)
    bad = captioner._images.take(requests[5:6])[0]
    encode, sizes = captioner._family.encode, []

    def failing(images, instructions):
        sizes.append(len(images))
        if len(images) > 3 or any(image.size == bad.size for image in images):
            raise error
        return encode(images, instructions)

    monkeypatch.setattr(captioner._family, "encode", failing)
    outcomes = captioner.caption(requests)
    assert outcomes[5].reason == reason
    assert outcomes[:5] + outcomes[6:] == right[:5] + right[6:]
    assert sizes == [8, 4, 2, 2, 4, 2, 1, 1, 2]


def test_missing_weights_are_not_made_up(folder, tmp_path):
    def forget(weights: dict[str, torch.Tensor]) -> None:
        del weights["vision_model.post_layernorm.weight"]

    path = damaged(folder("blip"), tmp_path / "missing", forget)
    with pytest.raises(EngineError, match=r"1 weights are not in the checkpoint.*random") as caught:
        LocalCaptioner(model=path, device="cpu")
    assert caught.value.code == 30


def test_a_pickled_checkpoint_is_refused_by_name(folder, tmp_path):
    path = damaged(folder("blip"), tmp_path / "pickled", lambda weights: None)
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(UsageError, match=r"pytorch_model\.bin"):
        LocalCaptioner(model=path, device="cpu")


def test_a_folder_that_is_no_captioner_is_named(folder, tmp_path):
    path = damaged(folder("blip"), tmp_path / "odd", lambda weights: None)
    (tmp_path / "odd" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(EngineError, match=r"cannot load the model .*odd"):
        LocalCaptioner(model=path, device="cpu")


@pytest.mark.long
def test_a_folder_without_an_image_processor_is_named(folder, tmp_path):
    path = damaged(folder("blip"), tmp_path / "text", lambda weights: None)
    for name in ("processor_config.json", "preprocessor_config.json"):
        (tmp_path / "text" / name).unlink(missing_ok=True)
    with pytest.raises(EngineError, match="cannot load the model"):
        LocalCaptioner(model=path, device="cpu")


# -- coca ----------------------------------------------------------------------------------------


def test_coca_equals_a_loop_written_out(folder):
    """One image, greedy, every step a full forward pass of the public call."""
    import open_clip

    path = folder("coca")
    net, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{path}")
    net.eval()
    request = picture(0)
    pixels = preprocess(Image.open(io.BytesIO(request.image)))[None]
    ids = [49406]
    with torch.no_grad():
        while len(ids) <= 10 and ids[-1] != 49407:
            logits = net(pixels, torch.tensor([ids]), output_labels=False)["logits"]
            ids.append(int(logits[0, -1].argmax()))
    text = open_clip.decode(torch.tensor(ids[1:])).split("<end_of_text>")[0].strip()
    captioner = CocaCaptioner(model=path, sampling=GREEDY, device="cpu", first_sentence=False)
    assert captioner.caption([request])[0].text == text


def test_coca_stops_at_the_first_full_stop_when_told(folder, monkeypatch):
    monkeypatch.setattr("open_clip.decode", lambda ids: "a dog runs . a cat sits ")
    captioner = CocaCaptioner(model=folder("coca"), sampling=GREEDY, device="cpu")
    (outcome,) = captioner.caption([picture(0)])
    assert (outcome.text, outcome.finish_reason) == ("a dog runs.", "stop")
    whole = CocaCaptioner(model=folder("coca"), sampling=GREEDY, device="cpu", first_sentence=False)
    assert whole.caption([picture(0)])[0].text == "a dog runs . a cat sits"


def test_coca_never_runs_over_its_context(folder):
    # Context 24: the start token and 23 more.
    long = Sampling(max_tokens=500)
    (outcome,) = CocaCaptioner(
        model=folder("coca"), sampling=long, device="cpu", first_sentence=False
    ).caption([picture(0)])
    assert (outcome.num_tokens, outcome.finish_reason) == (23, "length")


def test_coca_in_bf16(folder):
    captioner = CocaCaptioner(model=folder("coca"), sampling=GREEDY, device="cpu", dtype="bf16")
    requests = [picture(number) for number in range(3)]
    assert all(isinstance(outcome, Caption) for outcome in captioner.caption(requests))
    assert captioner.to_fp32()
    assert not captioner.to_fp32()
    exact = CocaCaptioner(model=folder("coca"), sampling=GREEDY, device="cpu")
    assert captioner.caption(requests) == exact.caption(requests)


# -- echo ----------------------------------------------------------------------------------------


def test_echo_says_the_same_everywhere():
    # These words are promised: resumed trees are compared byte by byte across machines.
    request = CaptionRequest("0" * 64, picture(0).image, SHORT)
    (outcome,) = EchoCaptioner().caption([request])
    assert outcome == Caption(outcome.text, "stop", len(outcome.text.split()), 0)
    assert outcome.text == "A young boy in bright sunlight rests by a lake."


def test_echo_hits_a_share_and_always_the_same():
    requests = [
        replace(picture(0), image_sha256=f"{n * 2**22:08x}" + "0" * 56) for n in range(1000)
    ]
    captioner = EchoCaptioner(fault="empty", fault_share=0.1)
    outcomes = captioner.caption(requests)
    # sha256 prefixes n * 2^22 of 2^32 lie below 0.1 for n = 0 to 102
    assert [n for n, outcome in enumerate(outcomes) if not outcome.text] == list(range(103))
