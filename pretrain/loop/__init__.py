"""The one training loop, with its checkpoints, its log and its count of compute."""
