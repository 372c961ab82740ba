"""Read-only SQL over a version, in a process of its own."""
