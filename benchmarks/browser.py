"""A dashboard in a process of its own, and Chromium to look at it: for benchmarks and for tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.common import REPOSITORY

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
START_SEC = 120

_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """The Chromium on the PATH, without a window."""
    if CHROMIUM is None:
        raise SystemExit("no chromium on the PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def serving(*command: object) -> Iterator[str]:
    """A dashboard that Python runs with these arguments, up and answering: its address.

    The command prints the address first.
    """
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=REPOSITORY,
        env=without_proxies(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        wait_until_up(url, START_SEC)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(START_SEC)


def settle(page: Page) -> None:
    """Wait until the script of a page has run to its end, and all of it is there."""
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")
    page.wait_for_selector("[data-testid=stMainBlockContainer]")
    unfinished = "[data-stale=true], [data-testid=stSkeleton]"
    page.wait_for_function(f"document.querySelectorAll('{unfinished}').length === 0")


def without_proxies() -> dict[str, str]:
    """The environment for a server on this machine, which no proxy reaches."""
    proxies = ("http_proxy", "https_proxy", "all_proxy")
    return {name: value for name, value in os.environ.items() if name.lower() not in proxies}


def wait_until_up(url: str, within_sec: float) -> None:
    """Return when the dashboard at `url` answers.

    Raises:
        OSError: it did not in time.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + within_sec
    while True:
        try:
            with opener.open(f"{url}/_stcore/health", timeout=5):
                return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)
