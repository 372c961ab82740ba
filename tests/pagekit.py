"""Pages without a browser: Streamlit's AppTest over a small store."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from ui.environment import DATASET, STORE, STUDIES

UI = Path(__file__).resolve().parents[1] / "ui"
PATIENCE_SEC = 60


def open_page(
    monkeypatch: pytest.MonkeyPatch,
    dataset: Path,
    name: str,
    *,
    store: Path | None = None,
    **url: str | list[str],
) -> AppTest:
    """Run the page `ui/views/NAME.py` on a dataset, with these parameters in its URL."""
    monkeypatch.setenv(DATASET, str(dataset))
    monkeypatch.setenv(STORE, str(store or ""))
    monkeypatch.delenv(STUDIES, raising=False)
    page = AppTest.from_file(str(UI / "views" / f"{name}.py"), default_timeout=PATIENCE_SEC)
    for key, value in url.items():
        page.query_params[key] = value
    return run(page)


def run(page: AppTest) -> AppTest:
    """Run it again; nothing may have gone wrong that the page does not explain."""
    page.run()
    assert not page.exception, page.exception[0].message
    assert "Something went wrong" not in said(page)
    return page


def said(page: AppTest) -> str:
    """All HTML that the page shows, one block a line."""
    return "\n".join(str(block.value) for block in page.get("html"))
