"""Read and write tar shards: bytes, members, keys, samples and alt texts."""
