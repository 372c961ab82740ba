"""S3 servers on the loopback, and a proxy before one that fails as it is told."""

from __future__ import annotations

import http.client
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

BUCKET = "pictures"
SECRET = "canary-of-a-secret-key"


def environment(endpoint: str) -> dict[str, str]:
    """What a user sets for such a server."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "canary-id",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
    }


@contextmanager
def moto() -> Iterator[str]:
    """moto's server; yields its endpoint."""
    server = pytest.importorskip("moto.server", reason="moto is not installed: pip install .[dev]")
    import logging

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        running.stop()


@contextmanager
def localbucket(root: Path) -> Iterator[str]:
    """localbucket over a folder; yields its endpoint."""
    module: Any = pytest.importorskip(
        "localbucket", reason="localbucket is not installed: pip install .[dev]"
    )
    handler = type("Handler", (module.S3Handler,), {"data_root": root})
    with serving(handler) as endpoint:
        yield endpoint


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server in a thread; yields its endpoint."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def put(endpoint: str, key: str, data: bytes, *, bucket: str = BUCKET) -> None:
    """Write an object as a plain request (the servers check no signature)."""
    _request(endpoint, "PUT", f"/{bucket}/{key}", data)


def make_bucket(endpoint: str, bucket: str = BUCKET) -> None:
    """Make a bucket, or leave it as it is."""
    _request(endpoint, "PUT", f"/{bucket}", b"")


def upload(endpoint: str, folder: Path, prefix: str) -> None:
    """Write every file below a folder as an object."""
    make_bucket(endpoint)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            put(endpoint, f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def delete(endpoint: str, key: str) -> None:
    """Remove an object."""
    _request(endpoint, "DELETE", f"/{BUCKET}/{key}", b"")


def get(endpoint: str, key: str) -> bytes:
    """Read an object."""
    return _request(endpoint, "GET", f"/{BUCKET}/{key}", b"")


def keys(prefix: str) -> list[str]:
    """List the objects below a prefix, with the endpoint of the environment."""
    from curator.shards import objects

    root = objects.parse(f"s3://{BUCKET}/{prefix}")
    return sorted(one.below(root) for one in objects.listing(root))


def _request(endpoint: str, method: str, path: str, data: bytes) -> bytes:
    connection = http.client.HTTPConnection(endpoint.removeprefix("http://"), timeout=30)
    sent = {"Authorization": "AWS4-HMAC-SHA256 Credential=canary-id/20260101/us-east-1/s3/aws4"}
    connection.request(method, path, body=data, headers=sent)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert answer.status in (200, 204, 409), (answer.status, body)
    return body


Fault = Callable[[str, str], str | int | None]
"""Called with (method, path); returns None, or what happens instead of the answer of the server:

a status         the server is not asked
"after STATUS"   the server is asked, and does what it is told
"cut"            the body ends early; "short": and its length says so
"close"          the server is asked, and the connection ends without an answer
"slow"           the answer comes a little later
"hang"           no answer
"overwrite"      the server is asked without If-None-Match
"""


@contextmanager
def faulty(endpoint: str, fault: Fault) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """A proxy before a server; yields its endpoint and the (method, path, range) it was asked."""
    seen: list[tuple[str, str, str]] = []
    hanging = threading.Event()

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _any(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(size)
            seen.append((self.command, self.path, self.headers.get("Range") or ""))
            what = fault(self.command, self.path)
            if what == "hang":
                hanging.wait(20)
                self.close_connection = True
                return
            if isinstance(what, int):
                self._error(what)
                return
            inner = http.client.HTTPConnection(endpoint.removeprefix("http://"), timeout=30)
            passed = {k: v for k, v in self.headers.items() if k.lower() != "host"}
            if what == "overwrite":
                passed = {k: v for k, v in passed.items() if k.lower() != "if-none-match"}
            inner.request(self.command, self.path, body=body, headers=passed)
            answer = inner.getresponse()
            data = answer.read()
            found = {k: v for k, v in answer.getheaders() if k.lower() not in _HOP}
            inner.close()
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            if what == "close":
                self.close_connection = True
            elif what is not None and what.startswith("after "):
                self._error(int(what.removeprefix("after ")))
            elif what == "short":
                self._answer(answer.status, found, data[: len(data) // 2])
            else:
                if what == "slow":
                    time.sleep(0.05)
                self._answer(answer.status, found, data, cut=what == "cut", length=length)

        def _error(self, status: int) -> None:
            code = {
                403: "AccessDenied",
                409: "ConditionalRequestConflict",
                412: "PreconditionFailed",
                503: "SlowDown",
            }.get(status, "InternalError")
            self._answer(status, {}, f"<Error><Code>{code}</Code></Error>".encode())

        def _answer(
            self,
            status: int,
            headers: Mapping[str, str],
            data: bytes,
            *,
            cut: bool = False,
            length: str | None = None,
        ) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", length or str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[: len(data) // 2] if cut else data)
            if cut:
                self.close_connection = True

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _any

    _HOP = {"content-length", "transfer-encoding", "connection", "date", "server"}
    with serving(Proxy) as proxy:
        try:
            yield proxy, seen
        finally:
            hanging.set()


def set_environment(monkeypatch: pytest.MonkeyPatch, endpoint: str, cache: Path) -> None:
    """Point this process, and those it starts, at a server and a cache of its own."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "CURATOR_"))]:
        monkeypatch.delenv(name)
    for name, value in environment(endpoint).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CURATOR_CACHE_DIR", str(cache))
