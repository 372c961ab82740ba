"""What is installed."""

from __future__ import annotations

from importlib.metadata import version as package_version


def tool_version() -> str:
    """The installed version of this tool."""
    return package_version("caption-curator")
