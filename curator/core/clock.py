"""Current time and its formats for people; `SOURCE_DATE_EPOCH` fixes the time."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime


def now() -> float:
    """Return seconds since the epoch; `SOURCE_DATE_EPOCH` fixes it for reproducible stores."""
    return float(os.environ.get("SOURCE_DATE_EPOCH") or time.time())


_MINUTE, _HOUR = 60.0, 3600.0


def duration(seconds: float) -> str:
    """Format seconds: `45 s`, from two minutes `3 min`, from two hours `2.5 h`."""
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / _MINUTE:.0f} min" if seconds < 2 * _HOUR else f"{seconds / _HOUR:.1f} h"


def iso(seconds: float) -> str:
    """Format a time as UTC timestamp, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
