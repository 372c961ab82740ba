"""Fixtures of the whole suite."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.kit.paths import ROOT, SHARED

# `make quick` leaves out tests marked `long`, and these rooms: two thirds of the time of the suite.
LONG_ROOMS = ("demo", "hostile", "reliability", "ui")

# Who starts the tests in the background has Ctrl-C ignored, and so would every process of theirs.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of a long room."""
    for item in items:
        if item.path.relative_to(ROOT / "tests").parts[0] in LONG_ROOMS:
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The research data and models beside the checkout; never part of the project."""
    if not (SHARED / "data" / "photos" / "00000.tar").exists():
        pytest.skip(f"the research data is not there: {SHARED.name}/ beside the checkout")
    return SHARED
