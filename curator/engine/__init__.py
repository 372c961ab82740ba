"""Make facts: the makers, the worker processes they run in, and the loop that stores results."""
