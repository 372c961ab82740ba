"""What a policy would do to the samples of a store, without committing anything."""
