"""Where things lie: the checkout, and beside it the research data, which may be absent."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
STUB_SERVER = ROOT / "tests" / "kit" / "stub_server.py"
