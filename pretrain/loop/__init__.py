"""The training loop, with checkpoints, log and FLOP count."""
