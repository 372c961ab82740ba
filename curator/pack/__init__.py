"""Pack other layouts into shards."""
