"""Other layouts into shards."""
