"""Which models there are, where their files lie, and what may be done to them. Never loads a weight."""
