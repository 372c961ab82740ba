"""A stranger's text inside a message: one short line that shows all and can do nothing."""

from __future__ import annotations


def excerpt(text: str, *, max_chars: int = 200) -> str:
    """`text` with everything unprintable escaped as in Python, cut with "..." at `max_chars`."""
    shown = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text[: max_chars + 1]
    )
    return shown if len(shown) <= max_chars else shown[: max_chars - 3] + "..."
