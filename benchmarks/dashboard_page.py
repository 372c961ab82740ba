"""The floor of `benchmarks.dashboard_browser`: what Streamlit needs for as good as nothing.

A page of one line; with `?show=filter` a line that a text box and a slider change; with
`?show=pictures` 50 ready pictures and a button for the next 50.
"""

from __future__ import annotations

import streamlit as st

from benchmarks.dashboard_browser import NUM_PICTURES, ready_pictures


def page() -> None:
    """The page."""
    show = st.query_params.get("show", "line")
    if show == "line":
        st.html("<p class=line>one line of text</p>")
    elif show == "filter":
        text = st.text_input("Text contains")
        low, _ = st.slider("Score", 0.0, 1.0, (0.0, 1.0), 0.01)
        st.html(f"<p class=line>{len(text)} characters, from {low}</p>")
    else:
        first = NUM_PICTURES if st.button("Next") else 0
        for picture in ready_pictures()[first : first + NUM_PICTURES]:
            st.image(picture, width=256)


page()
