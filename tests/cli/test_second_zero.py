"""What can be known at second 0 is said there, before a shard is read or a cent is spent."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest

from curator.core.errors import EngineError, NotFoundError
from curator.engine.makers import all_of
from tests.kit import tars
from tests.kit.cli import curator


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "00000.tar").write_bytes(tars.tar(tars.samples(2)))
    return folder


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server that answers every GET with this status."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(request.param)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}/v1"
        listening.shutdown()
        thread.join()


SERVED = ("--captioner", "server", "--model", "m", "--policy", "replace")


def test_a_server_that_does_not_answer_is_said_before_anything_is_read(shards: Path) -> None:
    said = curator("recaption", shards, *SERVED, "--url", "http://127.0.0.1:9/v1")
    assert said.code == 30
    assert "the server does not answer (ClientConnectorError) in http://127.0.0.1:9/v1" in said.err
    assert not (shards / ".curator").exists()


@pytest.mark.parametrize("server", [401], indirect=True)
def test_a_wrong_key_is_said_before_anything_is_read(shards: Path, server: str) -> None:
    said = curator("recaption", shards, *SERVED, "--url", server)
    assert said.code == 30
    assert "the server refuses the request with HTTP 401" in said.err
    assert not (shards / ".curator").exists()


def test_a_policy_that_needs_scores_of_a_scorer_that_will_not_run(shards: Path) -> None:
    said = curator(
        "recaption", shards, "--captioner", "echo", "--scorer", "text", "--policy", "best"
    )
    assert said.code == 2
    assert (
        "policy 'best' needs scores of a 'clip' scorer, but --scorer is a 'text' scorer" in said.err
    )
    assert not (shards / ".curator").exists()


def test_captioner_and_scorer_that_are_missing_are_said_together(shards: Path) -> None:
    said = curator("recaption", shards, "--model", "./no-captioner", "--scorer", "./no-scorer")
    assert said.code == 10
    assert "no model folder 'no-captioner'" in said.err
    assert "also: no model folder 'no-scorer'" in said.err


def test_all_that_is_wrong_keeps_the_kind_of_the_first() -> None:
    def fail(error: Exception) -> None:
        raise error

    with pytest.raises(NotFoundError, match="one; do this; also: two") as caught:
        all_of(lambda: fail(NotFoundError("one", hint="do this")), lambda: fail(EngineError("two")))
    assert caught.value.code == 10
    assert all_of(lambda: None) == [None]


def test_a_scorer_that_cannot_be_had_names_the_option_of_score(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = curator("score", shards, "--scorer", "org/no-such-model")
    assert said.code in (10, 30)
    assert "--model" not in said.err
    assert "--scorer no-such-model" in said.err


def test_doctor_fails_for_a_folder_that_is_not_there(tmp_path: Path) -> None:
    said = curator("doctor", tmp_path / "nowhere")
    assert said.code == 20
    assert f"dataset: {tmp_path / 'nowhere'} does not exist" in said.err
    said = curator("doctor", tmp_path / "{00000..00003}.tar")
    assert "there is no" not in said.err


def test_doctor_fails_for_a_server_that_is_not_there(tmp_path: Path) -> None:
    url = "http://127.0.0.1:9/v1"
    said = curator("doctor", tmp_path, "--scorer", "text", "--url", url, "--json")
    assert said.code == 20
    statuses = {check["name"]: check["status"] for check in said.json}
    assert statuses["server"] == "fail"
    assert not statuses.keys() & {"scorer", "captioner"}


@pytest.mark.parametrize("server", [200, 404], indirect=True)
def test_doctor_is_content_with_a_server_that_answers(tmp_path: Path, server: str) -> None:
    checks = curator("doctor", tmp_path, "--url", server, "--json").json
    assert {"name": "server", "status": "ok", "text": f"{server} answers"} in checks


def test_doctor_fails_when_the_hub_cannot_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    said = curator("doctor", tmp_path, "--model", "org/no-such-model")
    assert said.code == 20
    assert "the hub at http://127.0.0.1:9 does not answer (ConnectError)" in said.out


@pytest.mark.parametrize("option", ["--html", "--changes"])
def test_a_page_that_cannot_be_written_is_said_before_the_comparison(
    shards: Path, option: str
) -> None:
    """Before the dataset is looked at, even: it is not there."""
    said = curator("diff", shards / "gone@v1", option, shards / "00000.tar" / "diff.html")
    assert said.code == 2
    assert f"cannot write {shards / '00000.tar' / 'diff.html'}" in said.err
