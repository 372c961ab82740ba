"""Captioning servers that die, restart, are killed by images, or are several."""

from __future__ import annotations

import base64
import collections
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from curator.captioners import Caption, CaptionFailure
from curator.captioners.payload import data_uri
from curator.captioners.server import ServerCaptioner
from curator.core.errors import EngineError
from curator.core.images import decode
from curator.engine.makers import captioner_maker
from tests.captioners.test_server import encode, picture, request_for
from tests.kit import tars
from tests.kit.cli import curator
from tests.kit.paths import ROOT
from tests.kit.stub_server import answer

Serve = Callable[..., str]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start a server; gives its URL. The images that it answered are in the file `log`."""
    with contextlib.ExitStack() as stack:

        def start(*options: object, log: str = "answered") -> str:
            command = [sys.executable, "-m", "tests.kit.model_server", "--log", tmp_path / log]
            process = stack.enter_context(
                subprocess.Popen(
                    [*map(str, command), *map(str, options)],
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=ROOT,
                )
            )
            stack.callback(process.send_signal, signal.SIGTERM)
            assert process.stdout is not None
            return f"http://127.0.0.1:{int(process.stdout.readline())}/v1"

        yield start


def answered(tmp_path: Path, log: str = "answered") -> collections.Counter[str]:
    """How often each image was answered."""
    return collections.Counter(
        line.split()[0] for line in (tmp_path / log).read_text().splitlines()
    )


def test_ten_deaths_and_three_images_that_kill(tmp_path: Path, serve: Serve) -> None:
    """Everything is captioned once, but those three; counted at the server."""
    requests = [picture(number) for number in range(150)]
    killers = {requests[number].image_sha256 for number in (60, 61, 140)}
    shards = tmp_path / "shards"
    shards.mkdir()
    for start in (0, 50, 100):
        files = []
        for number in range(start, start + 50):
            files += [(f"{number:05d}.jpg", requests[number].image), (f"{number:05d}.txt", b"x")]
        (shards / f"{start:05d}.tar").write_bytes(tars.tar(files))
    url = serve("--poison", ",".join(killers), "--die-after", 10, "--deaths", 10, "--room", 16)
    asked = ("--captioner", "server", "--model", "m", "--url", url, "--policy", "replace")
    said = curator("recaption", shards, *asked, "--concurrency", 16, "--json")
    assert said.code == 0, said.err
    assert said.json["captioned"]["made"] == 147
    assert said.json["captioned"]["failures"] == {"engine.crashed": 3}
    assert answered(tmp_path) == {
        request.image_sha256: 1 for request in requests if request.image_sha256 not in killers
    }
    # ten by itself; each killer at least twice when it was alone
    assert said.err.count("is gone") >= 10 + 3 * 2
    assert said.err.count("is gone") == said.err.count("is back")
    # What killed the server is not tried again by the next run.
    again = curator("recaption", shards, *asked, "--json")
    assert again.json["model_calls"] == 0


def test_the_others_go_on_when_one_server_is_gone(tmp_path: Path, serve: Serve) -> None:
    killer = picture(7)
    first = serve("--poison", killer.image_sha256, "--away", 1, log="first")
    second = serve("--poison", killer.image_sha256, "--away", 1, log="second")
    requests = [picture(number) for number in range(200)]
    captioner = ServerCaptioner(model="m", url=[first, second], concurrency=8)
    outcomes = captioner.caption(requests)
    assert [o.reason for o in outcomes if isinstance(o, CaptionFailure)] == ["engine.crashed"]
    assert [o.text for o in outcomes if isinstance(o, Caption)] == [
        answer(request.image_sha256) for request in requests if request is not requests[7]
    ]
    both = answered(tmp_path, "first"), answered(tmp_path, "second")
    assert set((both[0] + both[1]).values()) == {1}
    assert max(map(len, both)) > 150  # it did not wait for the one that had to be started again


def test_one_server_of_two_is_enough_to_begin(tmp_path: Path, serve: Serve) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    files = [(f"{number}.jpg", picture(number).image) for number in range(20)]
    (shards / "0.tar").write_bytes(tars.tar(files))
    urls = ("--url", serve(), "--url", "http://127.0.0.1:9/v1")  # nobody listens at the second
    said = curator(
        "recaption", shards, "--captioner", "server", "--model", "m", *urls, "--policy", "replace",
        "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert said.json["captioned"]["made"] == 20
    assert "continuing with the other servers" in said.err


def test_a_server_that_only_gives_errors_does_not_spoil_the_work_of_the_other(
    tmp_path: Path, serve: Serve
) -> None:
    stub = [sys.executable, "-m", "tests.kit.stub_server", "--mode", "error"]
    with subprocess.Popen(stub, stdout=subprocess.PIPE, text=True, cwd=ROOT) as sick:
        assert sick.stdout is not None
        urls = [serve(), f"http://127.0.0.1:{int(sick.stdout.readline())}/v1"]
        captioner = ServerCaptioner(model="m", url=urls, concurrency=20)
        outcomes = captioner.caption([picture(number) for number in range(150)])
        sick.kill()
    assert all(isinstance(outcome, Caption) for outcome in outcomes)


def test_a_run_ends_when_no_server_comes_back(tmp_path: Path, serve: Serve) -> None:
    url = serve("--die-after", 5, "--deaths", 1, "--away", 3600)
    captioner = ServerCaptioner(model="m", url=url, concurrency=2, server_wait_sec=0.5)
    with pytest.raises(EngineError, match=r"no server was there for 0.5 s") as caught:
        captioner.caption([picture(number) for number in range(20)])
    assert caught.value.code == 30


@pytest.mark.parametrize("takes_n", [True, False])
def test_candidates_of_an_image_are_one_request_where_the_server_can(
    tmp_path: Path, serve: Serve, takes_n: bool
) -> None:
    """The captions and their seeds are the same either way."""
    shards = tmp_path / "shards"
    shards.mkdir()
    requests = [picture(number) for number in range(6)]
    files = [(f"{number}.jpg", request.image) for number, request in enumerate(requests)]
    (shards / "0.tar").write_bytes(tars.tar(files))
    url = serve("--takes-n" if takes_n else "--no-takes-n")
    said = curator(
        "recaption", shards, "--captioner", "server", "--model", "m", "--url", url, "--policy",
        "replace", "--candidates", 3, "--temperature", 0.7, "--seed", 5, "--concurrency", 2,
        "--batch-size", 3, "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert said.json["captioned"]["made"] == 18
    numbers = [int(line.split()[1]) for line in (tmp_path / "answered").read_text().splitlines()]
    assert numbers == ([3] * 6 if takes_n else [1] * 18)
    sql = "select image_sha256, candidate, seed, text from generated"
    rows = map(json.loads, curator("query", shards, sql, "--json").out.splitlines())
    found = {(row["image_sha256"], row["candidate"]): (row["seed"], row["text"]) for row in rows}
    assert found == {
        (request.image_sha256, number): (5 + number, answer(request.image_sha256, 5 + number))
        for request in requests
        for number in range(3)
    }


def test_large_images_are_made_smaller_and_that_is_another_maker(
    tmp_path: Path, serve: Serve
) -> None:
    image = encode(Image.effect_noise((400, 100), 90).convert("RGB"))
    captioner = ServerCaptioner(model="m", url="http://h/v1", max_pixels=10_000)
    sent = captioner.prepare(request_for(image))
    assert isinstance(sent, bytes)
    assert sent.startswith(b"data:image/jpeg;base64,")
    # 40,000 pixels to 10,000: half of each side
    assert decode(base64.b64decode(sent.split(b",")[1])).image.size == (200, 50)
    assert ServerCaptioner(model="m", url="http://h/v1").prepare(request_for(image)) == (
        data_uri(image)
    )
    options = {"model": "m", "url": "http://h/v1"}
    names = {
        captioner_maker("server", **options, max_pixels=pixels).name  # type: ignore[arg-type]  # options of several types
        for pixels in (None, 10_000, 20_000)
    }
    assert len(names) == 3
    assert json.dumps(captioner_maker("server", **options).recipe).count("max_pixels") == 0  # type: ignore[arg-type]  # options of several types
