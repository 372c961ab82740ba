"""`curator ui`: what it refuses, what Streamlit is told, how it ends."""

from __future__ import annotations

import signal
import socket
import urllib.request
from pathlib import Path

import pytest
from streamlit import config

from curator.core.errors import UsageError
from curator.core.registry import load
from tests.kit.browser import serving
from tests.kit.cli import curator
from tests.kit.store import small_store
from ui.serve import WARMED, Serving, options


def test_a_dataset_without_a_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar").touch()
    said = curator("ui", tmp_path)
    assert said.code == 10
    assert "error[store.none]" in said.err
    assert "curator index" in said.err


def test_studies_must_be_a_folder(tmp_path: Path) -> None:
    kit = small_store(tmp_path / "shards", ["alt"])
    said = curator("ui", kit.ws.dataset.root, "--studies", tmp_path / "none", "--port", 0)
    assert said.code == 2
    assert "--studies" in said.err


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"127.0.0.1:{port}"):
            Serving(dataset="x", port=port)


@pytest.mark.parametrize("target", WARMED)
def test_what_is_loaded_ahead_exists(target: str) -> None:
    assert callable(load(target))


def test_an_address_that_is_not_of_this_machine_is_named() -> None:
    with pytest.raises(UsageError, match=r"192\.0\.2\.1"):
        Serving(dataset="x", host="192.0.2.1", port=0)


@pytest.mark.parametrize(
    ("host", "url", "is_private"),
    [
        ("127.0.0.1", "http://127.0.0.1:", True),
        ("localhost", "http://localhost:", True),
        ("0.0.0.0", "http://127.0.0.1:", False),
    ],
)
def test_addresses(host: str, url: str, is_private: bool) -> None:
    found = Serving(dataset="x", host=host, port=0)
    assert found.url == f"{url}{found.port}"
    assert found.port > 0
    assert found.is_private is is_private


def test_what_streamlit_is_told_are_options_that_it_knows() -> None:
    told = options(Serving(dataset="x", port=0))
    assert not set(told) - set(config.get_config_options())
    for name, value in {
        "server.address": "127.0.0.1",
        "server.enableXsrfProtection": True,
        "server.enableCORS": True,
        "server.enableAgentApi": False,
        "client.showErrorDetails": "none",
        "client.toolbarMode": "minimal",
        "browser.gatherUsageStats": False,
        "server.fileWatcherType": "none",
        "server.headless": True,
    }.items():
        assert told[name] == value, name
    assert Path(told["theme.base"]).is_file()
    assert "127.0.0.1" in told["server.allowedHosts"]
    # Whoever opens it to others cannot know by which names they will call it.
    assert options(Serving(dataset="x", host="0.0.0.0", port=0))["server.allowedHosts"] == []


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_a_signal_and_ends_well(tmp_path: Path, ending: signal.Signals) -> None:
    kit = small_store(tmp_path / "shards", ["alt"])
    before = sorted(kit.ws.store.root.rglob("*"))
    with serving(kit.ws.dataset.root) as (url, process):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url) as page:
            assert page.status == 200
        process.send_signal(ending)
        out, err = process.communicate()
        assert process.returncode == 0, err
        assert "Traceback" not in out + err
    assert sorted(kit.ws.store.root.rglob("*")) == before  # looking leaves nothing behind
