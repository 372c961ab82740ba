"""Run the dashboard: the frame of every page and the navigation between the pages in ui/views.

`curator ui` runs this file in Streamlit. It computes nothing; each page is its own script.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st
from streamlit.navigation.page import StreamlitPage

# Not `pages`: Streamlit takes a folder of that name beside this file for its own list of pages, and
# tells whoever opens one of ours that it does not exist.
_VIEWS = Path(__file__).resolve().with_name("views")
_LOGO = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 190 32" width="190" height="32">
<rect x="1" y="4" width="24" height="24" rx="6" fill="#4f7fe0"/>
<path d="M7 13h12M7 19h7" stroke="#fff" stroke-width="2.4" stroke-linecap="round"/>
<text x="34" y="22" font-family="sans-serif" font-size="17" font-weight="600"
 fill="#6f8fd8">caption-curator</text></svg>"""
_SECTIONS = {
    "Data": {
        "overview": "Overview",
        "inspect": "Inspect",
        "compare": "Compare",
        "review": "Review",
    },
    "Decide": {"policy": "Policy", "query": "Query"},
    "Verdict": {"studies": "Studies"},
}


def main() -> None:
    """Draw the frame and the navigation, then run the page."""
    st.set_page_config(page_title="caption-curator", page_icon="🖼️", layout="wide")
    pages = {
        section: [_page(name, title) for name, title in views.items()]
        for section, views in _SECTIONS.items()
    }
    home = pages["Data"][0]
    pages["Data"].append(_by_name(home))
    st.logo(_LOGO, size="large")
    st.navigation(pages).run()


def _page(name: str, title: str) -> StreamlitPage:
    # Streamlit serves the first page at /; its name is used by the redirect page below.
    is_first = name == "overview"
    url_path = "home" if is_first else name
    return st.Page(_VIEWS / name / "page.py", title=title, url_path=url_path, default=is_first)


def _by_name(home: StreamlitPage) -> StreamlitPage:
    """Return the page that redirects /overview to the first page."""
    return st.Page(
        lambda: st.switch_page(home, query_params=st.query_params.to_dict()),
        title="Overview",
        url_path="overview",
        visibility="hidden",
    )


main()
