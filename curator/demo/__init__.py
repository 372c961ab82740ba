"""The demo: a small dataset that makes itself, offline."""
