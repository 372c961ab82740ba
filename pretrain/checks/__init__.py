"""Quick checks of a trained model: retrieval and zero-shot classification."""
