"""The time, for machines and for people. `SOURCE_DATE_EPOCH` fixes it."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime


def now() -> float:
    """Seconds since the epoch; `SOURCE_DATE_EPOCH` fixes it for reproducible stores."""
    return float(os.environ.get("SOURCE_DATE_EPOCH") or time.time())


def iso(seconds: float) -> str:
    """A UTC timestamp for people, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
