"""The rendered world: scenes with exact truth, noisy alt text, and two small models for it."""
