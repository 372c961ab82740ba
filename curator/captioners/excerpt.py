"""Quote untrusted text in messages as one short, printable line."""

from __future__ import annotations


def excerpt(text: str, *, max_chars: int = 200) -> str:
    """Return `text` with unprintable characters escaped, cut to `max_chars` (ending in "...")."""
    shown = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text[: max_chars + 1]
    )
    return shown if len(shown) <= max_chars else shown[: max_chars - 3] + "..."
