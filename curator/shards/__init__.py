"""Tar shards: their bytes, members and keys, and the samples and alt texts found in them."""
