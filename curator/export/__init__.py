"""Export a version as files for other tools."""
