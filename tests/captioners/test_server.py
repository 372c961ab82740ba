"""The server captioner against a real HTTP server process on loopback, in all its bad moods."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from yarl import URL

from curator.captioners import Caption, CaptionFailure, CaptionRequest
from curator.captioners.options import Sampling
from curator.captioners.payload import retry_after_sec
from curator.captioners.server import ServerCaptioner, mask_url
from curator.core.errors import EngineError, UsageError
from tests.kit.paths import STUB_SERVER
from tests.kit.stub_server import answer

PROMPT = "Describe this image in one short sentence."
STALL_SEC = 5.0  # what stalls, never answers; what does not answers in time on a busy machine
KEYS = ("CURATOR_API_KEY", "OPENAI_API_KEY")


def encode(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def request_for(image: bytes, candidate: int = 0) -> CaptionRequest:
    return CaptionRequest(hashlib.sha256(image).hexdigest(), image, PROMPT, candidate)


def picture(number: int) -> CaptionRequest:
    size = (40 + number % 13, 40 + number % 7)
    return request_for(encode(Image.new("RGB", size, (number % 256, number // 256, 99))))


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Start a stub server; gives its URL. Its log is `tmp_path/log.jsonl`."""
    processes = []

    def start(mode: str = "ok", **options: object) -> str:
        arguments = [f"--{name}={value}" for name, value in options.items()]
        script = str(STUB_SERVER)
        process = subprocess.Popen(
            [sys.executable, script, "--mode", mode, f"--log={tmp_path / 'log.jsonl'}", *arguments],
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None
        return f"http://127.0.0.1:{int(process.stdout.readline())}/v1"

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def connect(url: str, **options: object) -> ServerCaptioner:
    return ServerCaptioner(**{"model": "tiny", "url": url, **options})


def log_of(tmp_path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]


def failures(outcomes: list[Caption | CaptionFailure]) -> list[str | None]:
    return [o.reason if isinstance(o, CaptionFailure) else None for o in outcomes]


def test_every_answer_reaches_its_own_request(serve):
    # Random delays would be no proof; here the answer itself names the image that was sent.
    captioner = connect(serve("ok"), concurrency=16)
    requests = [picture(number) for number in range(200)]
    outcomes = captioner.caption(requests)
    assert [outcome.text for outcome in outcomes] == [answer(r.image_sha256) for r in requests]
    assert {outcome.finish_reason for outcome in outcomes} == {"stop"}
    assert outcomes[0].num_tokens == 8


def test_sends_only_what_every_server_knows(serve, tmp_path):
    # transformers serve answers 500 to `stop`, and to GET /v1/models without a cache folder
    captioner = connect(serve("ok"), sampling=Sampling(seed=5, temperature=0.5))
    captioner.caption([replace(picture(1), candidate=3)])
    (entry,) = log_of(tmp_path)
    assert entry["keys"] == ["max_tokens", "messages", "model", "seed", "temperature", "top_p"]
    assert (entry["method"], entry["path"]) == ("POST", "/v1/chat/completions")
    assert (entry["seed"], entry["prompt"], entry["authorization"]) == (8, PROMPT, None)


@pytest.mark.parametrize(
    ("image", "mime", "as_it_is"),
    [
        (encode(Image.new("RGB", (40, 40))), "image/jpeg", True),
        (encode(Image.new("L", (40, 40))), "image/jpeg", True),
        (encode(Image.new("RGB", (40, 40)), "PNG"), "image/png", True),
        (encode(Image.new("RGB", (40, 40)), "WEBP"), "image/webp", True),
        # hidden colours behind full transparency would show on the server
        (encode(Image.new("RGBA", (40, 40), (255, 0, 0, 0)), "PNG"), "image/png", False),
        # CMYK is inverted or not, depending on the reader
        (encode(Image.new("CMYK", (40, 40))), "image/png", False),
        # orientation 6: servers that ignore it see the picture lying on its side
        (encode(Image.new("RGB", (40, 60)), exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03"
                b"\0\0\0\x01\0\x06\0\0\0\0\0\0"), "image/png", False),
    ],
    ids=["jpeg", "grey", "png", "webp", "transparent", "cmyk", "rotated"],
)  # fmt: skip
def test_images_travel_as_they_are_when_all_read_them_alike(serve, tmp_path, image, mime, as_it_is):
    request = request_for(image)
    (outcome,) = connect(serve("ok")).caption([request])
    (entry,) = log_of(tmp_path)
    assert entry["mime"] == mime
    assert (entry["sha256"] == request.image_sha256) is as_it_is
    assert isinstance(outcome, Caption)


@pytest.mark.parametrize("mode", ["busy", "error", "drop"])
def test_passing_trouble_is_tried_again(serve, tmp_path, mode):
    captioner = connect(serve(mode, times=1))
    requests = [picture(number) for number in range(4)]
    outcomes = captioner.caption(requests)
    assert [outcome.text for outcome in outcomes] == [answer(r.image_sha256) for r in requests]
    asked = [entry for entry in log_of(tmp_path) if entry["method"] == "POST"]
    assert len(asked) == 8  # each image twice


def test_a_refused_image_fails_alone_and_is_not_sent_again(serve, tmp_path):
    bad = picture(2)
    captioner = connect(serve("refuse", target=bad.image_sha256))
    outcomes = captioner.caption([picture(1), bad, picture(3)])
    assert failures(outcomes) == [None, "engine.error", None]
    # Escaped and cut: the server's words go into a table that people look at.
    assert outcomes[1].detail.startswith("HTTP 400: image too\\nodd xxx")
    assert len(outcomes[1].detail) < 500
    # Not the length of the log: a refusal before any caption is followed by a test image.
    assert [entry["sha256"] for entry in log_of(tmp_path)].count(bad.image_sha256) == 1


def test_an_image_that_takes_the_server_down_every_time_fails_alone(serve):
    bad = picture(2)
    captioner = connect(serve("error", target=bad.image_sha256))
    outcomes = captioner.caption([picture(1), bad])
    assert failures(outcomes) == [None, "engine.error"]
    assert outcomes[1].detail == (
        "HTTP 500: CUDA error\\x1b[31m: device-side assert (tried 5 times)"
    )
    # Alone in its batch it is not a reason to end the run either: the test picture is answered.
    assert failures(captioner.caption([bad])) == ["engine.error"]


def test_an_undecodable_image_is_never_sent(serve, tmp_path):
    whole = encode(Image.effect_noise((200, 200), 90).convert("RGB"))
    outcomes = connect(serve("ok")).caption([picture(1), request_for(whole[:2000]), picture(3)])
    assert failures(outcomes) == [None, "image.truncated", None]
    assert len(log_of(tmp_path)) == 2


@pytest.mark.parametrize("mode", ["two", "none", "garbled"])
def test_a_wrong_number_of_answers_is_asked_for_again_once(serve, tmp_path, mode):
    bad = picture(2)
    captioner = connect(serve(mode, target=bad.image_sha256, times=1))
    outcomes = captioner.caption([picture(1), bad])
    assert [outcome.text for outcome in outcomes] == [
        answer(picture(1).image_sha256),
        answer(bad.image_sha256),
    ]
    assert len(log_of(tmp_path)) == 3


def test_a_wrong_number_of_answers_twice_is_a_mismatch(serve):
    bad = picture(2)
    captioner = connect(serve("two", target=bad.image_sha256))
    outcomes = captioner.caption([picture(1), bad])
    assert failures(outcomes) == [None, "vlm.mismatch"]
    assert outcomes[1].detail == "2 choices in the answer to one request"


def test_an_answer_without_end_is_not_read_to_its_end(serve):
    bad = picture(2)
    captioner = connect(serve("huge", target=bad.image_sha256))
    assert failures(captioner.caption([picture(1), bad])) == [None, "vlm.mismatch"]


@pytest.mark.parametrize("mode", ["stall", "drip"])
def test_a_stalled_request_fails_in_time_and_alone(serve, mode):
    bad = picture(2)
    captioner = connect(serve(mode, target=bad.image_sha256), stall_timeout_sec=STALL_SEC)
    outcomes = captioner.caption([picture(1), bad, picture(3)])
    assert failures(outcomes) == [None, "vlm.stalled", None]


def test_a_late_answer_reaches_nobody_else(serve, tmp_path):
    # The answer to the timed-out request must not be taken for that of the next one.
    bad, gate = picture(2), tmp_path / "gate"
    captioner = connect(
        serve("gated", target=bad.image_sha256, times=1, gate=gate),
        stall_timeout_sec=STALL_SEC,
        concurrency=1,
    )
    assert failures(captioner.caption([bad, picture(3)])) == ["vlm.stalled", None]
    gate.touch()  # only now does the server answer the first request
    requests = [bad, picture(4)]
    outcomes = captioner.caption(requests)
    assert [outcome.text for outcome in outcomes] == [answer(r.image_sha256) for r in requests]


@pytest.mark.parametrize(
    ("mode", "said"),
    [("stall", "no answer within 0.5 s"), ("error", "device-side assert"), ("two", "2 choices")],
)
def test_a_server_that_answers_nothing_ends_the_run(serve, mode, said):
    captioner = connect(serve(mode), stall_timeout_sec=0.5 if mode == "stall" else 60)
    with pytest.raises(EngineError, match=said) as caught:
        captioner.caption([picture(1)])
    assert caught.value.code == 30
    assert "/v1/chat/completions" in str(caught.value)


def test_a_server_that_is_down_ends_the_run_and_is_named():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(
        EngineError, match=r"no server was there for 0\.5 s: no connection"
    ) as caught:
        connect(url, server_wait_sec=0.5).caption([picture(number) for number in range(20)])
    assert caught.value.code == 30
    assert url in str(caught.value)
    assert "restart it" in str(caught.value)


def test_a_redirect_is_not_followed(serve, tmp_path):
    with pytest.raises(EngineError, match="HTTP 307"):
        connect(serve("redirect")).caption([picture(1)])
    assert [entry["path"] for entry in log_of(tmp_path)] == ["/v1/chat/completions"]


def test_a_wrong_path_is_named(serve):
    with pytest.raises(EngineError, match="most servers use http://host:port/v1"):
        connect(serve("ok").removesuffix("/v1")).caption([picture(1)])


def test_the_filter_of_a_server_is_a_refusal(serve):
    assert failures(connect(serve("filter")).caption([picture(1)])) == ["vlm.refusal"]


def test_a_cut_answer_says_so(serve):
    (outcome,) = connect(serve("length")).caption([picture(1)])
    assert outcome.finish_reason == "length"


def test_the_key_comes_from_the_environment_and_is_never_shown(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-other")
    monkeypatch.setenv("CURATOR_API_KEY", "sk-canary-mine")
    captioner = connect(serve("unauthorized"))
    with pytest.raises(EngineError, match="CURATOR_API_KEY=") as caught:
        captioner.caption([picture(1)])
    assert log_of(tmp_path)[0]["authorization"] == "Bearer sk-canary-mine"
    # This server repeats the key in its message, as a well-known one does.
    assert "Incorrect API key provided: ***" in str(caught.value)
    shown = str(caught.value) + repr(captioner) + repr(vars(captioner))
    assert "canary" not in shown


def test_proxies_of_the_environment_are_not_used(serve, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    (outcome,) = connect(serve("ok")).caption([picture(1)])
    assert isinstance(outcome, Caption)


def test_a_password_in_the_url_is_used_but_masked(serve, tmp_path):
    url = serve("unauthorized").replace("://", "://me:canary@")
    captioner = connect(url)
    with pytest.raises(EngineError) as caught:
        captioner.caption([picture(1)])
    assert str(log_of(tmp_path)[0]["authorization"]).startswith("Basic ")
    assert "canary" not in str(caught.value) + captioner.url
    assert "http://***@127.0.0.1" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("http://host:8000/v1", "http://host:8000/v1"),
        ("https://user:secret@host/v1?key=secret#secret", "https://***@host/v1"),
    ],
)
def test_mask_url(url, masked):
    assert mask_url(URL(url)) == masked


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"url": None}, "url"),
        ({"url": "localhost:8000"}, "url"),
        ({"url": "file:///etc/passwd"}, "url"),
        ({"url": "http://user:canary@host:port/v1"}, "url"),
        ({"url": "http://host/v1", "model": None}, "model"),
        ({"url": "http://host/v1", "concurrency": 0}, "concurrency"),
        ({"url": "http://host/v1", "stall_timeout_sec": 0}, "stall_timeout_sec"),
        ({"url": "http://host/v1", "device": "cuda"}, "device"),
        ({"url": "http://host/v1", "dtype": "fp16"}, "dtype"),
    ],
)
def test_wrong_options_are_named(options, field):
    with pytest.raises(UsageError, match=field) as caught:
        ServerCaptioner(**{"model": "tiny", **options})
    assert "canary" not in str(caught.value)


def test_retry_after():
    assert retry_after_sec("7") == 7.0
    assert retry_after_sec("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0  # long ago
    assert retry_after_sec("soon") is None
    assert retry_after_sec(None) is None


@pytest.mark.parametrize("given", [{"url": "http://h/\udce9"}, {"model": "caf\udce9"}])
def test_a_name_in_bytes_that_are_no_text_is_refused(given):
    options = {"url": "http://h/v1", "model": "m", **given}
    with pytest.raises(UsageError, match=f"{min(given)} is not UTF-8"):
        ServerCaptioner(**options)
