"""A version as files for others."""
