"""Edits by people: their log, their history, and their effect on a decision."""
