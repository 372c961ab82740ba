"""Fixtures of the whole suite."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.kit.paths import SHARED

# Who starts the tests in the background has Ctrl-C ignored, and so would every process of theirs.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The research data and models beside the checkout; never part of the project."""
    if not (SHARED / "data" / "photos" / "00000.tar").exists():
        pytest.skip(f"the research data is not there: {SHARED.name}/ beside the checkout")
    return SHARED
