"""Facts and a policy make a decision: which captions a sample keeps, and why."""
