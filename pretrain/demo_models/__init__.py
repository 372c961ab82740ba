"""Train the two small models of the rendered world: `python -m pretrain.demo_models OUT`."""
