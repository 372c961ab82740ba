"""Probes that are not trained by the loop: `solved`."""
