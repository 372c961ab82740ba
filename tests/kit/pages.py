"""Pages without a browser: Streamlit's AppTest over a small store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from tests.kit.paths import ROOT
from tests.kit.store import Kit
from ui.shared.environment import DATASET, STORE, STUDIES

UI = ROOT / "ui"
PATIENCE_SEC = 300

Open = Callable[..., AppTest]


def open_page(
    monkeypatch: pytest.MonkeyPatch,
    dataset: Path | str,
    name: str,
    *,
    store: Path | None = None,
    studies: Path | None = None,
    **url: str | list[str],
) -> AppTest:
    """Run the page `ui/views/NAME/page.py` on a dataset, with these parameters in its URL."""
    monkeypatch.setenv(DATASET, str(dataset))
    monkeypatch.setenv(STORE, str(store or ""))
    monkeypatch.delenv(STUDIES, raising=False)
    if studies is not None:
        monkeypatch.setenv(STUDIES, str(studies))
    page = AppTest.from_file(str(UI / "views" / name / "page.py"), default_timeout=PATIENCE_SEC)
    for key, value in url.items():
        page.query_params[key] = value
    return run(page)


@contextmanager
def opener(monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[Open]:
    """What opens a page on a kit; the caches are empty afterwards."""

    def opened(kit: Kit, **more: str) -> AppTest:
        return open_page(monkeypatch, kit.ws.spec, name, **more)

    yield opened
    st.cache_data.clear()
    st.cache_resource.clear()


def run(page: AppTest) -> AppTest:
    """Run it again; nothing may have gone wrong that the page does not explain."""
    page.run()
    assert "Something went wrong" not in shown(page)
    return page


def shown(page: AppTest) -> str:
    """All HTML that the page shows, one block a line."""
    assert not page.exception, page.exception[0].message
    return "\n".join(str(block.value) for block in page.get("html"))
