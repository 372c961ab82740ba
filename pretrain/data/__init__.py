"""Turn a version, or shards without a store, into batches of pixels and tokens."""
