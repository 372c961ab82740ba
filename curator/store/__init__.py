"""Where facts and versions lie, and the only code that writes."""
