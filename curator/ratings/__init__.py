"""Blind ratings: people's choices between two captions of unknown origin."""
