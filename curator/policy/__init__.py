"""Apply a policy to facts: decide which captions a sample keeps, and why."""
