"""Image and text towers: by name, from a config, from a run; their sizes, groups and weights."""
