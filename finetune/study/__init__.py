"""Studies: the recipe, the cells it asks for, running them, and the results."""
