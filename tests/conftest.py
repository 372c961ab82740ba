"""Fixtures of the whole suite."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.kit.paths import ROOT, SHARED

# What `make quick` leaves out beside single tests marked `long`: whole rooms and files.
LONG = (
    "captioners/test_server.py",
    "demo/",
    "engine/test_executors.py",
    "finetune/report/test_report.py",
    "finetune/study/test_study.py",
    "finetune/test_run.py",
    "hostile/",
    "pretrain/data/test_cuts.py",
    "pretrain/loop/test_ddp.py",
    "pretrain/test_run.py",
    "pretrain/towers/test_models.py",
    "pretrain/towers/test_sizes.py",
    "reliability/",
    "scorers/test_clip.py",
    "ui/",
)

# Who starts the tests in the background has Ctrl-C ignored, and so would every process of theirs.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of a long room or file."""
    for item in items:
        if item.path.relative_to(ROOT / "tests").as_posix().startswith(LONG):
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The research data and models beside the checkout; never part of the project."""
    if not (SHARED / "data" / "photos" / "00000.tar").exists():
        pytest.skip(f"the research data is not there: {SHARED.name}/ beside the checkout")
    return SHARED
