"""Which part of a model is damaged, and why."""
