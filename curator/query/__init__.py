"""Run read-only SQL over a version in a separate process."""
