"""What people changed: the log of edits, their history, and their effect on a decision."""
