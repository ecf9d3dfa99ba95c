"""A modification is a small pure function from checkpoint to checkpoint."""
