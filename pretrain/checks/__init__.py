"""Quick checks of a pretrained model: retrieval and zero-shot recognition."""
