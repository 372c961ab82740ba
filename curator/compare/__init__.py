"""Compare two versions."""
