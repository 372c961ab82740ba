"""Names of the environment variables by which `curator ui` says to the pages what to show."""

from __future__ import annotations

DATASET = "CURATOR_UI_DATASET"
STORE = "CURATOR_UI_STORE"
STUDIES = "CURATOR_UI_STUDIES"
