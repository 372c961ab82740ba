"""The real dashboard in a real browser: `curator ui` in a process, Chromium without a window.

    with dashboard(shards) as board, board.open("inspect?v=v2") as page:
        page.get_by_role("button", name="Next").click()
        settle(page)

Whatever a page does, leaving `open` fails when it asked for anything outside this machine, wrote an
error to the console, or shows a traceback. Chromium is the one on the PATH; without it the tests
skip.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    expect,
)
from playwright.sync_api import (
    TimeoutError as PatienceError,
)

from benchmarks import browser
from benchmarks.browser import CHROMIUM, settle, wait_until_up, without_proxies

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")

START_SEC = 300
PATIENCE_MS = 120_000
expect.set_options(timeout=PATIENCE_MS)  # a busy machine is not a failure
"""For one thing to appear; machines that test are slow and shared."""

# Below the path of a page, Streamlit's script looks for the server before it looks at the root.
_PROBE = re.compile(r"/\w+/_stcore/(?:health|host-config)$")
_LOCAL_SCHEMES = ("data", "blob", "about")


@dataclass  # without slots: playwright leaves notes on who listens
class Watch:
    """What a page did that it must not do."""

    origin: str
    problems: list[str] = field(default_factory=list)

    def on_request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        host = f"{parts.scheme.replace('ws', 'http')}://{parts.netloc}"
        if parts.scheme not in _LOCAL_SCHEMES and host != self.origin:
            self.problems.append(f"request to {request.url}")

    def on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not _PROBE.search(message.location["url"]):
            self.problems.append(f"console: {message.text} ({message.location['url']})")


@dataclass(frozen=True, slots=True)
class Board:
    """A running dashboard and the browser that looks at it."""

    url: str
    browser: Browser
    process: subprocess.Popen[str]

    @contextmanager
    def open(
        self, path: str = "", *, width: int = 1280, height: int = 900, dark: bool = False
    ) -> Iterator[Page]:
        """One page, settled; `path` is what stands behind the address, e.g. `inspect?v=v2`."""
        context = self.browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
        )
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        watch = Watch(self.url)
        page.on("request", watch.on_request)
        page.on("console", watch.on_console)
        page.on("pageerror", lambda error: watch.problems.append(f"script: {error}"))
        try:
            page.goto(f"{self.url}/{path}")
            settle(page)
            yield page
            settle(page)
            assert page.locator("[data-testid=stException]").count() == 0, page.inner_text("body")
            assert not watch.problems, watch.problems
        finally:
            context.close()


def open_list(page: Page, box: Locator) -> Locator:
    """Click a select box until its list stays open; a page that is drawn again closes it."""
    options = page.get_by_role("option")
    for _ in range(5):
        settle(page)
        box.click()
        try:
            options.first.wait_for(timeout=PATIENCE_MS / 20)
        except PatienceError:
            continue
        break
    return options


def scrolls_sideways(page: Page) -> bool:
    """Whether anything reaches beyond the right edge of the page."""
    wide = "document.querySelector('[data-testid=stMain]')"
    return bool(page.evaluate(f"{wide}.scrollWidth > {wide}.clientWidth"))


@contextmanager
def dashboard(
    dataset: Path | str, *, store: Path | None = None, studies: Path | None = None
) -> Iterator[Board]:
    """`curator ui` on a free port, and Chromium; both are gone afterwards."""
    if CHROMIUM is None:
        pytest.skip("no chromium on the PATH")
    with serving(dataset, store=store, studies=studies) as (url, process), chromium() as started:
        yield Board(url, started, process)


_open: list[Browser] = []


@contextmanager
def chromium() -> Iterator[Browser]:
    """One browser a process: playwright starts only once at a time."""
    if _open:
        yield _open[0]
        return
    with browser.chromium() as started:
        _open.append(started)
        try:
            yield started
        finally:
            _open.clear()


@contextmanager
def serving(
    dataset: Path | str, *, store: Path | None = None, studies: Path | None = None
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`curator ui` on a free port, up and answering."""
    server = Server(dataset, store=store, studies=studies)
    server.start()
    try:
        yield server.url, server.process
    finally:
        server.stop()


class Server:
    """`curator ui` in a process of its own, which can die and be started again on its port."""

    process: subprocess.Popen[str]

    def __init__(
        self, dataset: Path | str, *, store: Path | None = None, studies: Path | None = None
    ) -> None:
        self.url = ""
        self._command = [sys.executable, "-m", "curator", "ui", str(dataset)]
        self._command += ["--store", str(store)] if store else []
        self._command += ["--studies", str(studies)] if studies else []

    def start(self) -> None:
        """Start it and wait until it answers; the first time on any free port."""
        port = self.url.rpartition(":")[2] or "0"
        self.process = subprocess.Popen(
            [*self._command, "--port", port],
            env=without_proxies(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        if not self.url:
            raise AssertionError(self.process.communicate()[1])
        try:
            wait_until_up(self.url, START_SEC)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """`kill -9`: at once, whatever it does."""
        self.process.kill()
        self.process.communicate()

    def stop(self) -> None:
        """As somebody who presses Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.communicate(timeout=START_SEC)
        except subprocess.TimeoutExpired:
            self.kill()
