"""Trains the two small models of the rendered world: `python -m curator.demo.training OUT`."""
