"""The benchmarks run: each with --quick, where sizes are tiny and figures mean nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.browser import needs_chromium
from tests.kit.paths import ROOT


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("bandwidth", ["index", "cat", "sha256sum", "openssl", "export", "copy"]),
        ("object_store", ["read", "index", "index again", "disk", "page"]),
        ("decide", ["best", "plain"]),
        ("query", ["curator query", "plain", "dashboard"]),
        pytest.param("slices", ["3"], marks=pytest.mark.slow),
        ("aa", ["normal", "normal, looked at twice"]),
        ("world", ["64 px", "128 px"]),
        pytest.param(
            "dashboard",
            [
                "first page",
                "overview",
                "health on it",
                "filter by score",
                "filter by text",
                "filter by source",
                "filter by flag",
                "filter by change",
                "next page",
                "next page by score",
                "next page by gain",
                "one sample",
                "memory after",
            ],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "dashboard_browser",
            [
                "server up",
                "first page",
                "first page, later",
                "in a new browser",
                "in the same browser",
                "50 pictures",
                "next 50 pictures",
                "filter by score",
                "filter by text",
            ],
            marks=[pytest.mark.slow, needs_chromium],
        ),
        pytest.param(
            "pretrain_steps",
            ["curator", "open_clip_train", "curator, alike"],
            marks=pytest.mark.slow,
        ),
        pytest.param("memory", ["recaption", "score"], marks=pytest.mark.slow),
        pytest.param(
            "score",
            ["engine", "plain", "floor", "floor, tuned", "decode + towers"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "pretrain_data",
            ["version", "export", "open_clip", "webdataset", "floor"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "finetune_step",
            ["finetune step", "finetune floor", "probe step", "probe floor"],
            marks=pytest.mark.slow,
        ),
    ],
)
@pytest.mark.long
def test_quick(name: str, rows: list[str], tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--json", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert [next(iter(row.values())) for row in found["rows"]] == rows
    assert all(row in done.stdout for row in rows)
    assert found["details"]
