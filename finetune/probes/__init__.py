"""Probes of frozen features besides `quick`: solved, nearest neighbours, published ones."""
