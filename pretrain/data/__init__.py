"""From a version, or shards alone, to batches of pixels and tokens."""
