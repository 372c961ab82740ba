"""Studies: read a recipe, plan its cells, run them, and collect the results."""
