"""The one loop that makes facts: who makes them, in which process, and how they are kept."""
