"""Caption curation for image-text shards: facts, decisions, immutable versions."""
