"""The commands as functions: called by the CLI, callable from scripts."""
